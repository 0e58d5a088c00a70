"""The leaderboard of a search, read from its storage: by the process that searches as by one that only looks."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import EpochalError, plain
from engine.run.about import shown
from engine.search import optunas
from engine.search.folder import Folder
from engine.search.plan import named
from engine.sweep import shortened

if TYPE_CHECKING:
    import optuna

FEWEST_FOR_IMPORTANCE = 4  # trials that came to their end
SHARE = 20  # what is worth its time may take one part of so many of it


def said(value: Any) -> str:
    """A parameter's value in a table: 4 digits tell trials apart."""
    return shown(float(f"{value:.4g}") if isinstance(value, float) else value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trial. `state` is "finished", "pruned", "failed", "running", "waiting" (asked for, not begun) or "interrupted": its
    process is gone, and the next start goes on with it."""

    number: int
    state: str
    value: float | None  # the best of its metric so far
    params: Mapping[str, Any]
    epoch: int = 0  # the last that was reported
    reason: str = ""
    run: str = ""  # its directory
    seconds: float | None = None
    worker: str = ""

    @property
    def label(self) -> str:
        """ "Adam lr=0.003 hidden=[64]"."""

        pairs = zip(shortened(self.params), self.params.values(), strict=True)
        return " ".join(said(value) if name.endswith(".name") else f"{name}={said(value)}" for name, value in pairs)

    @property
    def why(self) -> str:
        """Why it is in that state, where that needs a word: "after epoch 3: val/loss 0.52"."""
        return self.reason.partition("Pruner ")[2] or self.reason if self.state == "pruned" else self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """All there is to see of a search. `rows` has the best trial first, then those that can't be compared, as they came."""

    name: str
    path: str
    metric: str
    direction: str
    sampler: str
    pruner: str
    space: Mapping[str, str]  # field -> what it is searched over
    limit: int | None  # trials; None: as many as there is time for
    rows: tuple[Row, ...] = ()
    curve: tuple[tuple[int, float, float], ...] = ()  # (trials that had ended, its value, best so far) of each that finished
    importance: Mapping[str, float] = field(default_factory=dict)  # empty before it can be told
    workers: tuple[str, ...] = ()  # at work

    @property
    def best(self) -> Row | None:
        """The best trial that came to its end."""
        return next((row for row in self.rows if row.state == "finished"), None)

    @property
    def ended(self) -> int:
        """Trials that will not go on."""
        return sum(row.state in ("finished", "pruned", "failed") for row in self.rows)

    @property
    def state(self) -> str:
        """In a word: "searching", "finished" or "stopped"."""
        if self.workers:
            return "searching"
        return "finished" if self.limit is not None and self.ended >= self.limit else "stopped"

    @property
    def reached(self) -> str:
        """ "val/loss 0.1234 in trial 7", "" before a trial has come to its end."""
        return "" if self.best is None else f"{self.metric} {said(self.best.value)} in trial {self.best.number}"

    @property
    def outcome(self) -> str:
        """In a sentence, where nobody works on it any more."""
        return f"the search {self.name} {self.state}: {self.reached or 'no trial came to its end'}"

    def count(self, *states: str) -> int:
        """How many trials are in one of these states."""
        return sum(row.state in states for row in self.rows)

    @property
    def summary(self) -> str:
        """ "12 of 50 trials · 8 finished, 4 pruned · 2 workers"."""
        of = "" if self.limit is None else f" of {self.limit}"
        states = ("finished", "pruned", "failed", "running", "waiting", "interrupted")
        counts = ", ".join(f"{n} {state}" for state in states if (n := self.count(state)))
        workers = f"{len(self.workers)} worker{'s' * (len(self.workers) != 1)}" if self.workers else ""
        return " · ".join(filter(None, [f"{self.ended}{of} trials", counts, workers]))

    def as_dict(self) -> dict[str, Any]:
        """As JSON values; numbers that are not finite are left out."""
        values = asdict(self) | {"state": self.state, "best": None if self.best is None else self.best.number}
        for row in values["rows"]:
            row["value"] = row["value"] if row["value"] is not None and math.isfinite(row["value"]) else None
        return values


class Watch:
    """Looks at a search again and again, without torch. Importance, which costs more than all the rest, is computed now and
    then."""

    def __init__(self, folder: Folder, study: optuna.Study | None = None) -> None:
        self.folder = folder
        self._study = study
        self._importance: tuple[int, Mapping[str, float]] = -1, {}
        self._due = 0.0

    def read(self, *, importance: bool = True, at_once: bool = False) -> Board:
        """What there is now. `importance`: also of the parameters, where it is due, or `at_once`. EpochalError."""
        folder = self.folder
        if self._study is None and folder.storage_path.exists():
            self._study = _opened(folder)
        study, values = self._study, folder.values
        given, trials, known = values["search"], [], {}
        direction = given.get("direction") or "minimize"
        if study is not None:
            try:
                trials, known, direction = study.get_trials(deepcopy=False), study.user_attrs, study.direction.name.lower()
            except (OSError, ValueError) as error:
                raise EpochalError(f"{folder.storage_path} can't be read: {error}") from error
        workers, smaller = folder.at_work(), direction == "minimize"
        rows = [_row(trial, folder, workers, smaller) for trial in trials]
        sign = 1 if smaller else -1
        monitor = given.get("metric") or values.get("training", {}).get("monitor", "auto")
        return Board(
            name=folder.name,
            path=str(folder.path),
            metric=known.get("metric") or (monitor if monitor != "auto" else "val/loss"),
            direction=direction,
            sampler=_name(given.get("sampler", "tpe")),
            pruner=_name(given.get("pruner", "median")),
            space={key: _words(axis) for key, axis in given["space"].items()},
            limit=known.get("limit", given.get("trials")),
            rows=tuple(sorted(rows, key=lambda row: _place(row, sign))),
            curve=_curve(rows, sign),
            importance=self._weighed(trials, at_once) if importance else {},
            workers=tuple(workers),
        )

    def _weighed(self, trials: Sequence[Any], at_once: bool) -> Mapping[str, float]:
        """How much each parameter mattered, as Optuna computes it from the trials that came to their end."""
        done = sum(trial.state.name == "COMPLETE" for trial in trials)
        if done < FEWEST_FOR_IMPORTANCE or done == self._importance[0] or (time.monotonic() < self._due and not at_once):
            return self._importance[1]
        import warnings

        from optuna.importance import get_param_importances

        began = time.monotonic()
        found: Mapping[str, float] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert self._study is not None
                found = get_param_importances(self._study)
            except (ValueError, RuntimeError):  # all trials are alike, say: it can't be told yet
                found = {}
        self._due = time.monotonic() + SHARE * (time.monotonic() - began)
        self._importance = done, found
        return found


def _opened(folder: Folder) -> optuna.Study | None:
    """None before the first worker has made it."""
    try:
        return optunas.open_study(folder.storage_path, folder.name)
    except EpochalError as error:
        if "holds no study" in str(error):
            return None
        raise


def _name(made: Any) -> str:
    return str(made if isinstance(made, str) else made["name"])


def _words(axis: Any) -> str:
    """What a field is searched over: "1e-4 … 0.1 (log)"."""
    if isinstance(axis, list):
        return ", ".join(str(named(value)) for value in axis)
    by = f" by {shown(axis['step'])}" if axis.get("step") else ""
    return f"{shown(axis['low'])} … {shown(axis['high'])}{by}{' (log)' if axis.get('log') else ''}"


def _row(trial: Any, folder: Folder, workers: Sequence[str], smaller: bool) -> Row:
    states = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "WAITING": "waiting"}
    state = states.get(trial.state.name, "")
    attributes = trial.user_attrs
    run = attributes.get("run", "")
    if not state:
        at_work = attributes.get("worker") in workers
        state = ("running" if run else "waiting") if at_work else "interrupted"
    reported = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    best = (min if smaller else max)(reported, default=None)
    value = trial.value if state == "finished" else best
    seconds = None if trial.duration is None else trial.duration.total_seconds()
    return Row(
        number=trial.number,
        state=state,
        value=value,
        params=dict(trial.params),
        epoch=trial.last_step or 0,
        reason=plain(str(attributes.get("reason", ""))),
        run=str(folder.root / run) if run else "",
        seconds=seconds,
        worker=str(attributes.get("worker", "")),
    )


def _place(row: Row, sign: int) -> tuple[int, float, int]:
    order = {"finished": 0, "running": 1, "pruned": 2}.get(row.state, 3)
    return order, sign * row.value if row.value is not None else math.inf, row.number


def _curve(rows: Sequence[Row], sign: int) -> tuple[tuple[int, float, float], ...]:
    points, best = [], math.inf
    for at, row in enumerate((row for row in rows if row.state in ("finished", "pruned", "failed")), 1):
        if row.state == "finished" and row.value is not None:
            best = min(best, sign * row.value)
            points.append((at, row.value, sign * best))
    return tuple(points)
