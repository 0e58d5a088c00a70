"""A real terminal: the console in tmux, keys in, screen out."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.events import RunEnded
from engine.run import Journal, Run
from engine.run.status import ALIVE
from tests.engine import processes

PATIENCE = 180.0  # seconds until what does not come is given up: on a busy machine all takes many times longer
REPOSITORY = Path(__file__).parents[2]
QUICK = """
name = "quick"
[training]
epochs = 2
threads = 1
[checkpoint]
min_seconds = 0.0
"""
HELD = QUICK.replace("epochs = 2", "epochs = 4") + '[model]\nname = "held.py:Net"\n'
LONG = """
name = "long"
[data]
batch_size = 4
[training]
epochs = 100000
execution = "eager"
threads = 1
"""


class Tmux:
    """One tmux server of its own with one window, in which a command runs."""

    def __init__(self, socket: Path, where: Path) -> None:
        self._socket = socket
        self._session = "s"
        self.where = where

    def run(self, *arguments: str) -> str:
        command = ["tmux", "-u", "-f", os.devnull, "-S", str(self._socket), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def open(self, command: str, width: int = 80, height: int = 24, name: str = "s") -> None:
        """Run a command; when it ends, its exit status is printed and the window stays. Keys go to the newest window."""
        self._session = name
        # Ctrl-C is for the console: the shell around it has to live on to print the status.
        repository, there = shlex.quote(str(REPOSITORY)), shlex.quote(str(self.where))
        before = f"trap : INT; unset COLUMNS LINES; cd {there}; export PYTHONPATH={repository} EPOCHAL_CONFIG={there}/config"
        whole = f"{before}; {command}; echo status $?; exec sleep 600"
        self.run("new-session", "-d", "-s", name, "-x", str(width), "-y", str(height), "sh", "-c", whole)
        self.run("set-option", "-g", "remain-on-exit", "on")

    def press(self, *keys: str) -> None:
        self.run("send-keys", "-t", self._session, *keys)

    def type(self, text: str) -> None:
        self.run("send-keys", "-t", self._session, "-l", text)

    def screen(self) -> str:
        return self.run("capture-pane", "-t", self._session, "-p")

    def wait(self, *texts: str, seconds: float = PATIENCE) -> str:
        """The screen, once it has all these texts."""
        return self.until(lambda: all(text in self.screen() for text in texts), f"{texts} to be shown", seconds)

    def until(self, condition: Callable[[], object], words: str, seconds: float = PATIENCE) -> str:
        """The screen, once the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {words}\n{self.screen()}"
            time.sleep(0.1)
        return self.screen()

    def process(self) -> int:
        """The process id of the launcher, whose child is the console."""
        pane = int(self.run("display-message", "-p", "-t", self._session, "#{pane_pid}"))
        children = subprocess.run(["pgrep", "-P", str(pane)], check=True, capture_output=True, text=True).stdout
        return int(children.split()[0])


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None or shutil.which("pgrep") is None:
        pytest.skip("needs tmux and pgrep")
    terminal = Tmux(tmp_path / "t", tmp_path)
    yield terminal
    subprocess.run(["tmux", "-S", str(tmp_path / "t"), "kill-server"], check=False, capture_output=True)


def recipe(where: Path, text: str) -> str:
    """Write a recipe."""
    (where / "recipe.toml").write_text(text)
    return "recipe.toml"


def held(where: Path) -> str:
    """Write the recipe of a run that waits in its second epoch for the file `go`."""
    (where / "held.py").write_text(processes.held(60))
    return recipe(where, HELD)


def only_run(where: Path) -> Run:
    """The run that a test made."""
    (summary,) = Run.list(where / "runs")
    return Run.open(summary.path)


def trainer_of(run: Run) -> int:
    """The process that trains it."""
    return int(run.status.read(run.status.path)["pid"])


def the_end_of(run: Run, seconds: float = PATIENCE) -> RunEnded:
    """How the run ended, once it has, and its process with it."""
    process = trainer_of(run)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and processes.alive(process):
        time.sleep(0.1)
    assert not processes.alive(process), "the process ends when the training has"
    events, problems = Journal.read(run.journal.path)
    assert not problems and isinstance(events[-1], RunEnded)
    return events[-1]


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path) -> Iterator[None]:
    """Runs outlive their terminal: one that a failed test leaves behind would train for hours."""
    yield
    for run in Run.list(tmp_path / "runs"):
        if run.state in ALIVE:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(trainer_of(Run.open(run.path)), signal.SIGKILL)


@pytest.fixture
def epochal() -> str:
    """The command of the console."""
    return f"env -u NO_COLOR {shlex.quote(sys.executable)} -m tui"
