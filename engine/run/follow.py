"""Follower: a run of another process, seen through its journal and its status as if it were one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.events import Event, Message, RunEnded
from engine.history import History
from engine.run.directory import Run
from engine.run.journal import parse_line
from engine.run.root import runs_root
from engine.run.sound import event_from
from engine.run.status import ALIVE, Status
from engine.track.foreign import Foreign

LONGEST = 1 << 24  # bytes of a line
TOLD = 20  # problems of a journal that are told one by one


def following(run: Run, tell: Callable[[Event], None] = lambda event: None) -> Follower | Foreign:
    """What follows a run, whoever writes it."""
    return Foreign(run.path, tell) if run.foreign else Follower(run, tell)


class Follower:
    """Fills `history` from what the run's process writes. One thread polls; any thread may read.

    `history` is another object once the run was started over, or its journal was rewritten by a resume. `alive` is whether a
    process is at work on the run. `tell` gets every event that goes into a history.
    """

    def __init__(self, run: Run, tell: Callable[[Event], None] = lambda event: None) -> None:
        self.run = run
        self._tell = tell
        self.alive = False
        self._journal = _Tail(run.journal.path)
        self._begin()

    def _begin(self) -> None:
        self.history = History()
        self._journal.begin()
        self._notes: set[str] = set()
        self._problems = 0
        self._progress: dict[str, Any] | None = None
        self._seen: tuple[int, int, int] | None = None  # the status file that is known to say nothing new
        self._given_up = False  # whether the end in the history is what the status says, not the journal

    def poll(self) -> bool:
        """Take in what is new; whether anything was. What can't be read is a warning in the history, never an exception."""
        before = self.history, self.history.version, self.alive
        self._read_journal()
        self._read_status()
        return before != (self.history, self.history.version, self.alive)

    def _apply(self, event: Event) -> None:
        self.history.apply(event)
        self._tell(event)

    def _read_journal(self) -> None:
        try:
            events, problems = self._journal.read()
        except _RewrittenError:
            self._begin()
            return self._read_journal()
        except FileNotFoundError:  # not begun; or it is gone, and what is known stays
            return None
        except OSError as error:
            return self._note(f"{self._journal.path.name} can't be read: {error.strerror}")
        for event in events:
            self._apply(event)
        for problem in problems[: max(0, TOLD - self._problems)]:
            self._note(problem)
        self._problems += len(problems)
        if self._problems > TOLD:
            self._note(f"{self._journal.path.name}: there are more lines that can't be read")
        return None

    def _read_status(self) -> None:
        path = self.run.status.path
        try:
            stat = path.stat()
        except OSError:
            seen = None
        else:
            seen = stat.st_size, stat.st_mtime_ns, stat.st_ino
            if seen == self._seen and not self.alive:  # of a run at work the process may go without a word
                return
        try:
            status = Status.read(path)
        except RunError as error:
            self.alive = False
            self._note(str(error))
            return
        at_work = status["state"] in ALIVE
        if not at_work and self.history.ended is None:
            self._read_journal()  # its last words may have come in meanwhile
        if at_work and self._given_up and self.history.ended is not None:
            self._begin()
            self._read_journal()
        self._seen = seen
        if status["progress"] != self._progress:
            self._progress = status["progress"]
            if self._progress is not None:
                self._apply(event_from(self._progress))
        if not at_work and self.history.ended is None:
            self._apply(self._end(status))
            self._given_up = True
        self.alive = at_work and self.history.ended is None

    def _end(self, status: dict[str, Any]) -> RunEnded:
        """The end of a run that could not say it itself."""
        reason = status["reason"]
        if status["state"] == "died" and self.run.recipe_path.exists():
            here = self.run.path.resolve().parent == runs_root().resolve()
            steps = [checkpoint.step for checkpoint in self.history.checkpoints]
            where = f"goes on from step {max(steps)}" if steps else "starts it again"
            reason += f"; epochal resume {self.run.name if here else self.run.path} {where}"
        return RunEnded(
            time=status["heartbeat"],
            state=status["state"],
            reason=reason,
            epoch=status["epoch"],
            step=status["step"],
            seconds=status["seconds"],
            best=status["best"],
        )

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.add(text)
            self._apply(Message(text=text, level="warning"))


class _RewrittenError(Exception):
    """What was read of a journal is not in it any more."""


class _Tail:
    """Reads the whole lines that have come to a journal since the last time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begin()

    def begin(self) -> None:
        self._offset = 0
        self._lines = 0
        self._last = b""  # the line before the offset: it tells of when it was written, so that no other is equal
        self._too_long = False  # whether the offset is inside a line that is too long
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> tuple[list[Event], list[str]]:
        """(events, problems). Raises _RewrittenError, or OSError."""
        events: list[Event] = []
        problems: list[str] = []
        with self.path.open("rb") as file:  # opened each time: only so does a network file system look for what is new
            stat = os.fstat(file.fileno())
            seen = stat.st_size, stat.st_mtime_ns, stat.st_ino
            if seen == self._seen:
                return events, problems
            file.seek(max(0, self._offset - len(self._last)))
            if file.read(len(self._last)) != self._last:
                raise _RewrittenError
            while line := file.readline(LONGEST):
                whole = line.endswith(b"\n")
                if not whole and len(line) < LONGEST and not self._too_long:
                    break  # torn, or being written
                self._offset += len(line)
                self._last = line
                if whole:
                    self._lines += 1
                if not whole or self._too_long:
                    if not self._too_long:
                        problems.append(f"{self.path.name}, line {self._lines + 1}: longer than any event")
                    self._too_long = not whole
                    continue
                item = parse_line(line)
                if isinstance(item, Event):
                    events.append(item)
                else:
                    problems.append(f"{self.path.name}, line {self._lines}: {item}")
            self._seen = seen
        return events, problems
