"""A run of another process, or one that is over: followed through its directory by a thread, steered through its control file.

The thread alone touches the run's files, so a slow file system never holds up the screen.
"""

from __future__ import annotations

import codecs
import contextlib
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from engine.control import Asks
from engine.errors import EpochalError
from engine.events import Message
from engine.history import History
from tui.door import Engine, Follows
from tui.terminal import Output

SECONDS = 0.25  # between two looks
SHARE = 0.25  # of the thread's time that looking may take: on a slow file system it looks less often
PRINTED = 500_000  # bytes of output.log that are shown from before


class Followed:
    """What the screens read is as in a `Session`: `history`, `output`, `news`, `control`, `alive`."""

    output_start = 0

    def __init__(self, engine: Engine, path: Path) -> None:
        self.path = path
        self.values: Mapping[str, Any] = engine.recipe_of(path)
        self.config: Mapping[str, Any] = {} if self.values else engine.config_of(path)
        self.history = History()
        self.output = Output()
        self.news: deque[Message] = deque()
        self.control = Remote(self)
        self.place: tuple[str, int] | None = None  # host and process at work on it
        self._engine = engine
        self._follower: Follows | None = None
        self._printed = _Log(path / "output.log")
        self._told: tuple[History | None, int] = (None, 0)  # messages that are in the output
        self._asked: queue.SimpleQueue[partial[None]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._closed = False
        self._trouble = ""  # the last one told
        threading.Thread(target=self._work, name="epochal-follow", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether a process is at work on it, as far as is known."""
        return self._follower is not None and self._follower.alive

    def tell(self, ask: str, **values: Any) -> None:
        """Ask for something; where that is not possible, `news` says so."""
        self._asked.put(partial(self._engine.tell, self.path, ask, **values))
        self._wake.set()

    def close(self) -> None:
        """Follow no longer."""
        self._closed = True
        self._wake.set()

    def _work(self) -> None:
        while not self._closed:
            began = time.monotonic()
            try:
                self._look()
            except Exception as error:  # told once, and tried again: the files may be whole at the next look
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    self.news.append(Message(text=f"{self.path.name} can't be read: {error}", level="error"))
                    self.output.feed(traceback.format_exc())
            self._wake.wait(max(SECONDS, (time.monotonic() - began) / SHARE))
            self._wake.clear()

    def _look(self) -> None:
        while not self._asked.empty():
            try:
                self._asked.get()()
            except EpochalError as error:
                self.news.append(Message(text=str(error), level="error"))
        if self._follower is None:
            self._follower = self._engine.follower(self.path)
        self._follower.poll()
        if not self._follower.alive:
            self.place = None
        elif self.place is None:
            with contextlib.suppress(EpochalError):
                self.place = self._engine.place_of(self.path)
        history = self._follower.history
        if text := self._printed.rest():
            self.output.feed(text)
        self._tell_messages(history)
        self.history = history  # from now on it grows under the eyes of the screen

    def _tell_messages(self, history: History) -> None:
        """A run without a console has its messages in the journal alone."""
        of, count = self._told
        first = of is None
        if of is not history:
            count = 0
        fresh = history.messages[count:]
        self._told = history, count + len(fresh)
        printed = self.output.since(0) if fresh else ""
        for message in fresh:
            if message.text not in printed:
                self.output.feed(f"{message.level}: {message.text}\n")
            if message.level != "info" and not first:
                self.news.append(message)


class Remote(Asks):
    """As `Control`, for a run of another process."""

    def __init__(self, run: Followed) -> None:
        self._run = run

    @property
    def paused(self) -> bool:
        return self._run.history.paused

    def tell(self, ask: str, **values: Any) -> None:
        self._run.tell(ask, **values)


class _Log:
    """A growing text file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at: int | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def rest(self) -> str:
        """What was appended since the last call; at first the end of what is there."""
        try:
            size = self._path.stat().st_size
            if self._at is None:
                self._at = max(0, size - PRINTED)
            if size <= self._at:
                self._at = size  # also when it became shorter
                return ""
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read(size - self._at)
        except OSError:  # there is none yet
            return ""
        self._at += len(data)
        return self._decoder.decode(data)
