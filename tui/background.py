"""A run that is started in the background: a process that needs neither this console nor its terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tui.child import Child, sentence


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the run is, or why there is none."""

    path: Path | None = None
    job: int | None = None  # in the queue, of a sweep
    search: Path | None = None  # the folder of a search
    failure: str = ""  # one sentence
    printed: str = ""


class Starting:
    """The command that starts the run; it ends when the run has begun."""

    def __init__(self, command: Sequence[str], values: Mapping[str, Any] | None, root: Path, *axes: str) -> None:
        self._child = Child(command, values, *axes, "--runs", str(root), "--background", "--json")

    def poll(self) -> Begun | None:
        """What came of it; None as long as that is open. To be called until it is not None."""
        result = self._child.result()
        if result is None:
            return None
        status, out, printed = result
        if status != 0:
            return Begun(failure=sentence(status, printed), printed=printed)
        try:
            begun = json.loads(out.strip().splitlines()[-1])
            if "search" in begun:
                return Begun(search=Path(begun["search"]), printed=printed)
            return Begun(path=Path(begun["run"]), job=begun.get("job"), printed=printed)
        except (LookupError, TypeError, ValueError):
            return Begun(failure=f"the process said {out.strip()[-200:]!r} instead of where the run is", printed=printed)
