"""Keeping order among runs: tag, rename, delete."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import EpochalError
from engine.run.status import ALIVE
from tui.screens.ask import AskText, Confirm
from tui.screens.previewing import Previewing


class Ordering(Previewing):
    """Its actions are for the run under the cursor, or for those that are marked."""

    def __init__(self) -> None:
        super().__init__()
        self._marked: set[str] = set()

    @property
    @abstractmethod
    def _run(self) -> Any:
        """The run under the cursor, or None."""

    @abstractmethod
    def _chosen(self) -> list[Any]:
        """The marked runs, else the one under the cursor."""

    @abstractmethod
    def action_reload(self) -> None:
        """Read the runs' directories again."""

    def action_tag(self) -> None:
        """Give it a tag."""
        if run := self._meant(self._run):
            said = "A line of text that stays with the run; empty takes it away."
            act = partial(self.engine.tag, run.path)
            self.app.push_screen(AskText(f"Tag {run.name}", said, run.tag), self._then(act))

    def action_rename(self) -> None:
        """Give its directory another name."""
        if run := self._meant(self._run):
            act = partial(self.engine.rename, run.path)
            said = "Another name for its directory; the time at the beginning stays."
            self.app.push_screen(AskText(f"Rename {run.name}", said, re.sub(r"^\d{8}-\d{6}-", "", run.name)), self._then(act))

    def _then(self, act: Callable[[str], object]) -> Callable[[str | None], None]:
        def done(text: str | None) -> None:
            if text is not None:
                try:
                    act(text)
                except EpochalError as error:
                    self.notify(str(error), severity="error", markup=False)
                self.action_reload()

        return done

    def action_delete(self) -> None:
        """Delete the marked runs, or the one under the cursor, after a question."""
        runs = self._meant(self._chosen())
        live = [run.name for run in runs if run.state in ALIVE]
        if live:
            self.notify(f"{live[0]} is being trained and can't be deleted", severity="warning", markup=False)
        elif runs:
            title = "Delete this run?" if len(runs) == 1 else f"Delete these {len(runs)} runs?"
            names = [run.name for run in runs[:8]] + ([f"and {len(runs) - 8} more"] if len(runs) > 8 else [])
            lines = [*names, "", "With its checkpoints, its curves and its log." if len(runs) == 1 else
                     "With their checkpoints, their curves and their logs."]  # fmt: skip
            self.app.push_screen(Confirm(title, lines), lambda sure: self._delete([run.path for run in runs]) if sure else None)

    def _delete(self, paths: Sequence[Path]) -> None:
        self._marked.clear()
        self._do(*(partial(self._deleted, path) for path in paths))

    def _deleted(self, path: Path) -> str:
        self.engine.delete(path)
        return f"{path.name} is deleted"
