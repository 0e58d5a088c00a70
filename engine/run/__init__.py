"""The run directory. Each part loads when it is first named: torch with `Checkpoints` and `Saved`, the rest is light."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Checkpoints": "checkpoints",
    "Follower": "follow",
    "Journal": "journal",
    "Lock": "lock",
    "Run": "directory",
    "RunSummary": "listing",
    "Saved": "checkpoints",
    "Status": "status",
    "environment": "machine",
    "load_history": "directory",
    "runs_root": "root",
}

__all__ = [*_HOME]  # noqa: PLE0604  # all of them are text

if TYPE_CHECKING:
    from engine.run.checkpoints import Checkpoints as Checkpoints
    from engine.run.checkpoints import Saved as Saved
    from engine.run.directory import Run as Run
    from engine.run.directory import load_history as load_history
    from engine.run.follow import Follower as Follower
    from engine.run.journal import Journal as Journal
    from engine.run.listing import RunSummary as RunSummary
    from engine.run.lock import Lock as Lock
    from engine.run.machine import environment as environment
    from engine.run.root import runs_root as runs_root
    from engine.run.status import Status as Status


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"engine.run.{_HOME[name]}"), name)
