"""Going on with a run whose loop is somebody else's: what it logged up to a step stays, and what comes is added to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import RunError, named
from engine.events import EpochEnded, Logged, RunStarted
from engine.run.journal import Journal

if TYPE_CHECKING:
    from engine.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a journal tells of a run up to `step`."""

    started: RunStarted
    step: int
    rows: tuple[EpochEnded, ...]  # of the epochs that ended
    epoch: int  # under way; 0 where epochs were not told yet
    part: dict[str, list[float]]  # of that epoch, what was logged
    epoch_from: int  # what the loop counts epochs from
    best: dict[str, float]
    seconds: float

    @property
    def open(self) -> EpochEnded | None:
        """The row of the last epoch where nothing was logged after it: the epoch may go on, if it was cut short."""
        return self.rows[-1] if self.rows and self.rows[-1].epoch >= self.epoch else None

    def rewind(self, run: Run) -> None:
        """Drop what came after the step, and the row that may not have been the epoch's last. OSError where it can't."""
        run.journal.truncate_after(self.step, len(self.rows) and self.rows[-1].epoch - (self.open is not None))
        status = run.status.read(run.status.path)
        kept = {key: status[key] for key in ("started", "monitor", "mode", "epochs")}
        run.status.write("starting", **kept, step=self.step, epoch=len(self.rows), best=self.best, seconds=self.seconds)


def earlier(run: Run, step: int | None) -> Earlier:
    """Of a run that is to go on after `step`; after its last one where that is None. RunError where it can't."""
    run.refuse_if_foreign()
    if run.recipe_path.exists():
        raise RunError(f"{run.name} has a recipe: Trainer.resume goes on with it, and so does `epochal resume`")
    if not run.own_loop:
        raise RunError(f"{run.name} was not logged by a loop of its own")
    events, _ = Journal.read(run.journal.path)
    started = next((event for event in reversed(events) if isinstance(event, RunStarted)), None)
    if started is None:
        raise RunError(f"{run.name} has not begun: there is nothing to go on with")
    logged = [event for event in events if isinstance(event, Logged)]
    rows = [event for event in events if isinstance(event, EpochEnded)]
    last = max([*(event.step for event in logged), *(row.step for row in rows)], default=0)
    if step is None:
        step = last
    if type(step) is not int or not 0 <= step <= last:
        raise RunError(f"step is {named(step)}; {run.name} was logged up to step {last}, and goes on after one of 0 to {last}")
    ended = [row for row in rows if row.step <= step]
    since = ended[-1].step if ended else 0
    part = _values(logged, since, step)
    later = rows[len(ended)].epoch if len(ended) < len(rows) else logged[-1].epoch if logged else 0
    open_row = ended[-2:] if ended and not part else []
    if open_row:  # the epoch may have been cut short
        part = _values(logged, open_row[0].step if len(open_row) > 1 else 0, step)
    return Earlier(
        started=started,
        step=step,
        rows=tuple(ended),
        epoch=ended[-1].epoch if open_row else later if part else 0,
        part=part,
        epoch_from=logged[-1].epoch_from if logged else 1,
        best=_best(started, logged, ended, step),
        seconds=run.status.read(run.status.path)["seconds"],
    )


def _values(logged: list[Logged], after: int, until: int) -> dict[str, list[float]]:
    """By name what was logged after one step and until another; of what was thinned out the means."""
    found: dict[str, list[float]] = {}
    for event in logged:
        for name, steps in event.steps.items():
            if values := [value for step, value in zip(steps, event.values[name], strict=True) if after < step <= until]:
                found.setdefault(name, []).extend(values)
    return found


def _best(started: RunStarted, logged: list[Logged], rows: list[EpochEnded], until: int) -> dict[str, float]:
    """The row of the best epoch or, where none are told, the values of the best step."""
    if rows:
        return next(({"epoch": row.epoch, **row.metrics} for row in reversed(rows) if row.best), {})
    found = [dict(event.best) for event in logged if event.best and event.best["step"] <= until]
    for event in logged:
        if any(event.epoch == 0 and name == started.monitor and name not in event.low for name in event.steps):
            columns = {name: dict(zip(steps, event.values[name], strict=True)) for name, steps in event.steps.items()}
            for step in event.steps[started.monitor]:
                row = {name: values[step] for name, values in columns.items() if step in values}
                found.append({"epoch": 0, "step": step, **row})
    sound = [row for row in found if row["step"] <= until and math.isfinite(row[started.monitor])]
    pick = max if started.mode == "max" else min
    return pick(sound, key=lambda row: row[started.monitor], default={})
