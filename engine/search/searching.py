"""Searching: trials asked of Optuna, each trained as a run of its own, and told back. One process of perhaps several."""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.distributed import refuse_several
from engine.errors import EpochalError, RecipeError, RunError, plain
from engine.events import EpochEnded, Event, RunEnded
from engine.recipe import Recipe
from engine.recipe_text import named_values
from engine.run import Run, Status, files, load_history, manage, strict_json
from engine.run.control_file import Inbox, deliver
from engine.run.listing import PRUNED
from engine.run.queue import Process
from engine.run.status import ALIVE
from engine.search import optunas
from engine.search.board import said
from engine.search.folder import Folder
from engine.search.plan import named
from engine.sweep import Member
from engine.sweep.sweeping import Everyone, Sweep

if TYPE_CHECKING:
    import optuna

    from engine.training.fitting import Fitting

LISTEN_SECONDS = 0.25  # between two looks at what is asked
BEAT_SECONDS = 15.0  # between two signs of life
HOPELESS = 3  # trials that fail at the beginning, none having come to an end, before nothing else is tried
_DIVERGED = re.compile(r"the loss is (nan|-?inf)|a gradient is not finite")


@dataclass(slots=True)
class Taken:
    """A trial that this process trains."""

    trial: optuna.Trial
    number: int
    values: Mapping[str, Any]  # by dotted key
    reported: dict[int, float]  # by epoch
    run: Path | None = None  # to be gone on with
    member: Member | None = None
    trainer: Fitting | None = None
    pruned: str = ""
    told: bool = False
    metric: str = ""
    seconds: float = field(default_factory=time.monotonic)

    @property
    def label(self) -> str:
        """ "trial 7  lr=0.003 hidden=[64]"."""
        return f"trial {self.number}  {'' if self.member is None else self.member.label}".rstrip()


