"""A dry run: `engine check` in a process of its own, so that a training beside it loses no random number and no memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import Problem

KEPT = 20_000  # characters of what the process printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a dry run showed. `failure` is one sentence where the process failed; `printed` then ends in its traceback."""

    seconds: float
    rows: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    failure: str = ""
    printed: str = ""


class DryRun:
    """The process: started when this is made, in this working directory and environment.

    `command` is called with the path of a recipe and `--json`. Its output goes to files, so nothing ever waits for it.
    """

    def __init__(self, command: Sequence[str], values: Mapping[str, Any]) -> None:
        from engine.settings import to_toml

        self._directory = tempfile.TemporaryDirectory(prefix="epochal-")
        where = Path(self._directory.name)
        recipe, self._out, self._err = where / "recipe.toml", where / "out", where / "err"
        recipe.write_text(to_toml(values), encoding="utf-8")
        # Imports find what they find here, whatever lies in the working directory.
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*command, str(recipe), "--json"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # so that its data workers can be ended with it
            )

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def poll(self) -> Found | None:
        """What it found; None while it works. To be called until it is not None, or `cancel` was."""
        status = self._process.poll()
        if status is None:
            return None
        seconds = self.seconds
        answer, printed = (path.read_text("utf-8", "replace") for path in (self._out, self._err))
        self._directory.cleanup()
        printed = printed[-KEPT:].strip()
        found = _answer(answer) if status in (0, 2) else None
        if found is None:
            return Found(seconds=seconds, failure=_reason(status, printed), printed=printed or answer[-KEPT:].strip())
        return Found(
            seconds=seconds,
            rows=tuple((what, value) for what, value in found["rows"]),
            warnings=tuple(found["warnings"]),
            problems=tuple(Problem(**problem) for problem in found["problems"]),
            printed=printed,
        )

    def cancel(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._directory.cleanup()


def _answer(text: str) -> dict[str, Any] | None:
    """The JSON object at the end, after what C code may have printed."""
    _, brace, rest = f"\n{text}".rpartition("\n{\n")
    try:
        found: dict[str, Any] = json.loads(f"{{{rest}")
    except ValueError:
        return None
    return found if brace else None


def _reason(status: int, printed: str) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"the process was ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    last = next((line for line in reversed(printed.splitlines()) if line.strip()), "it printed nothing")
    return last.strip()
