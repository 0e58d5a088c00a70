"""An evaluation: `engine evaluate` in a process of its own, so that a training beside it loses no random number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.inference.evaluation import Evaluation
from engine.run import strict_json
from tui.child import Child, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """How far it is: `done` of `samples`, where these are known. At the end what was found, or why nothing was."""

    done: int = 0
    samples: int | None = None
    found: Evaluation | None = None
    failure: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.found is not None or bool(self.failure)


class Evaluating(Child):
    """The process: `command` is called with the run's path."""

    def __init__(self, command: Sequence[str], path: Path, checkpoint: str = "") -> None:
        options = ("--checkpoint", checkpoint) if checkpoint else ()
        super().__init__(command, None, str(path), "--json", "--progress", *options)
        self._last = Evaluated()

    def poll(self) -> Evaluated:
        """How far it is by now. To be called until it is over, or `cancel` was."""
        if self._last.over:
            return self._last
        so_far = self.so_far()
        result = self.result()
        if result is None:
            self._last = _read(so_far) or self._last
            return self._last
        status, answer, printed = result
        found = _read(answer)
        self._last = found if found is not None and found.over else Evaluated(failure=sentence(status, printed))
        return self._last


def _read(text: str) -> Evaluated | None:
    """The last whole line of JSON; None without any."""
    lines = [line for line in text.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]
    try:
        values: dict[str, Any] = strict_json.decode(lines[-1].encode()) if lines else {}
    except ValueError:
        return None
    if "done" in values:
        return Evaluated(done=values["done"], samples=values["samples"])
    return Evaluated(found=Evaluation.from_dict(values)) if values else None
