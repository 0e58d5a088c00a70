"""A command of the engine in a process of its own, with a recipe that the console made."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Child:
    """The process: started when this is made, in this working directory and environment.

    `command` is called with the path of the recipe, where there is one, and `options`. Its output goes to files, so nothing
    ever waits for it.
    """

    def __init__(self, command: Sequence[str], values: Mapping[str, Any] | None, *options: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="epochal-")
        where = Path(self._directory.name)
        recipe, self._out, self._err = where / "recipe.toml", where / "out", where / "err"
        if values is not None:
            from engine.recipe_text import to_toml

            recipe.write_text(to_toml(values), encoding="utf-8")
        from engine.run.children import child_environment

        self._began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [*command, *([str(recipe)] if values is not None else []), *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=child_environment(),
                start_new_session=True,  # so that its data workers can be ended with it
            )

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def result(self) -> tuple[int, str, str] | None:
        """Its status and what it wrote to standard output and error; None while it works. To be called until it is there."""
        status = self._process.poll()
        if status is None:
            return None
        out, err = (path.read_text("utf-8", "replace") for path in (self._out, self._err))
        self._directory.cleanup()
        return status, out, err

    def so_far(self) -> str:
        """What it wrote to standard output by now."""
        return self._out.read_text("utf-8", "replace")

    def give_way(self) -> None:
        """To everything else on this machine."""
        with contextlib.suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)

    def cancel(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._directory.cleanup()


def sentences(printed: str) -> list[str]:
    """What of a command's standard error is said to a person."""
    return [line.removeprefix("epochal: ") for line in printed.splitlines() if line.startswith("epochal: ")]


def sentence(status: int, printed: str) -> str:
    """What the command said of a mistake, else why it failed."""
    said = sentences(printed)
    return " ".join(said) if status == 2 and said else reason(status, printed)


def reason(status: int, printed: str) -> str:
    """Why a process failed, in one sentence."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"the process was ended by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    last = next((line for line in reversed(printed.splitlines()) if line.strip()), "it printed nothing")
    return last.strip()
