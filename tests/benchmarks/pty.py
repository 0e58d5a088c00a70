"""A terminal made of a pseudo-terminal: what a program draws arrives with its time, keys go in, it answers as xterm does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import termios
import threading
import time
from pathlib import Path

ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])")
QUESTIONS = {b"\x1b[?2026$p": b"\x1b[?2026;2$y"}  # whether frames may be marked as such: they may


class Terminal:
    """A program in a terminal of `columns` by `rows`; it begins with its making."""

    def __init__(self, command: list[str], where: Path, *, columns: int = 120, rows: int = 40, **environment: str) -> None:
        self._pieces: list[tuple[float, bytes]] = []
        self._arrived = threading.Condition()
        self.began = time.perf_counter()
        self.process, self._end = pty.fork()
        if self.process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.chdir(where)
            kept = {
                name: value
                for name, value in os.environ.items()
                if name not in ("NO_COLOR", "COLUMNS", "LINES", "SSH_CONNECTION")
            }
            os.execvpe(command[0], command, {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._end, 1 << 16)
            except OSError:  # the program has ended
                data = b""
            now = time.perf_counter()
            for question, answer in QUESTIONS.items():
                if question in data:
                    os.write(self._end, answer)
            with self._arrived:
                self._pieces.append((now, data))
                self._arrived.notify_all()
            if not data:
                return

    @property
    def now(self) -> int:
        """A place in what has arrived, from which `wait` and `bytes_since` look."""
        return len(self._pieces)

    def bytes_since(self, place: int) -> int:
        return sum(len(data) for _, data in self._pieces[place:])

    def press(self, keys: str) -> float:
        """Type; when that was."""
        now = time.perf_counter()
        os.write(self._end, keys.encode())
        return now

    def wait(self, *texts: str, place: int = 0, seconds: float = 60.0) -> float:
        """When all of these texts had arrived since `place`, whatever stands between."""
        wanted = [text.encode() for text in texts]
        seen, raw = place, b""
        deadline = time.perf_counter() + seconds
        with self._arrived:
            while True:
                while seen < len(self._pieces):
                    when, data = self._pieces[seen]
                    seen += 1
                    raw += data
                    plain = ESCAPES.sub(b"", raw)
                    if all(text in plain for text in wanted):
                        return when
                    if not data:
                        raise EOFError(f"ended before it showed {texts}: {plain[-2000:].decode(errors='replace')}")
                if not self._arrived.wait(deadline - time.perf_counter()):
                    raise TimeoutError(f"waited {seconds:g} s for {texts}")

    def shows(self, text: str) -> bool:
        """Whether this text has arrived."""
        return text.encode() in ESCAPES.sub(b"", b"".join(data for _, data in self._pieces))

    def close(self) -> None:
        """End the program and all that it started."""
        for number in (signal.SIGCONT, signal.SIGKILL):
            for process in (*descendants(self.process), self.process):
                kill(process, number)
        os.waitpid(self.process, 0)


def kill(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def descendants(process: int) -> list[int]:
    """The children of a process, and theirs."""
    try:
        children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in descendants(child))]