class Search:
    """Trains the trials of a search until there are as many as it wants, or it is stopped.

    `on(EpochEnded, listener)` calls `listener(taken, event)`. `control` takes requests from any thread: a stop ends the trials
    under way with checkpoints, from which the next start goes on.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.control = Everyone()
        self._listeners: list[tuple[type[Event], Callable[[Taken, Any], None]]] = []
        self._name = ""
        self._until = math.inf
        self._left: set[int] = set()  # trials that somebody goes on with by hand
        self._failed: list[str] = []  # reasons, one after another
        self._problem: Exception | None = None  # that a listener met
        self._over = threading.Event()

    @classmethod
    def create(cls, recipe: Mapping[str, Any] | str | Path, *, runs: str | Path | None = "runs") -> Search:
        """The search of a recipe with a [search], its file's path or its values; one that is there already is gone on with.

        RecipeError, one sentence a mistake, before anything is written.
        """

        refuse_several("a search")
        if isinstance(recipe, str | Path):
            recipe = named_values(recipe)
        return cls(Folder.create(recipe, runs))

    @classmethod
    def open(cls, which: str | Path, *, runs: str | Path | None = "runs") -> Search:
        """A search that is there: its folder, its name, or the run of one of its trials. RunError."""
        return cls(Folder.open(which, runs))

    @cached_property
    def study(self) -> optuna.Study:
        """Optuna's own view of it."""
        folder = self.folder
        study = optunas.open_study(folder.storage_path, folder.name, folder.direction)
        study.pruner = optunas.pruner_of(folder.plan, folder.recipe.training.epochs)
        return study

    @property
    def best(self) -> Recipe | None:
        """The best recipe so far, None before the first trial has come to its end."""

        return Recipe.load(self.folder.best_path) if self.folder.best_path.exists() else None

    def on(self, kind: type[Event], listener: Callable[[Taken, Any], None]) -> None:
        """Call `listener(taken, event)` for each event of that class of each trial; `Event` itself stands for all."""
        self._listeners.append((kind, listener))

    def fit(self) -> None:
        """Train trials until there are enough, the time is over, or a stop is asked for. EpochalError where none can do it."""
        plan = self.folder.plan
        self._until = math.inf if plan.minutes is None else time.monotonic() + plan.minutes * 60
        with ExitStack() as stack:
            self._begin_work(stack)
            self._know("limit", plan.limit)
            while not self.control.stopping and (taken := self._take()):
                self._train(taken)

    # one worker of several

    def _begin_work(self, stack: ExitStack) -> None:
        """Be seen at work, and hear what is asked of the search."""
        self.folder.tidy()
        self._name = self.folder.sign(Process.this())
        stack.callback(self.folder.leave, self._name)
        inbox = Inbox(self.folder.control_path)
        stack.callback(self._over.set)

        def listen() -> None:
            beat = time.monotonic()
            while not self._over.wait(LISTEN_SECONDS):
                for problem in deliver(inbox, self.control):
                    print(f"epochal: {problem}", file=sys.stderr)
                if time.monotonic() - beat > BEAT_SECONDS:
                    beat = time.monotonic()
                    self.folder.sign(Process.this())

        threading.Thread(target=listen, name="epochal-search", daemon=True).start()

    def _know(self, key: str, value: Any) -> None:
        """Leave it in the storage, for those who only look."""
        if self.study.user_attrs.get(key, ...) != value:
            self.study.set_user_attr(key, value)

    def _take(self) -> list[Taken]:
        """What to train next: a trial whose process has died, else as many new ones as are wanted at once."""
        with self.folder.locked():
            behind = self._left_behind()
            return [behind] if behind is not None else [taken for taken in map(self._ask, range(self._wanted())) if taken]

    def _wanted(self) -> int:
        from optuna.trial import TrialState

        if time.monotonic() >= self._until:
            return 0
        plan = self.folder.plan
        trials = self.study.get_trials(deepcopy=False)
        made = sum(trial.state != TrialState.WAITING for trial in trials)
        room = 10**6 if plan.limit is None else max(0, plan.limit - made)
        if len(self._failed) >= HOPELESS and all(trial.state in (TrialState.FAIL, TrialState.RUNNING) for trial in trials):
            raise EpochalError(f"the first {len(self._failed)} trials failed; the last one: {self._failed[-1]}")
        return min(room, self._batch(room))

    def _batch(self, room: int) -> int:
        """How many to ask for at once."""
        from engine.sweep.population import FEWEST, MOST, NUMBERS, device_type, misfit

        plan, recipe = self.folder.plan, self.folder.recipe
        if plan.batch is not None:
            return plan.batch
        numbers = {"seed", *(f"optimizer.{key}" for key in NUMBERS)}
        device = device_type(recipe)
        if plan.sampler[0] not in optunas.INDEPENDENT or misfit(recipe) or not numbers & set(plan.space):
            return 1
        if plan.sampler[0] == "qmc" and not any(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False)):
            return 1  # before there is one, it does not know what it samples
        share = min(math.ceil(room / plan.workers), MOST[device])
        return share if share >= FEWEST[device] else 1

    def _ask(self, _: int) -> Taken | None:
        """A new trial, its values chosen by the sampler; None where they make no recipe."""
        folder = self.folder
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = optunas.sampler_of(folder.plan, folder.recipe.seed, number)
        trial = self.study.ask()
        trial.set_user_attr("worker", self._name)
        return self._taken(trial, {})

    def _taken(self, trial: optuna.Trial, reported: Mapping[int, float], run: Path | None = None) -> Taken | None:
        folder = self.folder
        values = optunas.suggest(folder.plan, trial)
        taken = Taken(trial, trial.number, values, dict(reported), run)
        try:
            recipe = folder.recipe.replace(name=f"{folder.recipe.name[:44]}-{trial.number:03}", **values)
        except RecipeError as error:
            self._conclude(taken, "failed", str(error), {})
            return None
        taken.member = Member(recipe, {key: _short(value) for key, value in values.items()})
        return taken

    def _left_behind(self) -> Taken | None:
        """A trial whose process is gone; one that had come to its end is only told."""
        from optuna.trial import Trial, TrialState

        working = {*self.folder.at_work()} - {self._name}  # this one trains nothing now
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.number in self._left or frozen.user_attrs.get("worker") in working:
                continue
            self.study.sampler = optunas.sampler_of(self.folder.plan, self.folder.recipe.seed, frozen.number)
            trial = Trial(self.study, frozen._trial_id)
            path = self.folder.root / str(frozen.user_attrs.get("run", " "))
            state, told = _state_of(path)
            if state in ALIVE:  # gone on with by hand
                self._left.add(frozen.number)
                continue
            trial.set_user_attr("worker", self._name)
            taken = self._taken(trial, frozen.intermediate_values, path if state else None)
            if taken is not None and told:
                self._tell_of_the_dead(taken)
            elif taken is not None:
                return taken
        return None

    def _tell_of_the_dead(self, taken: Taken) -> None:
        """Its run had ended, and the process died before Optuna was told."""
        assert taken.run is not None
        history = load_history(Run(taken.run))
        assert history.ended is not None
        assert history.started is not None
        taken.metric = history.started.monitor
        taken.reported |= {row.epoch: row.metrics[taken.metric] for row in history.epochs if taken.metric in row.metrics}
        reason = history.ended.reason
        taken.pruned = reason if reason.startswith(PRUNED) else ""
        self._conclude(taken, history.ended.state, reason, history.ended.best)

    # training

    def _train(self, trials: Sequence[Taken]) -> None:
        for outcome in (sweep := _Trials(self, trials)).fit():
            taken = sweep.of(outcome.member)
            if outcome.state == "failed" and not taken.told:  # perhaps before there was a run to say so
                self._conclude(taken, "failed", outcome.reason, outcome.best)
        if self._problem is not None:
            raise self._problem

    def _hear(self, taken: Taken, event: Event) -> None:
        try:
            match event:
                case EpochEnded():
                    self._report(taken, event)
                case RunEnded():
                    self._conclude(taken, event.state, event.reason, event.best)
        except Exception as error:  # the storage's: without it nothing can go on
            self._problem = error
            self.control.stop(f"the search's storage failed: {error}")
        for kind, listener in self._listeners:
            if isinstance(event, kind):
                listener(taken, event)

    def _report(self, taken: Taken, event: EpochEnded) -> None:
        """Give Optuna the epoch's value, and let it end the trial."""
        trainer = taken.trainer
        assert trainer is not None
        value = event.metrics.get(taken.metric)
        if value is None:
            return
        if event.epoch not in taken.reported:
            taken.reported[event.epoch] = value
            taken.trial.report(value, event.epoch)
        if event.epoch < trainer.length.epochs and not trainer.control.stopping and taken.trial.should_prune():
            pruner = type(self.study.pruner).__name__
            taken.pruned = f"{PRUNED}{pruner} after epoch {event.epoch}: {taken.metric} {value:.4g}"
            trainer.control.stop(taken.pruned)

    def _conclude(self, taken: Taken, state: str, reason: str, best: Mapping[str, float]) -> None:
        """Tell Optuna what came of a trial. One that the end of this search stops is left to the next start."""
        from optuna.trial import TrialState

        if taken.told or (state == "stopped" and self.control.stopping and not taken.pruned):
            return
        taken.told = True
        value = self._value(taken, best)
        told, said = TrialState.COMPLETE, ""
        if state == "stopped":
            told, said = TrialState.PRUNED, reason
        elif state == "failed" and _DIVERGED.match(reason):  # the sampler is to learn from it
            told, said = TrialState.PRUNED, f"diverged: {reason}"
        elif state == "failed" or value is None:
            told, said = TrialState.FAIL, reason or f"it has no {taken.metric}"
        if said:
            taken.trial.set_user_attr("reason", plain(said)[:500])
        self.study.tell(taken.number, value if told is TrialState.COMPLETE else None, state=told)
        self._failed = [*self._failed, said] if told is TrialState.FAIL else []
        if told is TrialState.COMPLETE and self.study.best_trial.number == taken.number and taken.member is not None:
            self.folder.write_best(taken.member.recipe.replace(name=self.folder.recipe.name))

    def _value(self, taken: Taken, best: Mapping[str, float]) -> float | None:
        """The best of its metric, None where there is none."""
        found = [value for value in (*taken.reported.values(), best.get(taken.metric, math.nan)) if math.isfinite(value)]
        return (min if self.folder.direction == "minimize" else max)(found, default=None)


