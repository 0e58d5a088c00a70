"""Other runs than the one on the screen, read by a thread: to be drawn beside it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from engine.history import History
from tui.door import Engine, Follows

SECONDS = 1.0  # between two looks at runs that are at work


class Others:
    """`histories` fills by itself, in the order of `paths`; runs at work go on growing. `failures` says what can't be read."""

    def __init__(self, engine: Engine, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.histories: dict[str, History] = {}  # by the name of the run
        self.failures: dict[str, str] = {}
        self._engine = engine
        self._closed = threading.Event()
        threading.Thread(target=self._work, name="epochal-others", daemon=True).start()

    @property
    def name(self) -> str:
        """Of the first."""
        return self.paths[0].name

    @property
    def named(self) -> tuple[tuple[str, History], ...]:
        """What is known, in order."""
        return tuple((path.name, self.histories[path.name]) for path in self.paths if path.name in self.histories)

    def close(self) -> None:
        """Read no more."""
        self._closed.set()

    def _work(self) -> None:
        followers: dict[str, Follows] = {}
        waiting = list(self.paths)
        while waiting and not self._closed.is_set():
            for path in list(waiting):
                try:
                    if path.name not in followers:
                        followers[path.name] = self._engine.follower(path)
                    follower = followers[path.name]
                    follower.poll()
                except Exception as error:  # one that can't be read keeps no other from being drawn
                    self.failures[path.name] = f"{path.name} can't be read: {error}"
                    waiting.remove(path)
                    continue
                self.histories = {**self.histories, path.name: follower.history}
                if not follower.alive:
                    waiting.remove(path)
            self._closed.wait(SECONDS)
