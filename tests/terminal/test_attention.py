"""What a terminal and a command are told by a real run, with a screen and without."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.terminal.conftest import PATIENCE, QUICK, held, only_run, recipe, the_end_of
from tests.terminal.test_lost import Pty, at_pty

__all__ = ["at_pty"]
pytestmark = pytest.mark.slow
TELL = "import os, sys; open('told', 'a').write(os.environ['EPOCHAL_EVENT'] + ': ' + sys.argv[1])"


def notify(where: Path) -> str:
    (where / "tell.py").write_text(TELL)
    return f"{sys.executable} tell.py"


def told(where: Path) -> str:
    """What the command has written so far."""
    return (where / "told").read_text() if (where / "told").exists() else ""


def test_the_end_rings_and_notifies(at_pty: Callable[..., Pty], tmp_path: Path):
    command = [sys.executable, "-m", "tui", recipe(tmp_path, QUICK)]
    settings = {"EPOCHAL_ATTENTION": "always", "EPOCHAL_NOTIFY": notify(tmp_path), "TMUX": "", "STY": ""}
    terminal = at_pty(*command, **settings)
    terminal.wait("ready")
    terminal.type("r")
    terminal.wait("\x1b]9;quick finished: all 2 epochs done; best val/loss ", "\x07\x07")
    deadline = time.monotonic() + PATIENCE
    while not told(tmp_path).startswith("end: quick finished: all 2 epochs done"):
        assert time.monotonic() < deadline, told(tmp_path)
        time.sleep(0.05)


def test_a_run_that_lost_its_terminal_tells_the_command(at_pty: Callable[..., Pty], tmp_path: Path):
    terminal = at_pty(sys.executable, "-m", "tui", held(tmp_path), EPOCHAL_NOTIFY=notify(tmp_path))
    terminal.wait("ready")
    terminal.type("r")
    terminal.wait("running")
    os.close(terminal.master)
    (tmp_path / "go").touch()
    assert the_end_of(only_run(tmp_path)).state == "finished"
    assert told(tmp_path).startswith("end: quick finished: all 4 epochs done")
