"""The steps of a loop on a GPU, each taken by replaying one CUDA graph: what it launches is launched at once.

Recorded is `Loop.step` itself, or the compiled function of a step. Around it, in the graph: the batches are gathered at the
places that a counter on the device names, and losses, norms and counts are written where the host reads them later. Batches
that are loaded are copied to where the graph looks for them. Numbers that the graph has frozen make it stale when they change,
but for the learning rate, which is a tensor there. An epoch's tail is not taken.
"""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from engine.execution.compiled import Decided, built, gathered, parts_of
from engine.execution.cuda_graph import CudaGraph, Graph
from engine.execution.generators import random_state, set_random_state
from engine.execution.graph import Call
from engine.execution.guard import Guard
from engine.execution.hands import Hands
from engine.execution.source import TOGETHER, Source
from engine.execution.tensors import UNUSED, Tensors
from engine.execution.whole import Make, Unfit, Window, has_hooks, unfit, untraced
from engine.loop import Loop, Taken, summed

RECORDINGS = 20  # at most
SMALL = 1 << 20  # weights up to which a step is so short that several are recorded as one
GATHERED = 8 << 20  # bytes of their batches, at most


class Captured:
    """A taker, see `whole.py`. `graph` makes what a step is recorded with."""

    name, says, slow = "captured", "captured as one CUDA graph", False

    def __init__(self, loop: Loop, device: torch.device, graph: Callable[[], Graph] | None = None) -> None:
        self.loop, self.device = loop, device
        self.stale = False
        self._new_graph = graph or (lambda: CudaGraph(device))
        self._graph: Graph
        self._several: Graph | None = None  # the same, `TOGETHER` times
        self._source: Source
        self._tensors: Tensors
        self._groups: Any = None
        self._frozen: Any = None  # numbers that the graph holds
        self._rates: list[Tensor] = []  # the learning rate of each group, for the graph
        self._rates_now: list[float] = []
        self._recordings = 0
        self._guard = loop.guard or Guard(loop.optimizer, device)
        self._forgives = loop.skip  # looks anew at each step; else none is taken after one that is not finite

    # Making it

    def prepare(self, window: Window, aside: bool) -> Make:
        """Takes milliseconds, all of them in the training thread."""
        if why := unfit(self.loop) or self._unfit():
            raise Unfit(why)

        def begin() -> None:
            self._source = Source(self.loop, window, self.device)
            self._recordings = 0
            self._bind()
            self._warm_up(window)
            self._record()

        return lambda: begin

    def _unfit(self) -> str:
        for one in members(self.loop.optimizer):
            if not isinstance(one, SGD) and not all("capturable" in group for group in one.param_groups):
                return f"{type(one).__name__} counts its steps on the host"
        return ""

    def _bind(self) -> None:
        """The tensors as they are now."""
        optimizer = self.loop.optimizer
        for one in members(optimizer):
            for state in one.state.values():
                numbers = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.ndim == 0}
                state.update({key: value.to(self.device) for key, value in numbers.items()})
        self._groups = optimizer.param_groups
        self._tensors = gathered(self.loop, self.device)
        self._rates_now = [float(group["lr"]) for group in self._groups]
        self._rates = [torch.tensor(rate, device=self.device) for rate in self._rates_now]

    def _warm_up(self, window: Window) -> None:
        """Take a step and undo it: in their first, libraries set themselves up, which can't be recorded."""
        held = [*self._tensors.flat(), *self.others()]
        before, random = [tensor.clone() for tensor in held], random_state(self.device)
        try:
            self._source.enter(window)
            self._source.follows(window, 0)
            self._body(1)
            if self._fits_several():
                self._source.rewind()
                self._body(TOGETHER)
        finally:
            for tensor, old in zip(held, before, strict=True):
                tensor.copy_(old)
            set_random_state(random)
            self._source.at = None

    def _record(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # the graph has memory of its own
        try:
            self._graph = self._recorded(1)
            self._several = self._recorded(TOGETHER) if self._fits_several() else None
        except RuntimeError as error:
            raise Unfit(_reason(error)) from error
        self._frozen = self._numbers()

    def _recorded(self, steps: int) -> Graph:
        graph = self._new_graph()
        graph.record(lambda: self._body(steps))
        return graph

    def _fits_several(self) -> bool:
        """Whether several steps are recorded as one: less is launched for each then, and nothing between two of them."""
        loop = self.loop
        if loop.after_step is not None or self._forgives or self._source.bytes * TOGETHER > GATHERED:
            return False
        return self._source.length >= TOGETHER and sum(p.numel() for p in loop.module.parameters()) <= SMALL

    def _body(self, steps: int) -> None:
        """So many steps, as they are recorded."""
        loop, source, watched = self.loop, self._source, self._guard.watched
        if self._forgives:
            self._guard.found.zero_()
        with self._blindly():
            tensors, taken = source.tensors(), []
            for window in source.windows(tensors, steps):
                taken.append(loop.step(window))
                if loop.average is not None:
                    loop.follow()
            source.leave(tensors, taken)
        self._guard.watched = watched

    @contextmanager
    def _blindly(self) -> Iterator[None]:
        """Let the loop's own step never look at the device: rates are tensors, and the guard decides there."""
        loop = self.loop
        before = loop.guard, loop.check, loop.hands, loop.sampled
        changed = ("lr", "capturable", "fused", "foreach")
        options = [{key: group[key] for key in changed if key in group} for group in self._groups]
        for group, rate in zip(self._groups, self._rates, strict=True):
            group["lr"] = rate
        for one in members(loop.optimizer):
            for group in one.param_groups:
                if self.device.type == "cuda" and isinstance(one, SGD | Adam | AdamW):
                    group.update(fused=True, foreach=False)
                if self.device.type == "cuda" and "capturable" in group:
                    group["capturable"] = True
        loop.guard, loop.check, loop.sampled = self._guard, False, None
        if before[0] is None:
            loop.hands = _Held(loop.optimizer, self._guard)
        try:
            yield
        finally:
            loop.guard, loop.check, loop.hands, loop.sampled = before
            for group, values in zip(self._groups, options, strict=True):
                group.update(values)

    # Taking steps

    def fits(self, window: Window) -> bool:
        if self.stale or not self._source.fits(window) or has_hooks(self.loop.optimizer):
            return False
        if self.loop.optimizer.param_groups is not self._groups:  # a state was loaded
            self._bind()
            self._record()
        elif self._frozen != self._numbers():
            self._recordings += 1
            if self._recordings > RECORDINGS:  # what changes all the time is followed better without a graph
                self.stale = True
                return False
            self._record()
        return True

    def burst(self, window: Window, ahead: Iterator[Window], most: int) -> tuple[Taken, Window | None]:
        loop, source, several = self.loop, self._source, self._several
        if loop.after_step is not None or self._forgives:
            most = 1
        first = source.enter(window)
        self._set_numbers()
        steps = 0
        following: Window | None = window
        while following is not None and steps < most and source.fits(following) and source.follows(following, steps):
            taken = [following]
            if several is not None and most - steps >= TOGETHER and source.left(following) >= TOGETHER:
                taken += islice(ahead, TOGETHER - 1)
            if several is not None and len(taken) == TOGETHER:
                several.replay()
            else:
                for _ in taken:
                    self._graph.replay()
            steps += len(taken)
            following = next(ahead, None)
        self._guard.watched += steps
        told = source.read(first, steps, float(self._groups[0]["lr"]))
        told.averaged = loop.average is not None
        told.refused = self._forgives and bool(self._guard.found.item())
        return told, following

    def _set_numbers(self) -> None:
        """What may change without a new graph."""
        for position, group in enumerate(self._groups):
            if group["lr"] != self._rates_now[position]:
                self._rates_now[position] = group["lr"]
                self._rates[position].fill_(group["lr"])

    def _numbers(self) -> Any:
        """What is frozen in the graph."""
        loop, free = self.loop, ("params", "lr", *UNUSED)
        groups = [{key: value for key, value in group.items() if key not in free} for group in self._groups]
        return groups, loop.clip_norm, loop.clip_value, loop.measure_norm

    def tensors(self) -> Tensors:
        return self._tensors

    def others(self) -> list[Tensor]:
        average = self.loop.average
        averaged = [] if average is None else [held.detach() for held in (*average.parameters(), *average.buffers())]
        return [*averaged, self._guard.found, self._guard.missed]

    def missed(self) -> int:
        return 0 if self._guard is self.loop.guard or self._forgives else int(self._guard.missed.item())

    def reset(self) -> None:
        self._guard.reset()


class CapturedCompiled(Captured):
    """The compiled function of a step, captured."""

    name, says, slow = "compiled", "compiled and captured", True

    def __init__(self, loop: Loop, device: torch.device, graph: Callable[[], Graph] | None = None) -> None:
        super().__init__(loop, device, graph)
        self._call: Call
        self._decided: Decided = []

    def prepare(self, window: Window, aside: bool) -> Make:
        """Takes seconds to minutes."""
        loop, guard = self.loop, self._guard
        if why := unfit(loop) or untraced(loop):
            raise Unfit(why)
        self.stale = False
        self._bind()
        tensors, groups, source = self._tensors, self._groups, Source(loop, window, self.device)
        module = copy.deepcopy(loop.module) if aside else loop.module  # a trace replaces its parameters
        parts = parts_of(loop)

        def losses(call: Callable[..., Any], *given: Tensor) -> Iterator[Tensor]:
            return parts(call, *(part for batch in source.windows(given[:-2])[0] for part in batch))

        def judge(sound: Tensor, loss: Tensor, norm: Tensor | None, *given: Tensor) -> Tensor:
            *places, found, missed = given
            if not self._forgives:
                sound = sound & (found == 0)
            found.copy_(~sound)
            missed.add_(found)
            counts = [loop.count(targets) for _, targets in source.windows(places)[0]]
            source.leave(places, [Taken(loss, summed(counts), len(counts), 0, 0.0, norm)])
            return sound

        def make() -> Callable[[], None]:
            call, decided = built(loop, module, tensors, losses, [*source.tensors(), guard.found, guard.missed], judge)

            def take_over() -> None:
                self._call, self._decided = call, decided
                self._source, self._tensors, self._groups = source, tensors, groups
                if loop.optimizer.param_groups is not groups:
                    self._bind()
                self._set_numbers()
                if self.stale:
                    raise Unfit("its numbers have changed meanwhile")
                self._warm_up(window)
                self._record()

            return take_over

        return make

    def _body(self, steps: int) -> None:
        guard, loop = self._guard, self.loop
        for _ in range(steps):
            self._call([*self._tensors.flat(), *self._source.tensors(), guard.found, guard.missed])
            if loop.average is not None:
                with self._blindly():
                    loop.follow()

    def fits(self, window: Window) -> bool:
        if self.loop.optimizer.param_groups is self._groups:
            self._set_numbers()
        return super().fits(window)

    def _set_numbers(self) -> None:
        if self._tensors.refresh() and any(ask() != answer for ask, answer in self._decided):
            self.stale = True  # what was zero or none no longer is, or the reverse: another graph

    def _numbers(self) -> Any:
        return None


class _Held(Hands):
    """Lets an optimizer take its step only where the guard has found nothing."""

    def __init__(self, optimizer: Optimizer, guard: Guard) -> None:
        super().__init__(optimizer)
        self._guard = guard

    def update(self) -> None:
        optimizer, found = self.optimizer, self._guard.found
        if all(isinstance(one, SGD | Adam | AdamW) and all(g["fused"] for g in one.param_groups) for one in members(optimizer)):
            for one in members(optimizer):
                one.found_inf, one.grad_scale = found, None  # type: ignore[attr-defined]
            optimizer.step()
            for one in members(optimizer):
                del one.found_inf, one.grad_scale  # type: ignore[attr-defined]
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state = [value for one in members(optimizer) for held in one.state.values() for value in held.values()]
        held = [*(p.detach() for p in parameters), *(value for value in state if isinstance(value, Tensor))]
        before = [tensor.clone() for tensor in held]
        optimizer.step()
        for tensor, old in zip(held, before, strict=True):
            tensor.copy_(torch.where(found == 0, tensor, old))


def _reason(error: RuntimeError) -> str:
    """What can't be recorded, and where it is asked for: mostly a value that the host waits for."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}torch{os.sep}" not in frame.filename]
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{str(error).strip().splitlines()[0]}{where}"


def members(optimizer: Optimizer) -> tuple[Optimizer, ...]:
    """The optimizers that one of several parts is made of; itself otherwise."""
    found: tuple[Optimizer, ...] = getattr(optimizer, "members", (optimizer,))
    return found
