"""Where runs are kept. On its own, because who only asks that needs nothing of a run."""

from __future__ import annotations

import os
from pathlib import Path


def runs_root(argument: Path | str | None = None) -> Path:
    """Where runs are kept: the argument, else $EPOCHAL_RUNS, else ./runs."""
    return Path(argument or os.environ.get("EPOCHAL_RUNS") or "runs")
