"""A model's export: `engine export` in a process of its own, because it loads data and model and may take a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tui.child import Child, sentence, sentences


@dataclass(frozen=True, slots=True)
class Export:
    """What came of it, in a sentence; whether that is a failure."""

    said: str
    failed: bool = False


class Exporting(Child):
    """The process that writes the file: `command` is called with the run's path, the file and its format."""

    def __init__(self, command: Sequence[str], path: Path, file: str, format: str, *, force: bool = False) -> None:
        super().__init__(command, None, str(path), file, "--format", format, *(["--force"] if force else []))

    def poll(self) -> Export | None:
        """What came of it; None while it works. To be called until it is not None, or `cancel` was."""
        result = self.result()
        if result is None:
            return None
        status, text, printed = result
        if status != 0:
            return Export(sentence(status, printed), failed=True)
        return Export("; ".join([*text.strip().splitlines()[-1:], *sentences(printed)]))
