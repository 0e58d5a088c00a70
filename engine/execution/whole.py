"""Who takes the steps of a loop instead of `Loop.step`: a compiled function, or a recorded graph; and from which step on.

A taker is made, then tried on a step beside the eager one, and used only if both agree. By name that is as soon as the
optimizer has made its state, in the first step; what can't be done is said in a sentence, and the next taker is tried. `auto`
begins eagerly and makes a taker once the run is known to be long enough to repay it, a slow one in a thread of its own; the
trainer then decides at which step it takes over, and writes that down, so that a resume does the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine.data.batches import Place
from engine.execution.generators import generators_alone, random_state, set_random_state
from engine.execution.tensors import Tensors
from engine.loop import Loop, NonFiniteLoss, Taken

BURST = 0.002  # seconds for which steps are taken without a look at the world
AGREE = {"loss": 1e-3, "weights": 0.05, "state": 0.01}  # how far a taker may be from eager, relative to the eager change
COARSE = {"loss": 1e-2, "weights": 0.5, "state": 0.3}  # with 8 bits of precision: opposite or none would be 2 or 1
REPAID = {"captured": 5.0, "compiled": 120.0}  # seconds of training left, from which each is worth its making
Window = Sequence[Any]  # the batches of a step, or their places
Make = Callable[[], Callable[[], None]]


class Unfit(Exception):
    """The step can't be taken so; says why."""


class Taker(Protocol):
    """Takes steps of a loop in another way."""

    name: str  # of the execution
    says: str  # what it does, in words that go on after "the step can't be"
    slow: bool  # whether that takes so long that a thread does it
    stale: bool  # whether it must be made anew: what it was made for has changed

    def prepare(self, window: Window, aside: bool) -> Make:
        """What makes it for windows like this; a thread may do that where it is done `aside`.

        That returns what the training thread does in the end. Each may raise Unfit, or what torch raises. Nothing is changed.
        """

    def fits(self, window: Window) -> bool:
        """Whether it takes this window; what is to be changed between two steps is changed now."""

    def burst(self, window: Window, ahead: Iterator[Window], most: int) -> tuple[Taken, Window | None]:
        """At most so many steps with this window, which fits, and those that follow; and the first that was not used."""

    def tensors(self) -> Tensors:
        """What its steps change."""

    def others(self) -> list[Tensor]:
        """What its steps change beside that."""

    def missed(self) -> int:
        """How many of the last steps it has not taken, where that is told by nobody else."""

    def reset(self) -> None:
        """Count them anew."""


