"""Sampler: a step of the loop, now and then looked at closely; its time by phase and the health of each layer.

What is looked at is a step of the training itself, taken by `Shadow`: the very code of `Loop`, with a watch between its parts
and a look at gradients and weights. So the run is the same to the last bit, looked at or not. Where a compiled function takes
whole steps there is nothing to stand between: there a batch is put through the model once more, beside the training.

A look is taken at most once in 16 steps, and so seldom that looking costs at most a hundredth of the time. Where several
processes train, all look at the same step, when the first one's clock has come to it.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from engine.events import Sampled
from engine.execution.hands import Hands
from engine.execution.layers import Layers
from engine.execution.watch import Watch
from engine.loop import Loop, Taken, Window

if TYPE_CHECKING:
    from engine.data.batches import Batches
    from engine.execution.whole import Whole
    from engine.training.pace import Pace

STEPS = 16  # between two looks at least
SECONDS = 0.5  # likewise
SHARE = 0.01  # of the time that looking may take
FIRST = 4  # steps before the first look: in them memory is taken and state is made
SETTLE = 3  # steps between a look at the world, for which the device was waited for, and one at a step
OF_A_STEP = ("forward", "loss", "backward", "all-reduce", "clip", "step")  # the phases that are seen in one
GROWTH = 1.05  # of the run between two samples that are for the journal: some 150 in ten hours


@dataclass(slots=True, kw_only=True)
class Shadow(Loop):
    """Steps as `Loop` does, and shows what is between its parts."""

    watch: Watch
    look: Callable[[], None]  # at the gradients, and at the weights before the step
    talk: str  # the phase in which several processes tell each other what they found

    def clip(self, taken: Taken) -> None:
        self.watch.switch("look")
        self.look()
        self.watch.switch("clip")
        Loop.clip(self, taken)
        if self.scaler is not None:  # whose step is not by the hands
            self.watch.switch("step")


class _Hands:
    """The hands of `loop` under a watch."""

    def __init__(self, loop: Loop, watch: Watch, after: str) -> None:
        self._loop, self._hands, self._watch, self._after = loop, loop.hands, watch, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hands, name)

    def derive(self, shadow: Loop, inputs: Any, targets: Tensor) -> Tensor:
        """By the chain where the loop has one, else by `shadow`, whose model switches the watch itself."""
        chain, switch = self._hands.chain(self._loop, inputs), self._watch.switch
        if chain is None or not chain.proven(inputs, targets):
            return Hands.derive(cast("Hands", self), shadow, inputs, targets)
        with torch.no_grad():
            switch("forward")
            output = chain.forward(inputs)
            switch("loss")
            loss = chain.criterion(output, targets)
            switch("backward")
            chain.backward(torch.ones_like(loss))
            switch("clip")
        return loss

    def backward(self, loss: Any) -> None:
        self._watch.switch("backward")
        self._hands.backward(loss)
        self._watch.switch(self._after)

    def update(self) -> None:
        self._watch.switch("step")
        self._hands.update()


class Sampler:
    """Looks at a step of `loop` where one is due. `train` is what it trains on.

    `report` is to be asked between steps; `halt` is the step after which it is to be asked at once. Of several processes all
    are to `begin` a look at the same step, where it is `due` on the first one.
    """

    def __init__(
        self,
        loop: Loop,
        whole: Whole | None,
        device: torch.device,
        say: Callable[[str], None],
        train: Batches | None = None,
    ) -> None:
        self.loop, self._whole, self._device, self._say, self._train = loop, whole, device, say, train
        self.halt = math.inf
        self._made = Layers if loop.together is None else loop.together.layers
        self._layers: Layers | None = None
        self._blind = False  # whether looking at layers has failed
        self._plain = FIRST  # steps to be taken before the one that is looked at
        self._watch: Watch | None = None
        self._taken = False  # whether a step was looked at and is to be told of
        self._cost = 0.0  # seconds of the host that it took
        self._next, self._from = 0.0, 0  # when, and from which step on, the next look is due
        self._since = (0.0, 0, 0.0)  # seconds and steps of training, and seconds of loading, at the last sample
        self._kept = -1.0  # the run's time at the last sample for the journal
        loop.sampled = self.step

    def step(self, window: Window) -> Taken:
        """In place of the loop's own: the steps before the one that is looked at, and that one."""
        loop = self.loop
        loop.sampled = None
        take = Loop.step_with_closure if loop.closure else Loop.step
        if self._plain > 0:
            self._plain -= 1
            taken = take(loop, window)
            if self._plain == 0:
                self._watch = Watch(self._device)
                self._watch.switch("data")
            loop.sampled = self.step
            return taken
        began = time.perf_counter()
        watch = self._watch = self._watch or Watch(self._device)
        shadow = self._shadow(watch)
        watch.switch("step")
        hooks = self._last_gradient(watch) if loop.together is not None and loop.together.overlaps else []
        try:
            taken = take(shadow, window)
        finally:
            for hook in hooks:
                hook.remove()
        watch.switch("look")
        if taken.refused:  # it changed nothing: another one
            self._arm()
            return taken
        self._try(lambda layers: layers.after())
        if self._layers is not None:
            self._layers.finish()
        watch.switch("end")
        self._taken = True
        of_step = sum(seconds for phase, seconds in watch.of_host().items() if phase not in ("data", "look"))
        self._cost = time.perf_counter() - began - of_step
        return taken

    def report(self, step: int, pace: Pace) -> Sampled | None:
        """After `step` steps: what came of the last look, told once; where the next one is due, it is made ready."""
        whole = self._whole is not None and self._whole.active
        if self.halt <= step or step < self.halt - 1 < math.inf:  # or the run has gone back
            self._taken, self.halt = self.halt == step, math.inf
            self._timed(lambda layers: layers.after())
        elif not self._taken and self.loop.sampled is not None:  # between two steps was more than a step usually waits for
            self._watch = None
            if whole:
                self.loop.sampled = None
        found = self._told(step, pace) if self._taken else None
        if self.loop.together is None and self.due(step):
            self.begin(step)
        return found

    def due(self, step: int) -> bool:
        """Whether it is time for another look, after `step` steps."""
        idle = not self._taken and self.loop.sampled is None and self.halt == math.inf
        return idle and step >= self._from and time.perf_counter() >= self._next

    def begin(self, step: int) -> None:
        """Make the next look ready."""
        if self._whole is None or not self._whole.active:
            self._arm()
        elif self._whole.latest is not None:
            self._cost, self._watch, self.halt = 0.0, None, step + 1
            self._timed(self._beside)

    def _arm(self) -> None:
        self._taken = False  # one that nobody has told of yet, as the device is still at it, is left out
        self._plain, self._watch, self.loop.sampled = SETTLE, None, self.step

    def _told(self, step: int, pace: Pace) -> Sampled | None:
        """The sample; None while the device is still at it."""
        parts = {} if self._watch is None else self._watch.seconds()
        now = pace.train_seconds, pace.train_steps, pace.waited_seconds + getattr(self._train, "seconds", 0.0)
        since = self._since if now[1] >= self._since[1] else (0.0, 0, 0.0)  # the run has gone back
        steps = now[1] - since[1]
        if parts is None or not steps:
            return None
        self._since, self._taken = now, False
        each, loading = (now[0] - since[0]) / steps, max(0.0, now[2] - since[2]) / steps
        on_device = self._device.type == "cuda"
        # A single wait for data says little: it is a mean. What the device does for a batch only its own marks show.
        seconds = {"data": max(loading, parts.get("data", 0.0)) if on_device else loading}
        if self._watch is None:
            seconds["step"] = max(0.0, each - loading)
        else:
            seconds |= {name: parts[name] for name in OF_A_STEP if name in parts}
            seconds["other"] = max(0.0, each - sum(seconds.values()))
        if pace.validating_seconds:
            seconds["validation"] = pace.validating_seconds / max(1, pace.train_steps)
        cost = self._cost + (parts.get("look", 0.0) if on_device else 0.0)
        self._next, self._from = time.perf_counter() + max(SECONDS, cost / SHARE), step + STEPS
        kept = worth_keeping(pace.elapsed, self._kept)
        self._kept = pace.elapsed if kept else self._kept
        layers = None if self._blind else self._layers
        columns: dict[str, Any] = {}
        if layers is not None:
            columns = {"layers": layers.names, "kinds": layers.kinds, "sizes": layers.sizes, **layers.read()}
        seconds = {name: float(f"{value:.4g}") for name, value in seconds.items()}
        return Sampled(step=step, each=each, seconds=seconds, whole=self._watch is None, cost=cost, kept=kept, **columns)

    def _shadow(self, watch: Watch) -> Shadow:
        loop, looked, together = self.loop, False, self.loop.together

        def model(inputs: Any) -> Any:
            watch.switch("forward")
            output = loop.model(inputs)
            watch.switch("loss")
            return output

        def look() -> None:
            nonlocal looked
            if not looked:  # an optimizer that evaluates the loss itself comes here several times
                looked = True
                self._try(Layers.look)

        values = {item.name: getattr(loop, item.name) for item in dataclasses.fields(Loop) if item.init}
        apart = together is not None and together.apart
        shadow = Shadow(**{**values, "model": model}, watch=watch, look=look, talk="all-reduce" if apart else "clip")
        shadow.hands = _Hands(loop, watch, shadow.talk)  # type: ignore[assignment]
        return shadow

    def _last_gradient(self, watch: Watch) -> list[Any]:
        """When the last gradient is there, backward only waits for those of the other processes."""

        def there(_: Tensor) -> None:
            watch.switch_anew("all-reduce")

        asked = (p for p in self.loop.module.parameters() if p.requires_grad)
        return [p.register_post_accumulate_grad_hook(there) for p in asked]

    def _beside(self, layers: Layers) -> None:
        """Forward and backward once more, of a batch that the compiled function has seen; nothing of it stays."""
        loop, whole = self.loop, self._whole
        assert whole is not None and whole.latest is not None
        from engine.execution.whole import batches  # which knows the loop

        inputs, targets = batches(whole.latest)[0]
        buffers = [buffer.clone() for buffer in loop.module.buffers()]
        try:
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []), loop.precision():
                layers.derive(loop.loss(loop.module(inputs), targets))
        finally:
            with torch.no_grad():
                for buffer, held in zip(loop.module.buffers(), buffers, strict=True):
                    buffer.copy_(held)
        layers.before()

    def _timed(self, look: Callable[[Layers], None]) -> None:
        began = time.perf_counter()
        self._try(look)
        self._cost += time.perf_counter() - began

    def _try(self, look: Callable[[Layers], None]) -> None:
        """Look at the layers. What fails there must not end the training: it is told, and not tried again."""
        if self._blind:
            return
        try:
            self._layers = self._layers or self._made(self.loop.module)
            look(self._layers)
        except Exception as error:
            self._blind = True
            traceback.print_exc(file=sys.stderr)
            self._say(f"the health of the layers can't be measured and is left out: {type(error).__name__}: {error}")


def worth_keeping(elapsed: float, last: float) -> bool:
    """Whether a sample after so many seconds of the run is for the journal, where the one before was at `last`."""
    return elapsed >= last * GROWTH + SECONDS
