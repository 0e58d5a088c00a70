"""The run directory. `Checkpoints` and `Saved` load torch when they are first named; the rest is light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.run.directory import Run, RunSummary, load_history, runs_root
from engine.run.follow import Follower
from engine.run.journal import Journal
from engine.run.lock import Lock
from engine.run.machine import environment
from engine.run.status import Status

if TYPE_CHECKING:
    from engine.run.checkpoints import Checkpoints, Saved

__all__ = [
    "Checkpoints",
    "Follower",
    "Journal",
    "Lock",
    "Run",
    "RunSummary",
    "Saved",
    "Status",
    "environment",
    "load_history",
    "runs_root",
]


def __getattr__(name: str) -> Any:
    if name in ("Checkpoints", "Saved"):
        from engine.run import checkpoints

        return getattr(checkpoints, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