class Whole:
    """Lets takers take the steps of `loop`: the first that can, or with `auto` one after the other, the quickest last.

    `say` gets a sentence where one can't that was asked for.
    """

    def __init__(self, loop: Loop, say: Callable[[str], None], takers: Sequence[Taker], auto: bool = False) -> None:
        self.loop, self._say, self._auto = loop, say, auto
        self._now: Taker | None = None  # who takes the steps
        self._waiting = list(takers)
        self._wanted = ""  # what has to take over at the next step
        self._tried = False  # whether the first of those that wait was made, and agrees
        self._made: list[Callable[[], None]] = []  # what the training thread does to have it
        self._maker: threading.Thread | None = None
        self._most = 1  # steps in one
        self._example: Window | None = None  # the largest window so far
        self._size = 0  # its samples
        self.latest: Window | None = None  # of those that a taker took
        self._new = [p for group in loop.optimizer.param_groups for p in group["params"]]  # whose state a step has to make

    @property
    def places(self) -> bool:
        """Whether a taker gathers batches by itself."""
        return any(hasattr(taker, "device") for taker in (self._now, *self._waiting))

    @property
    def active(self) -> bool:
        """Whether a taker takes the steps."""
        return self._now is not None

    @property
    def taking(self) -> str:
        """The execution of the steps from now on."""
        return self._wanted or (self._now.name if self._now is not None else "eager")

    def missed(self) -> int:
        """How many of the last steps were not taken, where a taker alone looks for what is not finite. Waits for the device."""
        return 0 if self._now is None else self._now.missed()

    def reset(self) -> None:
        """The weights are others: look anew for what is not finite."""
        if self._now is not None:
            self._now.reset()

    def take(self, execution: str) -> None:
        """Let that execution take the next step; it is made first where it is not."""
        if execution == "eager":
            self._now, self._wanted = None, ""
        elif self._tried and self._waiting[0].name == execution:
            self._now = self._waiting.pop(0)
            self._tried = False
        elif self._now is None or self._now.name != execution:
            self._wanted = execution

    def renew(self, trained: Sequence[Tensor]) -> None:
        """Other parameters are trained than before: an eager step makes the state of those, and takers are made anew."""
        if self._now is not None:
            self._waiting.insert(0, self._now)
        self._now, self._wanted, self._tried = None, "", False
        self._made, self._new = [], list(trained)  # a taker that a thread still makes is dropped

    def ready(self, left: float | None) -> str:
        """The execution that is made and tried and may take over, "" without one. Begun where the seconds left repay it."""
        if not self._auto or self._wanted or not self._waiting:
            return ""
        if self._tried:
            return self._waiting[0].name
        taker, idle = self._waiting[0], not (self._made or (self._maker is not None and self._maker.is_alive()))
        if idle and self._example is not None and self._has_state() and left is not None and left > REPAID[taker.name]:
            self._begin(taker, self._example)
        return ""

    def steps(self, windows: Iterable[Window]) -> Iterator[Taken]:
        """The steps of `Loop.step`; as many of them in one as nobody needs to look between, for two milliseconds at most."""
        ahead = iter(windows)
        window = next(ahead, None)
        while window is not None:
            now = self._now
            if now is not None and not self._made and not self._wanted and now.fits(window):
                started, self.latest = time.perf_counter(), window
                taken, window = now.burst(window, ahead, int(min(self._most, self.loop.room)))
                self._most = min(256, 1 + int(BURST * taken.steps / (time.perf_counter() - started)))
                yield taken
            else:
                if now is not None and now.stale:
                    self._now = None
                    self._waiting.insert(0, now)
                yield self._otherwise(window)
                window = next(ahead, None)

    def _otherwise(self, window: Window) -> Taken:
        """A step of the loop's own; or the first of a taker, or one on which a taker is tried."""
        real = batches(window)
        samples = sum(len(targets) for _, targets in real)
        if samples > self._size:
            self._example, self._size = window, samples
        if self._wanted:
            while self._waiting and self._waiting[0].name != self._wanted:
                self._waiting.pop(0)
            if self._waiting and self._makes(self._waiting[0], window):
                self._now = self._waiting.pop(0)
            self._wanted = ""
        elif self._made and self._waiting:
            made, self._maker = self._made.pop(), None
            if self._attempt(self._waiting[0], made):
                return self._try(self._waiting[0], window, real)
        elif (
            not self._auto
            and self._now is None
            and self._waiting
            and self._has_state()
            and self._makes(self._waiting[0], window)
        ):
            return self._try(self._waiting[0], window, real)
        return self._one(window, real)

    def _one(self, window: Window, real: Window) -> Taken:
        """A step of who takes them now."""
        now = self._now
        if now is not None and now.fits(window):
            return now.burst(window, iter(()), 1)[0]
        return self.loop.step_with_closure(real) if self.loop.closure else self.loop.step(real)

    def _has_state(self) -> bool:
        """Whether the optimizer has taken a step: in the first it makes its state."""
        return any(p in self.loop.optimizer.state or p.grad is not None for p in self._new)

    def _begin(self, taker: Taker, window: Window) -> None:
        """Make a taker; in a thread of its own where that takes long."""
        try:
            make = taker.prepare(window, aside=True)
        except Exception as error:  # of private parts of torch, any
            self._give_up(error)
            return

        made = self._made

        def work() -> None:
            try:
                with generators_alone():
                    made.append(make())
            except Exception as error:
                failed = error
                made.append(lambda: self._raise(failed))

        if not taker.slow:
            work()
            return
        self._maker = threading.Thread(target=work, name="epochal-compile", daemon=True)
        self._maker.start()

    @staticmethod
    def _raise(error: Exception) -> None:
        raise error

    def _makes(self, taker: Taker, window: Window) -> bool:
        """Make a taker here and now; whether it could be."""

        def work() -> None:
            taker.prepare(window, aside=False)()()

        return self._attempt(taker, work)

    def _attempt(self, taker: Taker, work: Callable[[], None]) -> bool:
        devices = {p.device for group in self.loop.optimizer.param_groups for p in group["params"]}
        random = random_state(*devices)
        try:
            work()
            set_random_state(random)
        except Exception as error:  # of private parts of torch, any; nothing else has been changed by then
            set_random_state(random)
            self._give_up(error)
            return False
        taker.stale = False
        return True

    def _try(self, taker: Taker, window: Window, real: Window) -> Taken:
        """Take a step with the taker, undo it, take it as before, and compare. That one is kept."""
        if not taker.fits(window):  # another one will
            self._made.append(lambda: None)
            return self._one(window, real)
        tensors = taker.tensors()
        held = [*tensors.flat(), *taker.others()]
        before, random = [tensor.clone() for tensor in held], random_state(*{tensor.device for tensor in held})
        try:
            ours: Taken | None = taker.burst(window, iter(()), 1)[0]
        except NonFiniteLoss:
            ours = None
        after = [tensor.clone() for tensor in tensors.flat()]
        for tensor, old in zip(held, before, strict=True):
            tensor.copy_(old)
        set_random_state(random)
        taken = self._one(window, real)
        if taken.refused or ours is None:  # nothing to compare with: once more at the next step
            self._made.append(lambda: None)
            return taken
        now, trained = tensors.flat(), len(tensors.trained)
        apart = {
            "loss": _apart([ours.loss.reshape(())], [taken.loss.reshape(())], [torch.zeros_like(taken.loss)]),
            "weights": _apart(after[:trained], now[:trained], before[:trained]),
            "state": _apart(after[trained:], now[trained:], before[trained : len(now)]),
        }
        coarse = self.loop.precision is not nullcontext or any(p.itemsize < 4 for p in tensors.trained.values())
        allowed = COARSE if coarse else AGREE
        worst = max(apart, key=lambda name: apart[name] / allowed[name])
        if not apart[worst] <= allowed[worst]:
            self._give_up(Unfit(f"its {worst} differ by {apart[worst]:.1e} from eager execution"))
            return taken
        self._tried = True
        if not self._auto:
            self.take(taker.name)
        for parameter in tensors.trained.values():
            parameter.grad = None
        return taken

    def _give_up(self, error: Exception) -> None:
        """The first of those that wait can't; the next may."""
        taker = self._waiting.pop(0)
        self._maker, self._tried = None, False
        if self._auto and not self._wanted:
            return
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if self._waiting:
            self._say(f"the step can't be {taker.says} ({words}): it will be {self._waiting[0].says}")
        elif taker.name == "compiled":
            self._say(f"the step can't be {taker.says} ({words}): the model alone is")
            self.loop.model = torch.compile(self.loop.module)
        else:
            self._say(f"the step can't be {taker.says} ({words}): it is executed eagerly")


