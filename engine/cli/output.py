"""Standard streams that outlive their terminal or pipe, and the one line that is redrawn in place."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

from engine.errors import EpochalError

_PLAIN = str.maketrans({"★": "*", "█": "#", "░": ".", "·": "-", "–": "-", "…": ".", "×": "x", "²": "2", "→": ">"})
_ERASE = "\r\x1b[2K"


class Live:
    """The line under the rows. What anybody writes to the terminal goes above it."""

    def __init__(self, terminal: TextIO | None, interval: float = 0.25, now: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal  # None: there is none, nothing is ever drawn
        self._interval = interval
        self._now = now
        self._due = -float("inf")
        self._text = ""
        self._shown = False
        self._free = True  # false while somebody's unfinished line stands where ours would

    @property
    def due(self) -> bool:
        """Whether it is time to draw again: at most one time an `interval` of seconds."""
        return self._terminal is not None and self._free and self._now() >= self._due

    def draw(self, compose: Callable[[int], str]) -> None:
        """Replace the line by `compose(width)`."""
        if self._terminal is None:
            return
        width = _width(self._terminal) - 1  # a full last column would wrap
        self._text = compose(width)[:width]
        self._shown, self._due = True, self._now() + self._interval
        _put(self._terminal, _ERASE + self._text)

    def above(self, text: str) -> str:
        """What to write so that `text` stands above the line."""
        erase = _ERASE if self._shown else ""
        self._free = text.endswith("\n")
        self._shown = self._free and bool(self._text)
        return erase + text + (self._text if self._shown else "")

    def clear(self) -> None:
        """Take the line away."""
        if self._shown and self._terminal is not None:
            _put(self._terminal, _ERASE)
        self._text, self._shown = "", False


class Block(Live):
    """Several lines under the rows, redrawn together; no more than the terminal has room for."""

    def draw(self, compose: Callable[[int], str]) -> None:
        if self._terminal is None:
            return
        width, height = _size(self._terminal)
        lines = compose(width - 1).splitlines()
        erase = self._erase()
        self._text = "\n".join(line[: width - 1] for line in lines[-max(1, height - 1) :])
        self._shown, self._due = True, self._now() + self._interval
        _put(self._terminal, erase + self._text)

    def above(self, text: str) -> str:
        erase = self._erase()
        self._free = text.endswith("\n")
        self._shown = self._free and bool(self._text)
        return erase + text + (self._text if self._shown else "")

    def clear(self) -> None:
        if self._shown and self._terminal is not None:
            _put(self._terminal, self._erase())
        self._text, self._shown = "", False

    def _erase(self) -> str:
        """What takes the lines away that are there."""
        return _ERASE + "\x1b[A\x1b[2K" * self._text.count("\n") if self._shown else ""


class Log:
    """The run's output.log. What is printed before the run has a directory waits in memory."""

    def __init__(self) -> None:
        self._file: TextIO | None = io.StringIO()

    def open(self, path: Path) -> None:
        """From now on append to this file."""
        waiting, self._file = self._file, path.open("a", encoding="utf-8", errors="replace", buffering=1)
        if isinstance(waiting, io.StringIO):
            self._file.write(waiting.getvalue())

    def write(self, text: str) -> None:
        """Raises OSError once, when the disk takes no more; from then on the text is dropped."""
        if self._file is not None:
            try:
                self._file.write(text)
            except OSError:
                self._file = None
                raise

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


class Stream(io.TextIOBase):
    """A standard stream in whose place nothing can fail: what its terminal or pipe no longer takes is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self.terminal = stream  # what is underneath, a terminal or not
        self.live = Live(None)
        self.log: Log | None = None  # gets a copy of what is printed, but not of `line`
        self.lost = False  # whether something could not be written that somebody waits for, as on a full disk

    def write(self, text: str) -> int:
        """What anybody prints: the training code, a warning, a traceback."""
        self._emit(text)
        if self.log is not None:
            try:
                self.log.write(text)
            except OSError as error:  # a full disk must not fail a print of the training code
                self.line(f"epochal: output.log can't be written: {error}")
        return len(text)

    def line(self, text: str) -> None:
        """One whole line of our own, seen at once."""
        self.lines([text])

    def lines(self, lines: Iterable[str]) -> None:
        """Several of them, such as those of a table."""
        self._emit("".join(f"{line}\n" for line in lines))
        self.flush()

    def rows(self, lines: Iterable[str]) -> None:
        """Lines of which each is to stay one: a terminal gets as much of them as it has room for."""
        width = _width(self.terminal) if self.isatty() else None
        self.lines(line if width is None or len(line) <= width else f"{line[: width - 1]}…" for line in lines)

    def _emit(self, text: str) -> None:
        self.lost |= _put(self.terminal, self.live.above(text) if text and self.isatty() else text, flush=False)

    def flush(self) -> None:
        self.lost |= _flush(self.terminal)

    def isatty(self) -> bool:
        return self.terminal.isatty()

    def fileno(self) -> int:
        return self.terminal.fileno()

    def writable(self) -> bool:
        return True

    @property
    def buffer(self) -> io.BufferedIOBase:
        """For who writes bytes, past all of this."""
        return self.terminal.buffer  # type: ignore[return-value]

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.terminal.encoding


def open_streams() -> None:
    """Let a standard stream that was closed (`<&-`) lead nowhere: else the next file that is opened takes its place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


@contextmanager
def lasting(out: TextIO, err: TextIO) -> Iterator[tuple[Stream, Stream]]:
    """`sys.stdout` and `sys.stderr` as lasting streams, for as long as the block runs."""
    streams = Stream(out), Stream(err)
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            yield streams
        finally:
            for stream in streams:
                stream.flush()


def told(act: Callable[[Stream], None]) -> int:
    """Do it, with standard output. The exit status: 0, 1 where that can't be written, or 2 for a mistake, told in one sentence
    on standard error."""
    status = 0
    with lasting(sys.stdout, sys.stderr) as (out, err):  # `| head` may have seen enough
        try:
            act(out)
        except SystemExit as exit:  # --help, or a mistake that is told already
            status = int(exit.code or 0)
        except EpochalError as error:
            err.line(f"epochal: {error}")
            status = 2
    return status or int(out.lost)


def _put(stream: TextIO, text: str, flush: bool = True) -> bool:
    """Returns whether something was lost that somebody waits for."""
    lost = False
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.translate(_PLAIN).encode(stream.encoding, "replace").decode(stream.encoding))
    except OSError as error:
        lost = _drop(stream, error)
    return (flush and _flush(stream)) or lost


def _flush(stream: TextIO) -> bool:
    try:
        stream.flush()
    except OSError as error:
        return _drop(stream, error)
    return False


def _drop(stream: TextIO, error: OSError) -> bool:
    """The reader has gone (`| head`) or the terminal has (a hang-up): let the descriptor lead nowhere, so that nothing,
    the interpreter's own flush at the exit included, fails on it again. Else the disk is full or broken: who reads the file
    must know. Returns whether that is so."""
    gone = error.errno == errno.EPIPE
    with suppress(io.UnsupportedOperation):  # a stream in memory has no descriptor
        gone |= error.errno == errno.EIO and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    if not gone:
        name = {"<stdout>": "standard output", "<stderr>": "standard error"}.get(stream.name, stream.name)
        print(f"epochal: {name} can't be written: {error.strerror}", file=sys.stderr)
    return not gone


def _width(terminal: TextIO) -> int:
    return _size(terminal)[0]


def _size(terminal: TextIO) -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(terminal.fileno())
        return columns or 80, lines or 24
    except OSError:  # hung up
        return 80, 24
