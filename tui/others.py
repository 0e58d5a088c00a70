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
        self._names = names_of(self.paths)
        self.histories: dict[str, History] = {}  # by the name of the run
        self.failures: dict[str, str] = {}
        self._engine = engine
        self._closed = threading.Event()
        threading.Thread(target=self._work, name="epochal-others", daemon=True).start()

    @property
    def name(self) -> str:
        """Of the first."""
        return self._names[self.paths[0]]

    @property
    def named(self) -> tuple[tuple[str, History], ...]:
        """What is known, in order."""
        named = self._names
        return tuple((named[path], self.histories[named[path]]) for path in self.paths if named[path] in self.histories)

    def close(self) -> None:
        """Read no more."""
        self._closed.set()

    def _work(self) -> None:
        followers: dict[str, Follows] = {}
        waiting = list(self.paths)
        while waiting and not self._closed.is_set():
            for path in list(waiting):
                name = self._names[path]
                try:
                    if name not in followers:
                        followers[name] = self._engine.follower(path)
                    follower = followers[name]
                    follower.poll()
                except Exception as error:  # one that can't be read keeps no other from being drawn
                    self.failures[name] = f"{name} can't be read: {error}"
                    waiting.remove(path)
                    continue
                self.histories = {**self.histories, name: follower.history}
                if not follower.alive:
                    waiting.remove(path)
            self._closed.wait(SECONDS)


def names_of(paths: Sequence[Path]) -> dict[Path, str]:
    """The name of each, with so much of where it is as tells them apart."""
    names = {path: path.name for path in paths}
    for deep in range(2, 6):
        if len(set(names.values())) == len(names):
            break
        names = {path: "/".join(path.parts[-deep:]) for path in paths}
    return names
