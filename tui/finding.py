"""The learning-rate range test: `engine find-lr` in a process of its own, looked at while it works."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import Problem
from tui.child import Child, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What the test has shown so far. `ended` is empty while it works; `failure` is one sentence where the process failed."""

    rates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    smoothed: tuple[float, ...] = ()
    ended: str = ""
    suggestions: tuple[tuple[float, str], ...] = ()  # a rate and the rule that it comes from
    problems: tuple[Problem, ...] = ()
    failure: str = ""
    printed: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.ended or self.problems or self.failure)


class Finding(Child):
    """The process of a test: `command` is called with the path of a recipe and `--json`."""

    def __init__(self, command: Sequence[str], values: Mapping[str, Any]) -> None:
        super().__init__(command, values, "--json")
        self._last = Tested()

    def poll(self) -> Tested:
        """What is known by now. To be called until it is over, or `cancel` was."""
        if self._last.over:
            return self._last
        so_far = self.so_far()
        result = self.result()
        if result is None:
            self._last = _read(so_far)
            return self._last
        status, answer, printed = result
        found = _read(answer)
        if not found.over:
            found = Tested(failure=reason(status, printed), printed=printed.strip())
        self._last = found
        return found


def _read(text: str) -> Tested:
    """The lines of JSON in what was printed; a torn last line is left for the next time."""
    points: list[dict[str, float]] = []
    for line in text.splitlines(keepends=True):
        if not (line.startswith("{") and line.endswith("}\n")):
            continue  # what C code may have printed
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if "suggestions" in found:
            return Tested(
                **_columns(points),
                ended=found["ended"],
                suggestions=tuple((item["lr"], item["rule"]) for item in found["suggestions"]),
                problems=tuple(Problem(**problem) for problem in found["problems"]),
            )
        points.append(found)
    return Tested(**_columns(points))


def _columns(points: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = {"rates": "lr", "losses": "loss", "smoothed": "smoothed"}
    return {name: tuple(point[key] for point in points) for name, key in names.items()}
