"""Where runs are kept. On its own, because who only asks that needs nothing of a run."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import RunError, as_path


def runs_root(argument: Path | str | None = None) -> Path:
    """Where runs are kept: the argument, else $EPOCHAL_RUNS, else ./runs."""
    if argument is None or (isinstance(argument, str) and not argument):
        return Path(os.environ.get("EPOCHAL_RUNS") or "runs")
    return as_path(argument, "the directory of the runs")


def as_given(path: Path | str, argument: Path | str | None = None) -> str:
    """A path below the runs as the person wrote where they are: relative where that was."""
    root = runs_root(argument)
    return str(root / Path(path).relative_to(root.absolute()) if Path(path).is_relative_to(root.absolute()) else path)


def refuse_unwritable(root: Path | str) -> None:
    """RunError where no run could be made below `root`: said once, before many are begun."""
    import tempfile

    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise RunError(f"can't make a run directory in {root}: {error.strerror}") from error
