"""Which runs a person wants to see, and in what order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import RunError, nearest

if TYPE_CHECKING:
    from engine.run.listing import RunSummary

# Words of metrics that are the better the smaller they are; of the others the largest is the best.
_SMALL = ("loss", "error", "mae", "mse", "perplexity", "distance", "divergence", "deviance", "entropy")


def smaller_is_better(metric: str, runs: Sequence[RunSummary] = ()) -> bool:
    """The direction of a metric: as a run has it that is judged by it, else by its name."""
    for run in runs:
        if run.monitor == metric and run.mode:
            return run.mode == "min"
    name = metric.rpartition("/")[2].lower()
    return any(word in name for word in _SMALL)


def _best(run: RunSummary) -> float:
    """The least is the best; a run without a number comes last."""
    value = run.best.get(run.monitor, math.nan)
    value = -value if run.mode == "max" else value
    return value if math.isfinite(value) else math.inf


SORTS: Mapping[str, Callable[[Any], Any]] = {
    "run": lambda run: run.name,
    "state": lambda run: run.state,
    "epoch": lambda run: -run.epoch,
    "best": _best,
    "time": lambda run: run.seconds,
    "started": lambda run: -run.started,
    "tag": lambda run: (not run.tag, run.tag),
}


def arranged(
    runs: Sequence[RunSummary], sort: str | None = None, text: str = "", tag: str | None = None, *, reverse: bool = False
) -> list[RunSummary]:
    """The runs that have every word of `text` somewhere, and this tag, in the order asked for.

    RunError for an order that there is not.
    """
    chosen = [run for run in runs if fits(run, text) and (tag is None or run.tag == tag)]
    if sort is None:
        return chosen[::-1] if reverse else chosen
    if sort not in SORTS:
        raise RunError(f"runs can't be sorted by {sort!r}: there are {', '.join(SORTS)}{nearest(sort, SORTS)}")
    return sorted(chosen, key=SORTS[sort], reverse=reverse)


def runs_in(at: Path) -> list[Path]:
    """The runs, our own and those of other tools, in a folder; or a file that is one. RunError where there is none."""
    from engine.run.directory import Run

    if Run(at).foreign and at.is_file():
        return [at]
    if not at.is_dir():
        raise RunError(f"{at} is no CSV file of metrics" if at.exists() else f"there is no folder {at}")
    found = [run.path for run in Run.list(at, patience=0.0)]
    if not found:
        raise RunError(f"there is nothing to look at in {at}: no run, no event files, no CSV with a column of steps or epochs")
    return found


def fits(run: RunSummary, text: str) -> bool:
    """Whether each word stands in its name, its state, its tag, its parent or what its recipe has of its own."""
    settings = [f"{key}={value}" for key, value in run.differs.items()]
    said = " ".join([run.name, run.state, run.tag, run.parent, *settings]).lower()
    return all(word in said for word in text.lower().split())
