"""The steps of a loop, taken by one compiled function each: forward, loss, backward, clipping, guard and optimizer.

The first step is eager (the optimizer makes its state in it), and so is the one on which the compiled function is tried: only
if both agree is it used. Batches of another shape, an epoch's tail, are stepped eagerly. What is compiled is `graph.py`.

In the background it is made while the loop goes on eagerly, once the run is known to be long enough to repay it; the trainer
then decides at which step it takes over, and writes that down, so that a resume does the same.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from engine.execution import graph
from engine.execution.tensors import Tensors
from engine.loop import Loop, NonFiniteLoss, Taken, Window

BURST = 0.002  # seconds for which steps are taken without a look at the world
AGREE = {"loss": 1e-3, "weights": 0.05, "state": 0.01}  # how far the function may be from eager, relative to the eager change
REPAID_SECONDS = 120.0  # of training left, from which making the function is worth it
Made = tuple[graph.Call, list[tuple[Callable[[], bool], bool]]]


class Unfit(Exception):
    """The step can't be compiled whole; says why."""


class Whole:
    """Takes the steps of `loop`. `say` gets a sentence where that is not possible."""

    def __init__(self, loop: Loop, say: Callable[[str], None], background: bool = False) -> None:
        self.loop, self._say, self._background = loop, say, background
        self.active = False  # whether the compiled function takes the steps; set after a resume, it does so at once
        self._call: graph.Call | None = None
        self._tried = self._given_up = False
        self._most = 1  # steps in one
        self._tensors: Tensors
        self._fixed: list[Tensor] = []
        self._groups: Any = None
        self._shapes: Any = None
        self._decided: list[tuple[Callable[[], bool], bool]] = []
        self._example: tuple[Any, Tensor] | None = None  # the largest batch so far
        self._maker: threading.Thread | None = None
        self._made: list[Callable[[], None]] = []  # what takes over the maker's work, in the training thread

    def ready(self, left: float | None) -> bool:
        """Whether the function is made and tried and may take over. It is begun where the seconds left repay that."""
        if not self._background or self.active or self._given_up:
            return False
        idle = self._maker is None and self._example is not None and self._made_state()
        if idle and not self._tried and left is not None and left > REPAID_SECONDS:
            self._begin(*self._example)  # type: ignore[misc]
        return self._tried

    def _begin(self, inputs: Any, targets: Tensor) -> None:
        """Make the function in a thread of its own, from a copy of the model: a trace replaces its parameters."""
        why = unfit(self.loop, inputs)
        if why:
            self._give_up(Unfit(why))
            return
        module, groups = copy.deepcopy(self.loop.module), self.loop.optimizer.param_groups
        tensors = self._gathered()

        def make() -> None:
            try:
                made = self._compiled(module, tensors, inputs, targets)
            except Exception as error:  # of private parts of torch, any
                self._made.append(partial(self._give_up, error))
                return
            self._made.append(partial(self._take_over, tensors, groups, made, inputs, targets))

        self._maker = threading.Thread(target=make, name="epochal-compile", daemon=True)
        self._maker.start()

    def steps(self, windows: Iterable[Window]) -> Iterator[Taken]:
        """The steps of `Loop.step`; as many of them in one as nobody needs to look between, for two milliseconds at most."""
        ahead = iter(windows)
        window = next(ahead, None)
        while window is not None:
            if self._fits(window):
                started = time.perf_counter()
                taken, window = self._burst(window, ahead)
                self._most = min(256, 1 + int(BURST * taken.steps / (time.perf_counter() - started)))
                yield taken
            else:
                yield self._eager(window)
                window = next(ahead, None)

    def _fits(self, window: Window) -> bool:
        """Whether the compiled function takes this window; it is given the optimizer's numbers as they are now."""
        if not self.active or self._call is None or len(window) > 1 or _shapes(*window[0]) != self._shapes:
            return False
        if self.loop.optimizer.param_groups is not self._groups:  # a state was loaded
            self._bind()
        if self._tensors.refresh() and any(ask() != answer for ask, answer in self._decided):
            self._call = None  # what was zero or none no longer is, or the reverse: another graph
            self.active = self._tried = False
        return self._call is not None and not _has_hooks(self.loop.optimizer)

    def _burst(self, window: Window, ahead: Iterator[Window]) -> tuple[Taken, Window | None]:
        """Steps with this window and those that follow; and the first window that was not used."""
        loop, call, fixed = self.loop, self._call, self._fixed
        assert call is not None
        alone = loop.after_step is not None or loop.average is not None or loop.count is not torch.numel
        most = 1 if alone else min(self._most, loop.room)
        shape, targets = window[0][0].shape, window[0][1]
        taken = Taken(targets, loop.count(targets), 0, 0, self._groups[0]["lr"], steps=0)
        losses: list[Tensor] = []
        norms: list[Tensor] = []
        sound: Any = True
        following: Window | None = window
        while (
            following is not None and len(losses) < most and (inputs := following[0][0]).shape == shape and len(following) == 1
        ):
            loss, sound, *norm = call([*fixed, inputs, following[0][1]])
            if not sound:
                break
            losses.append(loss)
            norms += norm
            following = next(ahead, None)
        if not sound and not losses:
            if not loop.skip:
                raise NonFiniteLoss(loss.item())
            taken.loss, taken.batches, taken.steps, taken.refused = loss, 1, 1, True
            return taken, next(ahead, None)
        taken.loss, taken.norm = torch.stack(losses), torch.stack(norms) if norms else None
        taken.batches = taken.steps = len(losses)
        taken.samples = len(losses) * len(targets)
        return taken, following

    def _eager(self, window: Window) -> Taken:
        """A step of the loop's own; where the function is made, it is tried beside it."""
        if self._given_up or self._tried or self._call is not None or len(window) > 1:
            return self.loop.step(window)
        inputs, targets = window[0]
        if self._example is None or len(targets) > len(self._example[1]):
            self._example = window[0]
        try:
            if self._made:
                self._made.pop()()
                self._maker = None
            elif self.active or not self._background:
                self._make(inputs, targets)
            tried = self._tried_on(inputs, targets) if self._call is not None and not self.active else None
        except Exception as error:  # of private parts of torch, any; nothing has been changed by then
            self._give_up(error)
        if self._call is None:
            return self.loop.step(window)
        if tried is None:
            return self._burst(window, iter(()))[0]
        taken = self.loop.step(window)
        self._compare(taken, *tried)
        return taken

    def _made_state(self) -> bool:
        optimizer = self.loop.optimizer
        return any(p in optimizer.state or p.grad is not None for group in optimizer.param_groups for p in group["params"])

    def _make(self, inputs: Any, targets: Tensor) -> None:
        """The function for batches of this shape, here and now."""
        if not self._made_state():
            return
        why = unfit(self.loop, inputs)
        if why:
            raise Unfit(why)
        tensors, groups = self._gathered(), self.loop.optimizer.param_groups
        self._take_over(tensors, groups, self._compiled(self.loop.module, tensors, inputs, targets), inputs, targets)

    def _compiled(self, module: nn.Module, tensors: Tensors, inputs: Any, targets: Tensor) -> Made:
        loop, limited = self.loop, tensors.limited()

        def forward(call: Callable[..., Any], inputs: Any, targets: Tensor) -> Tensor:
            with loop.precision():
                return loop.loss(call(inputs), targets)

        traced, stand_ins, decided = graph.trace(tensors, module, forward, self._clip, (inputs, targets))
        decided.append((lambda: tensors.limited() == limited, True))
        return graph.compiled(traced, stand_ins), decided

    def _take_over(self, tensors: Tensors, groups: Any, made: Made, inputs: Any, targets: Tensor) -> None:
        self._call, self._decided = made
        self._shapes = _shapes(inputs, targets)
        self._tensors, self._groups, self._fixed = tensors, groups, tensors.flat()
        if self.loop.optimizer.param_groups is not groups:
            self._bind()
        self._tensors.refresh()
        if any(ask() != answer for ask, answer in self._decided):
            self._call = None

    def _gathered(self) -> Tensors:
        loop = self.loop
        loop.hands.settle()
        limits = {"norm": lambda: loop.clip_norm, "value": lambda: loop.clip_value}
        return Tensors(loop.module, loop.optimizer, limits)

    def _bind(self) -> None:
        """The tensors as they are now."""
        self._tensors = self._gathered()
        self._groups, self._fixed = self.loop.optimizer.param_groups, self._tensors.flat()

    def _clip(self, gradients: list[Tensor], limits: dict[str, Tensor]) -> Tensor | None:
        """What `Loop.clip` does, with limits that can change."""
        norm = None
        if "norm" in limits or self.loop.measure_norm:
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

    def _tried_on(self, inputs: Any, targets: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Take the step, and undo it: the loss, and the tensors before and after it."""
        assert self._call is not None
        random = torch.get_rng_state()
        before = [tensor.clone() for tensor in self._fixed]
        loss = self._call([*self._fixed, inputs, targets])[0]
        after = [tensor.clone() for tensor in self._fixed]
        for tensor, old in zip(self._fixed, before, strict=True):
            tensor.copy_(old)
        torch.set_rng_state(random)
        return loss, before, after

    def _compare(self, taken: Taken, loss: Tensor, before: list[Tensor], after: list[Tensor]) -> None:
        """With the eager step that was taken instead."""
        if taken.refused:
            self._call = None  # nothing to compare with: once more at the next step
            return
        trained = len(self._tensors.trained)
        apart = {
            "loss": _apart([loss], [taken.loss], [torch.zeros_like(loss)]),
            "weights": _apart(after[:trained], self._fixed[:trained], before[:trained]),
            "state": _apart(after[trained:], self._fixed[trained:], before[trained:]),
        }
        worst = max(apart, key=lambda name: apart[name] / AGREE[name])
        if not apart[worst] <= AGREE[worst]:
            self._give_up(Unfit(f"its {worst} differ by {apart[worst]:.1e} from eager execution"))
            return
        self._tried, self.active = True, not self._background
        for parameter in self._tensors.trained.values():
            parameter.grad = None

    def _give_up(self, error: Exception) -> None:
        self._call, self._given_up, self.active = None, True, False
        words = str(error).strip().splitlines() or [type(error).__name__]
        self._example = None
        if not self._background:
            self._say(f"the whole step can't be compiled ({words[0][:200]}): the model alone is")
            self.loop.model = torch.compile(self.loop.module)


def unfit(loop: Loop, inputs: Any = None) -> str:
    """Why a loop's step can't be one graph; empty where nothing is known against it."""
    optimizer = loop.optimizer
    members = getattr(optimizer, "members", (optimizer,))
    if inputs is not None and (not isinstance(inputs, Tensor) or inputs.device.type != "cpu"):
        return "it takes one tensor of inputs on the CPU"
    if loop.closure:
        return f"{type(optimizer).__name__} evaluates the loss itself"
    if loop.scaler is not None:
        return "fp16 needs a gradient scaler"
    if any(_has_hooks(one) for one in (optimizer, *members)):
        return "the optimizer has hooks"
    if any(isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse for part in loop.module.modules()):
        return "gradients are sparse"
    return ""


def _has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def _shapes(inputs: Any, targets: Tensor) -> Any:
    return (inputs.shape, inputs.dtype, targets.shape) if isinstance(inputs, Tensor) else None


def _apart(ours: list[Tensor], theirs: list[Tensor], before: list[Tensor]) -> float:
    """The distance of two outcomes, relative to that of the second from what was before."""

    def length(one: list[Tensor], other: list[Tensor]) -> float:
        return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in zip(one, other, strict=True)))

    distance, way = length(ours, theirs), length(theirs, before)
    return distance / way if way > 0 else distance


def familiar(module: nn.Module) -> bool:
    """Whether all of a model is torch's, a model library's or ours: code whose Python does nothing else while it is called."""
    return all(
        type(part).__module__.partition(".")[0] in ("torch", "torchvision", "timm", "engine") for part in module.modules()
    )
