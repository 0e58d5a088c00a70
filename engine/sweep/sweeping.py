"""Sweeping: the members of a sweep trained, each a run of its own; one that fails does not stop the others."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.control import Control
from engine.distributed import refuse_several
from engine.errors import EpochalError, named
from engine.events import Event, Message
from engine.run import Run
from engine.run.root import refuse_unwritable
from engine.sweep import Member, Outcome

if TYPE_CHECKING:
    from engine.data.prepare import Prepared
    from engine.notify import Notifier
    from engine.parts import Parts
    from engine.training.fitting import Fitting, Result


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

    def __init__(
        self,
        members: Sequence[Member],
        *,
        runs: str | Path | None = "runs",
        control: Everyone | None = None,
        notifier: Notifier | None = None,  # tells a command or webhook of each run
        begun: Mapping[int, Path] | None = None,  # by position: the run of a member that goes on from its last checkpoint
    ) -> None:
        refuse_several("a sweep")
        self.members = list(members) if isinstance(members, Iterable) else [members]
        if strange := [member for member in self.members if not isinstance(member, Member)]:
            raise EpochalError(f"a sweep is made of members, as engine.sweep.expand gives them; not of {named(strange[0])}")
        self._begun = begun or {}
        self._notifier = notifier
        self.control = control or Everyone()
        self._runs = runs
        self._listeners: list[tuple[type[Event], Callable[[Member, Any], None]]] = []
        self._outcomes: dict[int, Outcome] = {}  # by the member's position

    def on(self, kind: type[Event], listener: Callable[[Member, Any], None]) -> None:
        """Call `listener(member, event)` for each event of that class; `Event` itself stands for all."""
        self._listeners.append((kind, listener))

    def fit(self) -> list[Outcome]:
        """Train all of them; what came of each, in their order. Only a program's own exit comes through, and a RunError where
        no run can be made.

        Those that differ only in the optimizer's numbers and the seed take their steps together, where that is possible
        (`engine.sweep.population`); a Message says so, or why not.
        """

        if self._runs is not None and len(self._begun) < len(self.members):
            refuse_unwritable(self._runs)
        for together in self.groups():
            if self.control.stopping:
                break
            if len(together) > 1:
                self._together(together)
            for i in together:
                if i not in self._outcomes and not self.control.stopping:
                    self._outcomes[i] = self._alone(i)
        left_out = self.control.stopping or ""
        return [
            self._outcomes.get(i) or Outcome(member=member, state="left out", reason=left_out)
            for i, member in enumerate(self.members)
        ]

    def groups(self) -> list[list[int]]:
        """The positions of those that are alike and stand at the same step, in the order of their first."""
        from engine.sweep.population import MOST, alike, device_type

        groups: dict[tuple[str, int], list[int]] = {}
        for i, member in enumerate(self.members):
            groups.setdefault((alike(member.recipe), self._step(i)), []).append(i)
        together: list[list[int]] = []
        for group in groups.values():
            most = MOST.get(device_type(self.members[group[0]].recipe), len(group))
            together += (group[first : first + most] for first in range(0, len(group), most))
        return together

    def _step(self, i: int) -> int:
        """At which its last checkpoint is, -1 for a run that is new."""

        if i not in self._begun:
            return -1
        steps = Run(self._begun[i]).checkpoints.list()
        return steps[-1][0] if steps else 0

    def apart(self, positions: list[int]) -> str:
        """Why these are to be trained one after another, "" where they may be one population."""
        from engine.sweep.population import FEWEST, device_type, misfit

        first = self.members[positions[0]].recipe
        if why := misfit(first):
            return why
        if positions[0] in self._begun and device_type(first) != "cpu":
            return "they go on from their checkpoints on a GPU"
        return "so few would gain nothing together" if len(positions) < FEWEST[device_type(first)] else ""

    def _together(self, positions: list[int]) -> None:
        """Train these as one population, where that is possible. Those without an outcome are to be trained alone."""
        from engine.sweep.bursts import population_of, stack_of
        from engine.sweep.stack import Misfit, share

        first = self.members[positions[0]]
        trainers: list[Fitting] = []
        try:
            if why := self.apart(positions):
                raise Misfit(why)
            assembled: dict[int, Parts] = {}
            data = self._data(first)
            for i in positions:
                if (parts := self._assembled(self.members[i], data)) is not None:
                    assembled[i] = parts
                    share(next(iter(assembled.values())), parts)  # at once: there may be no room for the data of all
            if len(assembled) < 2:
                return
            for i in assembled if positions[0] in self._begun else ():  # before the stack, which takes over what they hold
                run = Run(self._begun[i])
                run.refuse_if_training()
                trainers.append(self._fitting(self.members[i], assembled[i], run))
                trainers[-1].restore()
            if len({(trainer.epoch, trainer.batch) for trainer in trainers}) > 1:
                raise Misfit("a checkpoint of theirs is damaged")
            stack = stack_of(list(assembled.values()))
        except (Misfit, EpochalError) as error:
            for trainer in trainers:
                assert trainer.run is not None
                trainer.run.lock.release()
            self._say(first, f"{len(positions)} runs are trained one after another, because {error}")
            return
        positions, members = list(assembled), [self.members[i] for i in assembled]
        where = f" from step {trainers[0].step} on" if trainers else ""
        self._say(first, f"{len(members)} runs are trained together{where}, each step of all as one")
        try:
            for member, parts in zip(members, assembled.values(), strict=True) if not trainers else ():
                trainers.append(self._fitting(member, parts, self._created(member)))
        except EpochalError as error:  # no room for their directories
            for i in positions:
                self._outcomes[i] = failed(self.members[i], None, str(error))
            return
        for member, trainer in zip(members, trainers, strict=True):
            trainer.tell_others(member.recipe.track, member.recipe.to_dict())
            self._heard(member, trainer)
        self.control.lead([trainer.control for trainer in trainers])
        for i, trainer, result in zip(positions, trainers, population_of(trainers, stack).fit(), strict=True):
            if isinstance(result, Exception):
                reason = str(result) if isinstance(result, EpochalError) else f"{type(result).__name__}: {result}"
                self._outcomes[i] = failed(self.members[i], trainer, reason)
            else:
                self._outcomes[i] = concluded(self.members[i], trainer, result)

    @staticmethod
    def _data(member: Member) -> Prepared | None:
        """Loaded once for all that are alike; None where each must load its own, as it would alone."""
        from engine.assemble import load_data

        try:
            data, drawn = load_data(member.recipe)
        except Exception:
            return None
        return None if drawn else data

    @staticmethod
    def _assembled(member: Member, data: Prepared | None) -> Parts | None:
        """None where something is wrong, which it will say when it is trained alone."""
        from engine.assemble import assemble_with_data

        try:
            return assemble_with_data(member.recipe, data)[0]
        except Exception:
            return None

    def _created(self, member: Member) -> Run | None:

        return None if self._runs is None else Run.of_recipe(self._runs, member.recipe)

    def _fitting(self, member: Member, parts: Parts, run: Run | None) -> Fitting:
        """A training of its own, whose steps are taken from outside."""
        from engine.training.fitting import Fitting

        recipe = member.recipe
        plan = replace(recipe.training, execution="eager")  # of what is not a step: nothing is to be compiled for it
        return Fitting(parts, plan, recipe.checkpoint, recipe.name, run, None)

    def _say(self, member: Member, text: str) -> None:
        for kind, listener in self._listeners:
            if issubclass(Message, kind):
                listener(member, Message(text=text, level="info"))

    def _alone(self, i: int) -> Outcome:
        from engine.trainer import Trainer

        member, begun, trainer = self.members[i], self._begun.get(i), None
        try:
            made = Trainer.resume(begun) if begun else Trainer.from_recipe(member.recipe, runs=self._runs)
            trainer = self._heard(member, made)
            self.control.lead([trainer.control])
            return concluded(member, trainer, trainer.fit())
        except EpochalError as error:
            return failed(member, trainer, str(error))
        except Exception as error:  # of the user's code: the others may do without what it was
            traceback.print_exc(file=sys.stderr)
            return failed(member, trainer, f"{type(error).__name__}: {error}")

    def _heard(self, member: Member, trainer: Fitting) -> Fitting:
        for kind, listener in self._listeners:
            trainer.on(kind, partial(listener, member))
        if self._notifier is not None:
            self._notifier.watch(trainer)
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
