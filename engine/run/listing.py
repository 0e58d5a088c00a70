"""The runs below a directory, a line each: ours, and what other tools wrote there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.run.about import About, about
from engine.run.journal import Journal
from engine.run.names import is_stamped, started
from engine.run.status import ALIVE, Status
from engine.track import foreign

FILES = ("status.json", "journal.jsonl", "environment.json")  # one of them is in every run's directory
PRUNED = "pruned by "  # how the reason begins with which a search ended a trial early


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary(About):
    """A run's line in a list. `state` is "starting", "running", "paused", "finished", "stopped", "failed", "pruned"
    (stopped by the pruner of a search), "died" (its process is gone), "recorded" (by another tool, in event files or CSV: see
    `engine.track.foreign`) or "unreadable" (with the `reason`)."""

    name: str  # of the directory
    path: Path
    state: str
    step: int = 0
    epoch: int = 0
    epochs: int | None = None
    best: Mapping[str, float] = field(default_factory=dict)  # the best epoch's row, empty before the first
    monitor: str = ""
    mode: str = ""
    started: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    host: str = ""  # where its process is, or was
    pid: int = 0
    heartbeat: float = 0.0  # when that process said something last


def summaries(root: Path, patience: float) -> list[RunSummary]:
    """Of the runs below `root`, those at work first, then the newest first. RunError where it can't be read.

    What other tools wrote is read for so many seconds at most, and more of it at the next call.
    """
    found = [_summary(path) for path in run_directories(root)]
    found += foreign.summaries(foreign_below(root), root, patience)
    return sorted(found, key=lambda summary: (summary.state in ALIVE, *age(summary)), reverse=True)


def age(summary: RunSummary) -> tuple[float, str]:
    """What runs are sorted by: the newest is the largest."""
    return summary.started, summary.name


def is_run(path: Path) -> bool:
    """Whether it is the directory of one of our runs."""
    return path.is_dir() and (is_stamped(path.name) or any((path / name).exists() for name in FILES))


def foreign_below(root: Path) -> list[Path]:
    """What other tools wrote there."""
    return [*foreign.find(root, is_run)]


def run_directories(root: Path) -> list[Path]:
    """Those of our runs, by name. RunError where `root` can't be read."""
    try:
        return sorted(path for path in root.iterdir() if not path.name.startswith(".") and is_run(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{root} can't be read: {error.strerror}") from error


def _summary(path: Path) -> RunSummary:
    known = about(path)
    more = {field.name: getattr(known, field.name) for field in fields(known)}
    try:
        status = Status.read(path / "status.json")
        if status["state"] == "died":
            status |= last_words(path)
        if status["state"] == "stopped" and status["reason"].startswith(PRUNED):
            status["state"] = "pruned"
        shown = {field.name: status[field.name] for field in fields(RunSummary) if field.name in status}
        return RunSummary(name=path.name, path=path, **shown, **more)
    except RunError as error:
        return RunSummary(name=path.name, path=path, state="unreadable", started=started(path), reason=str(error), **more)


def last_words(path: Path) -> dict[str, Any]:
    """What a process said last that was killed between its last line and its last status."""
    with contextlib.suppress(OSError):
        if ended := Journal.end(path / "journal.jsonl"):
            return {key: getattr(ended, key) for key in ("state", "reason", "epoch", "step", "seconds", "best")}
    return {}
