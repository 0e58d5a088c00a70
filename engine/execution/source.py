"""Where a recorded step finds its batches, and where it leaves what it measured; both are on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from engine.data.batches import Place
from engine.execution.whole import Unfit, Window, batches
from engine.loop import Loop, Taken, summed

RING = 256  # steps whose losses are kept on the device where batches are loaded


class Source:
    """Where a recorded step finds its batches, and where it leaves what it measured.

    Places, `window` in the making being of them: the epoch's order is on the device, and the counter names the batch. Otherwise
    batches are copied to where the step looks for them.
    """

    def __init__(self, loop: Loop, window: Window, device: torch.device) -> None:
        self.size = len(window)  # batches of a step
        self.at: int | None = None  # the counter, if it is known
        self._place = window[0] if isinstance(window[0], Place) else None
        self._indices: Tensor | None = None  # of the epoch under way
        real = batches(window)
        self._batch = len(real[0][1])
        if self._place is not None:
            source = self._place.source
            self._whole = source.samples // source.batch_size  # batches
            self._order = torch.zeros((self._whole, source.batch_size), dtype=torch.int64, device=device)
            held, room = [source.inputs, source.targets, self._order], source.length
        else:
            held, self._form = pytree.tree_flatten(real)
            if not all(isinstance(part, Tensor) for part in held):
                raise Unfit("a batch holds more than tensors")
            held, room = [part.clone() for part in held], RING * self.size
            self._shapes = [(part.shape, part.dtype) for part in held]
        self._room = room
        kind = torch.float64 if any(p.dtype == torch.float64 for p in loop.module.parameters()) else torch.float32
        counts = [loop.count(targets) for _, targets in real]
        count = summed(counts)
        self._count = count
        self._measures: Callable[[], bool] = lambda: loop.clip_norm is not None or loop.measure_norm
        self._counter = torch.zeros(1, dtype=torch.int64, device=device)
        self._offsets = torch.arange(self.size, device=device)
        self._losses, self._norms = torch.zeros(room, dtype=kind, device=device), torch.zeros(room, dtype=kind, device=device)
        self._counts = torch.zeros(room, dtype=count.dtype, device=device) if isinstance(count, Tensor) else None
        self._held = held

    def tensors(self) -> list[Tensor]:
        """All that a step reads and writes here."""
        counts = [] if self._counts is None else [self._counts]
        return [*self._held, *counts, self._norms, self._losses, self._offsets, self._counter]

    # In the step

    def window(self, tensors: Sequence[Tensor]) -> Window:
        """The batches of the step under way."""
        if self._place is None:
            window: Window = pytree.tree_unflatten(list(tensors[: len(self._held)]), self._form)
            return window
        inputs, targets, order = tensors[:3]
        offsets, counter = tensors[-2:]
        rows = order.index_select(0, counter if self.size == 1 else counter + offsets)
        return [(inputs.index_select(0, row), targets.index_select(0, row)) for row in rows.unbind()]

    def leave(self, tensors: Sequence[Tensor], taken: Taken) -> None:
        """Write down what the step measured, and go on to the next."""
        norms, losses, _, counter = tensors[-4:]
        losses.scatter_(0, counter, taken.loss.detach().to(losses.dtype).reshape(1))
        if taken.norm is not None:
            norms.scatter_(0, counter, taken.norm.detach().to(norms.dtype).reshape(1))
        if isinstance(taken.count, Tensor):
            tensors[-5].scatter_(0, counter, taken.count.reshape(1))
        counter.add_(self.size)

    # Around it

    def fits(self, window: Window) -> bool:
        """Whether a window has the shape that was recorded."""
        if len(window) != self.size or isinstance(window[0], Place) != (self._place is not None):
            return False
        if self._place is not None:
            return bool(window[-1].number < self._whole)
        parts, form = pytree.tree_flatten(list(window))
        return bool(form == self._form) and [(part.shape, part.dtype) for part in parts] == self._shapes

    def enter(self, window: Window) -> int:
        """Let the counter stand where this window's results go; that place."""
        if self._place is None:
            at = 0 if self.at is None or self.at + self.size > self._room else self.at
        else:
            place = window[0]
            at = place.number
            if place.indices is not self._indices:
                self._indices = place.indices
                self._order.copy_(place.indices[: self._order.numel()].view_as(self._order))
        if at != self.at:
            self._counter.fill_(at)
            self.at = at
        return at

    def follows(self, window: Window, steps: int) -> bool:
        """Whether the step of this window may come next, `steps` after `enter`; its batches are there then."""
        assert self.at is not None
        if self._place is not None:
            return bool(window[0].indices is self._indices and window[0].number == self.at + steps * self.size)
        if self.at + (steps + 1) * self.size > self._room:
            return False
        for held, part in zip(self._held, pytree.tree_leaves(window), strict=True):
            held.copy_(part, non_blocking=True)
        return True

    def read(self, first: int, steps: int, lr: float) -> Taken:
        """What `steps` steps from that place on have measured."""
        last = first + steps * self.size
        self.at = last

        def copied(ring: Tensor) -> Tensor:
            return ring[first : last : self.size].clone()

        loss, count = copied(self._losses), self._count if self._counts is None else copied(self._counts)
        norm = copied(self._norms) if self._measures() else None
        used = steps * self.size
        return Taken(loss, count, used, used * self._batch, lr, norm, steps=steps)
