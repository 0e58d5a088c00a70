"""The plain script of a recipe: `engine export --script` in a process of its own, because it loads data and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tui.child import Child, sentence


@dataclass(frozen=True, slots=True)
class Written:
    """The script's text, or why there is none."""

    text: str = ""
    failure: str = ""


class Writing(Child):
    """The process that writes it."""

    def __init__(self, command: Sequence[str], values: Mapping[str, Any]) -> None:
        super().__init__(command, values, "--script")

    def poll(self) -> Written | None:
        """What came of it; None while it works. To be called until it is not None, or `cancel` was."""
        result = self.result()
        if result is None:
            return None
        status, text, printed = result
        return Written(text) if status == 0 else Written(failure=sentence(status, printed))
