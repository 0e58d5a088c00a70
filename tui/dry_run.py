"""A dry run: `engine check` in a process of its own, so that a training beside it loses no random number and no memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.errors import Problem
from tui.child import Child, reason

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
    facts: Mapping[str, Any] = field(default_factory=dict)


class DryRun(Child):
    """The process of a dry run: `command` is called with the path of a recipe and `--json`."""

    def __init__(self, command: Sequence[str], values: Mapping[str, Any], axes: Sequence[str] = ()) -> None:
        super().__init__(command, values, "--json", *(f"--sweep={axis}" for axis in axes))

    def poll(self) -> Found | None:
        """What it found; None while it works. To be called until it is not None, or `cancel` was."""
        result = self.result()
        if result is None:
            return None
        seconds = self.seconds
        status, answer, printed = result
        printed = printed[-KEPT:].strip()
        found = _answer(answer) if status in (0, 2) else None
        if found is None:
            return Found(seconds=seconds, failure=reason(status, printed), printed=printed or answer[-KEPT:].strip())
        return Found(
            seconds=seconds,
            rows=tuple((what, value) for what, value in found["rows"]),
            warnings=tuple(found["warnings"]),
            problems=tuple(Problem(**problem) for problem in found["problems"]),
            printed=printed,
            facts=found.get("facts", {}),
        )


def _answer(text: str) -> dict[str, Any] | None:
    """The JSON object at the end, after what C code may have printed."""
    _, brace, rest = f"\n{text}".rpartition("\n{\n")
    try:
        found: dict[str, Any] = json.loads(f"{{{rest}")
    except ValueError:
        return None
    return found if brace else None
