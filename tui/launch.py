"""The two processes of the console, parted before anything heavy is imported.

The launcher keeps the shell's foreground and waits; its child is the console and trains. So a run outlives its screen: when
the child leaves the terminal, the launcher ends, and the shell has its prompt back while the training goes on. And so Ctrl-Z
suspends the screen alone: the shell stops and continues the launcher, its child takes the screen away and brings it back.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
import termios
from collections.abc import Callable
from types import FrameType
from typing import Any

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
SCREEN = signal.SIGUSR2  # from the launcher to its child: take the screen away, or look whether it can come back
# Out of the alternate screen, with the cursor, without the reports that Textual asks a terminal for.
_RESET = b"\x1b[<u\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1004l\x1b[?7h\x1b[?1049l\x1b[?25h"


class Launcher:
    """The waiting process, as its child sees it."""

    def __init__(self, pipe: int, process: int) -> None:
        self._pipe = pipe
        self._process = process

    @property
    def gone(self) -> bool:
        """Whether it was killed; the shell then has the terminal back."""
        return os.getppid() != self._process

    def suspend(self) -> None:
        """Let the shell stop it. `SCREEN` comes when it goes on; at once, where there is no shell that could do that."""
        with contextlib.suppress(OSError):
            os.write(self._pipe, b'{"suspend": true}\n')

    def release(self, text: str, status: int = 0) -> None:
        """Let it print this and end. It may be gone already, with the terminal."""
        with contextlib.suppress(OSError):
            os.write(self._pipe, json.dumps({"text": text, "status": status}).encode() + b"\n")
        with contextlib.suppress(OSError):
            os.close(self._pipe)


def launch(console: Callable[[Launcher], int]) -> int:
    """Call `console` in a process of its own and wait for it, or for its word that it needs the terminal no longer.

    Returns the exit status in both processes: 128 and the number where a signal ended the console.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    launcher = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # none may fall between the fork and its handler
    child = os.fork()
    if child == 0:
        gc.disable()  # until the first frame: little of what is made by then is garbage
        signal.signal(SCREEN, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to save, with no traceback
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(reading)
        return console(Launcher(writing, launcher))
    os.close(writing)
    return _wait(child, reading, before)


def _wait(child: int, reading: int, mask: set[int] | set[signal.Signals]) -> int:
    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    found = _terminal()
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    stoppable = signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN

    def take_screen(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, SCREEN)

    def stop() -> None:
        """As the terminal stops a job: with whoever started this one. Where no shell could continue it, nothing stops."""
        if stoppable:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.killpg(0, signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, take_screen)

    if stoppable:
        signal.signal(signal.SIGTSTP, take_screen)
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    said, open_ends = b"", [reading, woken]
    while True:
        ended, code = os.waitpid(child, os.WNOHANG | os.WUNTRACED)  # asked before the last look at the pipe
        if ended and os.WIFSTOPPED(code):  # it was started in the background, and wanted the terminal
            stop()
            continue
        ready = select.select(open_ends, [], [], 0 if ended else None)[0]
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        if reading in ready:
            if data := os.read(reading, 65536):
                said += data
            else:
                open_ends.remove(reading)
        while b"\n" in said:
            line, _, said = said.partition(b"\n")
            told = json.loads(line)
            if "suspend" not in told:
                return _say(told)
            stop()
            take_screen()
        if ended:
            return _status(os.waitstatus_to_exitcode(code), found)


def _say(told: dict[str, Any]) -> int:
    with contextlib.suppress(OSError):  # a terminal that has gone
        print(told["text"], flush=True)
    return int(told["status"])


def _status(status: int, terminal: list[Any] | None) -> int:
    if status >= 0:
        return status
    if terminal is not None:  # the console could not tidy up after itself
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(0, termios.TCSANOW, terminal)
            os.write(1, _RESET)
    with contextlib.suppress(OSError):
        print(f"epochal: ended by {signal.Signals(-status).name}", file=sys.stderr, flush=True)
    return 128 - status


def _terminal() -> list[Any] | None:
    try:
        return termios.tcgetattr(0)
    except termios.error:
        return None
