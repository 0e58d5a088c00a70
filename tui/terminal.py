"""The terminal while the console has it: the screen gets a private copy, what is printed goes through a pipe.

Descriptors 1 and 2 lead into the pipe, so that prints of the training code, of libraries and of C code neither spoil the
screen nor get lost: a thread reads them into an `Output`, which the output pane shows and the run's output.log keeps.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import TextIO

KEPT = 1 << 20  # characters that stay in memory


class Output:
    """What was printed: its last million characters, and all of it in the run's output.log. Any thread may call.

    `end` counts the characters taken in so far; a reader that remembers it asks for the rest with `since`.
    """

    def __init__(self) -> None:
        self.end = 0
        self._pieces: deque[str] = deque()
        self._kept = 0
        self._begun = 0  # where the present run's text begins
        self._log: TextIO | None = None
        self._lock = threading.Lock()

    def feed(self, text: str) -> None:
        """Take in printed text."""
        with self._lock:
            self._feed(text)

    def since(self, position: int) -> str:
        """The text from `position` on, as far as it is still held."""
        with self._lock:
            return self._since(position)

    def begin(self) -> None:
        """Another run begins: what follows is its own."""
        with self._lock:
            self._close()
            self._begun = self.end

    def log_to(self, path: Path) -> None:
        """Append to this file what was printed since the run began, and all that follows."""
        with self._lock:
            self._close()
            self._log = path.open("a", encoding="utf-8", errors="replace")
            self._write(self._since(self._begun))

    def _feed(self, text: str) -> None:
        self._pieces.append(text)
        self.end += len(text)
        self._kept += len(text)
        while self._kept > KEPT and len(self._pieces) > 1:
            self._kept -= len(self._pieces.popleft())
        self._write(text)

    def _since(self, position: int) -> str:
        wanted: list[str] = []
        missing = self.end - position
        for piece in reversed(self._pieces):
            if missing <= 0:
                break
            wanted.append(piece[-missing:])
            missing -= len(piece)
        return "".join(reversed(wanted))

    def _write(self, text: str) -> None:
        if self._log is None or not text:
            return
        try:
            self._log.write(text)
            self._log.flush()
        except OSError as error:  # a full disk must not stop the training; the pane says what happened
            self._log = None
            self._feed(f"epochal: output.log can't be written: {error}\n")

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = None


class Terminal:
    """Context in which descriptors 1 and 2 are a pipe; `screen` is the terminal itself, for Textual."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.screen: TextIO
        self._saved: tuple[int, int]
        self._streams: tuple[TextIO | None, TextIO | None, TextIO | None, TextIO | None]
        self._reader: threading.Thread

    def __enter__(self) -> Terminal:
        sys.stdout.flush()
        sys.stderr.flush()
        self._saved = os.dup(1), os.dup(2)
        self.screen = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding="utf-8", write_through=False)
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        self._streams = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
        # Textual draws on sys.__stderr__ and asks sys.__stdout__ for the size.
        sys.__stdout__ = sys.__stderr__ = self.screen  # type: ignore[misc]
        self.stdout, self.stderr = (open(n, "w", encoding="utf-8", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        self.capture()
        self._reader = threading.Thread(target=self._read, args=(reading,), name="epochal-output", daemon=True)
        self._reader.start()
        return self

    def capture(self) -> None:
        """Lead Python's own streams to the pipe; Textual puts its own in place when it starts, so call it again then."""
        sys.stdout, sys.stderr = self.stdout, self.stderr

    def leave(self, log: Path | None) -> None:
        """The terminal is not ours any more: nothing is read from it, nothing is drawn, and after the exit what is printed
        goes to the run's output.log, or nowhere."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, self.screen.fileno(), *self._saved):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        if log is not None:
            lead(log, *self._saved)

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc, assignment]
        self.stdout.flush()
        self.stderr.flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)  # closes the pipe's last writing end: the reader comes to its end
            os.close(saved)
        self._reader.join(2.0)  # a child process that inherited the pipe may hold it open: not our end to wait for

    def _read(self, descriptor: int) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with os.fdopen(descriptor, "rb", buffering=0) as pipe:
            while data := pipe.read(65536):
                self.output.feed(decoder.decode(data))


def lead(log: Path, *descriptors: int) -> None:
    """Let these descriptors append to a file. Where the disk does not take it they stay as they are."""
    with contextlib.suppress(OSError):
        target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        for descriptor in descriptors:
            os.dup2(target, descriptor)
        os.close(target)