def batches(window: Window) -> Window:
    """A window's batches, where it names them by their places."""
    return [batch.gathered() if isinstance(batch, Place) else batch for batch in window]


def unfit(loop: Loop) -> str:
    """Why a loop's step can't be taken whole; empty where nothing is known against it."""
    optimizer = loop.optimizer
    members = getattr(optimizer, "members", (optimizer,))
    if loop.closure:
        return f"{type(optimizer).__name__} evaluates the loss itself"
    if loop.scaler is not None:
        return "fp16 needs a gradient scaler"
    if any(has_hooks(one) for one in (optimizer, *members)):
        return "the optimizer has hooks"
    if any(isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse for part in loop.module.modules()):
        return "gradients are sparse"
    return ""


UNTRACED = {  # optimizers whose step can't be written down with tensors for its numbers
    "Adafactor": "Adafactor asks for the value of a norm in every step",
    "Muon": "Muon's products take plain numbers",
}


def untraced(loop: Loop) -> str:
    """Why the optimizer's step can't be compiled; empty where nothing is known against it."""
    optimizer = loop.optimizer
    names = (type(one).__name__ for one in getattr(optimizer, "members", (optimizer,)))
    return next((UNTRACED[name] for name in names if name in UNTRACED), "")


def has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def familiar(module: nn.Module) -> bool:
    """Whether all of a model is torch's, a model library's or ours: code whose Python does nothing else while it is called."""
    return all(
        type(part).__module__.partition(".")[0] in ("torch", "torchvision", "timm", "engine") for part in module.modules()
    )


def _apart(ours: list[Tensor], theirs: list[Tensor], before: list[Tensor]) -> float:
    """The distance of two outcomes, relative to that of the second from what was before."""

    def length(one: list[Tensor], other: list[Tensor]) -> float:
        return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in zip(one, other, strict=True)))

    distance, way = length(ours, theirs), length(theirs, before)
    return distance / way if way > 0 else distance
