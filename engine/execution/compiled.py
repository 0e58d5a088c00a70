"""The steps of a loop on the CPU, each taken by one compiled function: forward, loss, backward, clipping and optimizer.

What is compiled is `graph.py`. Windows of another shape, an epoch's tail, are not taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from engine.execution import graph
from engine.execution.tensors import Tensors
from engine.execution.whole import Make, Unfit, Window, has_hooks, unfit, untraced
from engine.loop import Loop, NonFiniteLoss, Taken, summed

Decided = list[tuple[Callable[[], bool], bool]]


class Compiled:
    """A taker, see `whole.py`."""

    name, says, slow = "compiled", "compiled whole", True

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.stale = False
        self._call: graph.Call
        self._tensors: Tensors
        self._fixed: list[Tensor] = []
        self._groups: Any = None
        self._shapes: Any = None
        self._decided: Decided = []

    def prepare(self, window: Window, aside: bool) -> Make:
        loop = self.loop
        why = unfit(loop) or untraced(loop)
        if not why and not all(isinstance(part, Tensor) and part.device.type == "cpu" for batch in window for part in batch):
            why = "it takes one tensor of inputs on the CPU"
        if why:
            raise Unfit(why)
        module = copy.deepcopy(loop.module) if aside else loop.module  # a trace replaces its parameters
        tensors, groups = gathered(loop), loop.optimizer.param_groups

        def make() -> Callable[[], None]:
            call, decided = built(loop, module, tensors, parts_of(loop), [part for batch in window for part in batch])

            def take_over() -> None:
                self._call, self._decided = call, decided
                self._shapes = _shapes(window)
                self._tensors, self._groups, self._fixed = tensors, groups, tensors.flat()
                if loop.optimizer.param_groups is not groups:
                    self._bind()
                tensors.refresh()
                if any(ask() != answer for ask, answer in decided):
                    raise Unfit("its numbers have changed meanwhile")

            return take_over

        return make

    def fits(self, window: Window) -> bool:
        if _shapes(window) != self._shapes:
            return False
        if self.loop.optimizer.param_groups is not self._groups:  # a state was loaded
            self._bind()
        if self._tensors.refresh() and any(ask() != answer for ask, answer in self._decided):
            self.stale = True  # what was zero or none no longer is, or the reverse: another graph
        return not self.stale and not has_hooks(self.loop.optimizer)

    def burst(self, window: Window, ahead: Iterator[Window], most: int) -> tuple[Taken, Window | None]:
        loop, call, fixed = self.loop, self._call, self._fixed
        if loop.after_step is not None or loop.average is not None or loop.count is not torch.numel:
            most = 1
        shape, (_, targets) = window[0][0].shape, window[0]
        counts = [loop.count(targets) for _, targets in window]
        taken = Taken(targets, summed(counts), 0, 0, self._groups[0]["lr"], steps=0)
        losses: list[Tensor] = []
        norms: list[Tensor] = []
        sound: Any = True
        size = len(window)
        following: Window | None = window
        while following is not None and len(losses) < most and len(following) == size and following[-1][0].shape == shape:
            batches = following[0] if size == 1 else chain.from_iterable(following)
            loss, sound, *norm = call([*fixed, *batches])
            if not sound:
                break
            losses.append(loss)
            norms += norm
            following = next(ahead, None)
        if not sound and not losses:
            if not loop.skip:
                raise NonFiniteLoss(loss.item())
            taken.loss, taken.batches, taken.steps, taken.refused = loss, size, 1, True
            return taken, next(ahead, None)
        taken.loss, taken.norm = torch.stack(losses), torch.stack(norms) if norms else None
        taken.steps = len(losses)
        taken.batches = taken.steps * size
        taken.samples = taken.batches * len(targets)
        return taken, following

    def tensors(self) -> Tensors:
        return self._tensors

    def others(self) -> list[Tensor]:
        return []

    def missed(self) -> int:
        return 0

    def reset(self) -> None:
        pass

    def _bind(self) -> None:
        """The tensors as they are now."""
        self._tensors = gathered(self.loop)
        self._groups, self._fixed = self.loop.optimizer.param_groups, self._tensors.flat()


def gathered(loop: Loop, device: torch.device | str = "cpu") -> Tensors:
    """All that a step reads and changes, with the numbers as tensors on the device."""
    loop.hands.settle()
    limits = {"norm": lambda: loop.clip_norm, "value": lambda: loop.clip_value}
    return Tensors(loop.module, loop.optimizer, limits, device)


def built(
    loop: Loop,
    module: nn.Module,
    tensors: Tensors,
    losses: Callable[..., Iterator[Tensor]],
    given: Sequence[Tensor],
    judge: Callable[..., Tensor] | None = None,
) -> tuple[graph.Call, Decided]:
    """The compiled function of a step, and what was decided while it was made."""
    limited = tensors.limited()

    def clip(gradients: list[Tensor], limits: dict[str, Tensor]) -> Tensor | None:
        """What `Loop.clip` does, with limits that can change."""
        norm = None
        if "norm" in limits or loop.measure_norm:
            norm = nn.utils.get_total_norm(gradients, foreach=False)
        if "norm" in limits:
            assert norm is not None
            factor = (limits["norm"] / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor)
        if "value" in limits:
            for gradient in gradients:
                gradient.clamp_(-limits["value"], limits["value"])
        return norm

    traced, stand_ins, decided = graph.trace(tensors, module, losses, clip, given, judge)
    decided.append((lambda: tensors.limited() == limited, True))
    return graph.compiled(traced, stand_ins), decided


def parts_of(loop: Loop) -> Callable[..., Iterator[Tensor]]:
    """What a step computes of its batches, given one after the other as inputs and targets: `Loop.backward`'s losses."""

    def losses(call: Callable[..., Any], *given: Tensor) -> Iterator[Tensor]:
        window = list(zip(given[::2], given[1::2], strict=True))
        counts = [loop.count(targets) for _, targets in window]
        count = summed(counts)
        for (inputs, targets), part in zip(window, counts, strict=True):
            with loop.precision():
                loss = loop.loss(call(inputs), targets)
            yield loss if len(window) == 1 else loss * (part / count)

    return losses


def _shapes(window: Window) -> Any:
    return [(inputs.shape, inputs.dtype, targets.shape) if isinstance(inputs, Tensor) else None for inputs, targets in window]