class _Trials(Sweep):
    """The trials that were asked for at once: those that differ in numbers alone train together."""

    def __init__(self, search: Search, trials: Sequence[Taken]) -> None:
        members = [taken.member for taken in trials if taken.member is not None]
        begun = {i: taken.run for i, taken in enumerate(trials) if taken.run is not None}
        super().__init__(members, runs=search.folder.root, control=search.control, begun=begun)
        self._search = search
        self._taken = {id(taken.member): taken for taken in trials}
        self.on(Event, lambda member, event: search._hear(self.of(member), event))

    def of(self, member: Member) -> Taken:
        """The trial of a member."""
        return self._taken[id(member)]

    def _heard(self, member: Member, trainer: Fitting) -> Fitting:
        taken, folder = self.of(member), self._search.folder
        taken.trainer, taken.metric = trainer, trainer.best.monitor
        self._search._know("metric", taken.metric)
        assert trainer.run is not None
        if taken.run is None:
            _describe(trainer.run, folder.name, taken)
            taken.trial.set_user_attr("run", trainer.run.name)
        return super()._heard(member, trainer)


def _describe(run: Run, search: str, taken: Taken) -> None:
    """Put into the run's directory whose trial it is, and with which values."""

    path = run.path / "environment.json"
    try:
        params = {key: named(value) for key, value in taken.values.items()}
        known = strict_json.decode(path.read_bytes()) | {"search": {"name": search, "trial": taken.number, "params": params}}
        files.write_atomically(path, strict_json.encode(known, indent=1))
        manage.tag(run, search)
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror}") from error


def _state_of(path: Path) -> tuple[str, bool]:
    """The state of a run, "" where there is none, and whether it came to its end by itself."""
    try:
        run = Run(path)
        run.conclude()
        status = Status.read(run.status.path)
    except RunError:
        return "", False
    return status["state"], status["state"] in ("finished", "failed") or status["reason"].startswith(PRUNED)


def _short(value: Any) -> str:

    return said(named(value))
