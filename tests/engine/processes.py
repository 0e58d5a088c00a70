"""The command line as a process of its own: how tests start one, read it and signal it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

SMALL = ["train", "--set", "data.name=spirals", "--set", "data.samples=150", "--set", "model.hidden=[8]"]
ENDLESS = [*SMALL, "--epochs", "1000000", "--set", "training.execution=eager"]  # nothing is compiled for so long a run
PATIENCE = 180  # seconds until a process that hangs is given up; a busy machine is many times slower
HELD = """
import time
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape[0], output_size)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.training and self.calls == CALL:
            print("in the step", flush=True)
            while not Path("go").exists():
                time.sleep(0.01)
        return super().forward(x)
"""


def held(call: int) -> str:
    """The text of a module whose `Net` says that it is in this step of its training, and waits there for the file `go`: the
    test knows where the run is."""
    return HELD.replace("CALL", str(call))


def alive(process: int) -> bool:
    """Whether there is such a process, and more of it than its exit status: nobody may be there to ask for that."""
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def as_from_a_shell() -> None:
    """In the child: signals are as a shell has them, whoever started these tests."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def started(*arguments: str, options: tuple[str, ...] = (), **streams: Any) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, *options, "-m", "engine", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"} | streams
    with subprocess.Popen(command, preexec_fn=as_from_a_shell, **streams) as process:  # noqa: PLW1509
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and the rest of both streams, with what was already read ahead of the last line taken from them."""
    too_late = threading.Timer(PATIENCE, process.kill)
    too_late.start()
    with ThreadPoolExecutor() as threads:
        out, err = threads.map(lambda stream: stream.read() if stream else "", (process.stdout, process.stderr))
    too_late.cancel()
    return process.wait(), out, err


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"{words!r} was never printed")


@contextlib.contextmanager
def in_a_terminal(*arguments: str, columns: int = 100) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command in a terminal of its own, which is that of its session; and the descriptor of our end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.set_inheritable(theirs, True)
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    # The first terminal that a session leader opens becomes its own, with its hang-ups.
    program = "import os, runpy, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); sys.argv[0] = '__main__.py'; "
    program += "runpy.run_module('engine', run_name='__main__', alter_sys=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        preexec_fn=as_from_a_shell,  # noqa: PLW1509
        **streams,  # type: ignore[call-overload]
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()


def seen(terminal: int, until: bytes = b"") -> str:
    """What the terminal got, up to some bytes or to the end."""
    text = b""
    while not (until and until in text):
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    return text.decode(errors="replace")  # the last look may have ended in the middle of a character


def until(condition: Callable[[], Any], words: str) -> Any:
    """What the condition gives, once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {words}"
        time.sleep(0.02)
    return found
