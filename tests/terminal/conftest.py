"""A real terminal: the console in tmux, keys in, screen out."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


class Tmux:
    """One tmux server of its own with one window, in which a command runs."""

    def __init__(self, socket: Path, where: Path) -> None:
        self._socket = socket
        self.where = where

    def run(self, *arguments: str) -> str:
        command = ["tmux", "-f", os.devnull, "-S", str(self._socket), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def open(self, command: str, width: int = 80, height: int = 24) -> None:
        """Run a command; when it ends, its exit status is printed and the window stays."""
        # Ctrl-C is for the console: the shell around it has to live on to print the status.
        repository, there = shlex.quote(str(REPOSITORY)), shlex.quote(str(self.where))
        before = f"trap : INT; unset COLUMNS LINES; cd {there}; export PYTHONPATH={repository}"
        whole = f"{before}; {command}; echo status $?; exec sleep 600"
        self.run("new-session", "-d", "-s", "s", "-x", str(width), "-y", str(height), "sh", "-c", whole)
        self.run("set-option", "-g", "remain-on-exit", "on")

    def press(self, *keys: str) -> None:
        self.run("send-keys", "-t", "s", *keys)

    def type(self, text: str) -> None:
        self.run("send-keys", "-t", "s", "-l", text)

    def screen(self) -> str:
        return self.run("capture-pane", "-t", "s", "-p")

    def wait(self, *texts: str, seconds: float = 60.0) -> str:
        """The screen, once it has all these texts."""
        return self.until(lambda: all(text in self.screen() for text in texts), f"{texts} to be shown", seconds)

    def until(self, condition: Callable[[], object], words: str, seconds: float = 60.0) -> str:
        """The screen, once the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {words}\n{self.screen()}"
            time.sleep(0.1)
        return self.screen()

    def process(self) -> int:
        """The process id of the console."""
        pane = int(self.run("display-message", "-p", "-t", "s", "#{pane_pid}"))
        children = subprocess.run(["pgrep", "-P", str(pane)], check=True, capture_output=True, text=True).stdout
        return int(children.split()[0])


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None or shutil.which("pgrep") is None:
        pytest.skip("needs tmux and pgrep")
    terminal = Tmux(tmp_path / "t", tmp_path)
    yield terminal
    subprocess.run(["tmux", "-S", str(tmp_path / "t"), "kill-server"], check=False, capture_output=True)


@pytest.fixture
def epochal() -> str:
    """The command of the console."""
    return f"env -u NO_COLOR {shlex.quote(sys.executable)} -m tui"
