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
TOGETHER = 8  # steps that are recorded as one where a step is short: their batches are gathered at once


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
        self.bytes = sum(part.nbytes for part in pytree.tree_leaves(real) if isinstance(part, Tensor))  # of a step's batches
        if self._place is not None:
            source = self._place.source
            self._whole = source.samples // source.batch_size  # batches
            self._order = torch.zeros((self._whole, source.batch_size), dtype=torch.int64, device=device)
            self.length = self._whole // self.size  # steps of an epoch whose batches are on the device
            held, room = [source.inputs, source.targets, self._order], source.length
        else:
            self.length = 0
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
        self._offsets = torch.arange(self.size * TOGETHER, device=device)
        self._losses, self._norms = torch.zeros(room, dtype=kind, device=device), torch.zeros(room, dtype=kind, device=device)
        self._counts = torch.zeros(room, dtype=count.dtype, device=device) if isinstance(count, Tensor) else None
        self._held = held

    def tensors(self) -> list[Tensor]:
        """All that a step reads and writes here."""
        counts = [] if self._counts is None else [self._counts]
        return [*self._held, *counts, self._norms, self._losses, self._offsets, self._counter]

    # In the step

    def windows(self, tensors: Sequence[Tensor], steps: int = 1) -> Sequence[Window]:
        """The batches of the step under way and of those after it. Several only of data that are on the device."""
        if self._place is None:
            window: Window = pytree.tree_unflatten(list(tensors[: len(self._held)]), self._form)
            return [window]
        inputs, targets, order = tensors[:3]
        offsets, counter = tensors[-2:]
        batches = self.size * steps
        rows = order.index_select(0, counter if batches == 1 else counter + offsets[:batches]).view(-1)
        pairs = list(zip(*(held.index_select(0, rows).split(self._batch) for held in (inputs, targets)), strict=True))
        return [pairs[first : first + self.size] for first in range(0, batches, self.size)]

    def leave(self, tensors: Sequence[Tensor], steps: Sequence[Taken]) -> None:
        """Write down what these steps measured, and go on to the next."""
        norms, losses, offsets, counter = tensors[-4:]
        places = counter if len(steps) == 1 else counter + offsets[: self.size * len(steps) : self.size]

        def write(ring: Tensor, measured: Sequence[Tensor]) -> None:
            numbers = [number.detach().to(ring.dtype).reshape(1) for number in measured]
            ring.scatter_(0, places, numbers[0] if len(numbers) == 1 else torch.cat(numbers))

        write(losses, [taken.loss for taken in steps])
        if found := [taken.norm for taken in steps if taken.norm is not None]:
            write(norms, found)
        if found := [taken.count for taken in steps if isinstance(taken.count, Tensor)]:
            write(tensors[-5], found)
        counter.add_(self.size * len(steps))

    # Around it

    def fits(self, window: Window) -> bool:
        """Whether a window has the shape that was recorded."""
        if len(window) != self.size or isinstance(window[0], Place) != (self._place is not None):
            return False
        if self._place is not None:
            return bool(window[-1].number < self._whole)
        parts, form = pytree.tree_flatten(list(window))
        return bool(form == self._form) and [(part.shape, part.dtype) for part in parts] == self._shapes

    def left(self, window: Window) -> int:
        """How many windows of the shape that was recorded there are from this one to the end of the epoch."""
        return 0 if self._place is None else int(self._whole - window[0].number) // self.size

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

    def rewind(self) -> None:
        """To the beginning of the epoch."""
        self._counter.zero_()
        self.at = 0

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
