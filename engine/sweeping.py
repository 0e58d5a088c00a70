"""Sweeping: the members of a sweep trained, each a run of its own; one that fails does not stop the others."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.control import Control
from engine.errors import EpochalError
from engine.events import Event
from engine.sweep import Member

if TYPE_CHECKING:
    from engine.fitting import Fitting, Result
    from engine.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one member. `state` is "finished", "stopped", "failed" or "left out" (the sweep ended before it)."""

    member: Member
    state: str
    reason: str = ""
    best: dict[str, float] = field(default_factory=dict)  # the best epoch's row, empty when none ended
    monitor: str = ""
    mode: str = "min"
    seconds: float = 0.0
    run: Run | None = None

    @property
    def value(self) -> float:
        """The best of the monitored metric; NaN when there is none."""
        return self.best.get(self.monitor, math.nan)


class Everyone(Control):
    """A control of several runs at once: what is asked of it is asked of each that it leads."""

    def __init__(self) -> None:
        self._led: tuple[Control, ...] = ()
        super().__init__()

    def lead(self, controls: Iterable[Control]) -> None:
        """From now on it is these. What was asked that lasts, a pause or a stop, is asked of them as well."""
        self._led = tuple(controls)
        for control in self._led:
            if self.paused:
                control.pause()
            if self.stopping:
                control.stop(self.stopping)

    @property
    def waiting(self) -> bool:  # type: ignore[override]
        """Whether one of them waits for a batch that is being loaded."""
        return any(control.waiting for control in self._led)

    @waiting.setter
    def waiting(self, value: bool) -> None:
        """Their own affair."""

    def pause(self) -> None:
        super().pause()
        self._tell(Control.pause)

    def resume(self) -> None:
        super().resume()
        self._tell(Control.resume)

    def stop(self, reason: str = "stopped by the user") -> None:
        super().stop(reason)
        self._tell(lambda control: control.stop(reason))

    def checkpoint(self) -> None:
        self._tell(Control.checkpoint)

    def validate(self) -> None:
        self._tell(Control.validate)

    def _tell(self, ask: Callable[[Control], None]) -> None:
        for control in self._led:
            ask(control)


class Sweep:
    """Trains the members that `engine.sweep.expand` made.

    `on(EpochEnded, listener)` calls `listener(member, event)`. `control` takes requests from any thread: a stop ends the member
    under way with a checkpoint, and those after it are left out.
    """

    def __init__(self, members: Sequence[Member], *, runs: str | Path | None = "runs", control: Everyone | None = None) -> None:
        self.members = list(members)
        self.control = control or Everyone()
        self._runs = runs
        self._listeners: list[tuple[type[Event], Callable[[Member, Any], None]]] = []
        self._outcomes: dict[int, Outcome] = {}  # by the member's position

    def on(self, kind: type[Event], listener: Callable[[Member, Any], None]) -> None:
        """Call `listener(member, event)` for each event of that class; `Event` itself stands for all."""
        self._listeners.append((kind, listener))

    def fit(self) -> list[Outcome]:
        """Train all of them; what came of each, in their order. Only a program's own exit comes through."""
        for i, member in enumerate(self.members):
            if self.control.stopping:
                break
            self._outcomes[i] = self._alone(member)
        left_out = self.control.stopping or ""
        return [
            self._outcomes.get(i) or Outcome(member=member, state="left out", reason=left_out)
            for i, member in enumerate(self.members)
        ]

    def _alone(self, member: Member) -> Outcome:
        trainer = None
        try:
            trainer = self._trainer(member)
            self.control.lead([trainer.control])
            return concluded(member, trainer, trainer.fit())
        except EpochalError as error:
            return failed(member, trainer, str(error))
        except Exception as error:  # of the user's code: the others may do without what it was
            traceback.print_exc(file=sys.stderr)
            return failed(member, trainer, f"{type(error).__name__}: {error}")

    def _trainer(self, member: Member) -> Fitting:
        from engine.trainer import Trainer

        trainer = Trainer.from_recipe(member.recipe, runs=self._runs)
        for kind, listener in self._listeners:
            trainer.on(kind, partial(listener, member))
        return trainer


def concluded(member: Member, trainer: Fitting, result: Result) -> Outcome:
    """What came of a member that has an end of its own."""
    return Outcome(
        member=member,
        state=result.state,
        reason=result.reason,
        best=result.best,
        monitor=trainer.best.monitor,
        mode=trainer.best.mode,
        seconds=0.0 if trainer.history.ended is None else trainer.history.ended.seconds,
        run=result.run,
    )


def failed(member: Member, trainer: Fitting | None, reason: str) -> Outcome:
    """What came of a member that an error ended, before its first step or after it."""
    if trainer is None:
        return Outcome(member=member, state="failed", reason=reason)
    best = trainer.best
    return Outcome(
        member=member, state="failed", reason=reason, best=best.row, monitor=best.monitor, mode=best.mode, run=trainer.run
    )


def ranked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The best of the monitored metric first, those without one last, the rest in their order."""

    def place(outcome: Outcome) -> tuple[bool, float]:
        value = outcome.value
        return math.isnan(value), 0.0 if math.isnan(value) else -value if outcome.mode == "max" else value

    return sorted(outcomes, key=place)
