"""The launcher and its child, without any console in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.processes import alive


def launched(code: str, where: Path) -> subprocess.Popen[str]:
    """A process whose child runs `code`, the body of a function of `launcher`; `tell(name)` makes a file."""
    program = f"""
import os, pathlib, signal, sys, time
from tui.launch import launch
def tell(name, text=""):
    pathlib.Path({str(where)!r}, name + ".part").write_text(str(text))
    os.rename(pathlib.Path({str(where)!r}, name + ".part"), pathlib.Path({str(where)!r}, name))
def child(launcher):
{textwrap.indent(textwrap.dedent(code), "    ")}
sys.exit(launch(child))
"""
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def there(path: Path) -> str:
    """What stands in a file, once it is there."""
    return until(path.exists) and path.read_text()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("code", "status"), [("return 0", 0), ("return 7", 7), ("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)]
)
def test_the_status_is_the_childs(tmp_path: Path, code: str, status: int):
    process = launched(code, tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and out == ""
    assert err == ("epochal: ended by SIGKILL\n" if status == 137 else "")


def test_a_child_that_leaves_lets_the_launcher_end_with_its_word(tmp_path: Path):
    process = launched(
        """
        launcher.release("it goes on", 5)
        tell("pid", os.getpid())
        os.close(1); os.close(2)
        while not os.path.exists("%s"): time.sleep(0.01)
        tell("end", launcher.gone)
        """
        % (tmp_path / "go"),
        tmp_path,
    )
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("it goes on\n", 5)
    assert alive(int(there(tmp_path / "pid"))) and not (tmp_path / "end").exists()
    (tmp_path / "go").touch()
    assert there(tmp_path / "end") == "True"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_to_the_launcher_alone_is_passed_on(tmp_path: Path, number: int):
    process = launched(
        f"""
        got = []
        signal.signal({number:d}, lambda *_: got.append(1))
        tell("ready")
        while not got: time.sleep(0.01)
        return 40 + len(got)
        """,
        tmp_path,
    )
    there(tmp_path / "ready")
    process.send_signal(number)
    assert process.wait(60) == 41


def test_before_there_is_anything_to_save_a_signal_ends_both(tmp_path: Path):
    process = launched("tell('ready'); time.sleep(60)", tmp_path)
    there(tmp_path / "ready")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130 and "Traceback" not in process.stderr.read()


def test_a_child_outlives_a_launcher_that_is_killed(tmp_path: Path):
    process = launched(
        """
        tell("ready", os.getpid())
        while not launcher.gone: time.sleep(0.01)
        launcher.release("nobody hears it")
        tell("end")
        """,
        tmp_path,
    )
    there(tmp_path / "ready")
    process.kill()
    assert there(tmp_path / "end") == ""


def test_two_signals_at_once_are_one_and_a_later_one_ends_at_once(tmp_path: Path):
    """`timeout`, Ctrl-C and Slurm signal the whole group, of which the launcher passes its own on."""
    process = launched(
        """
        from tui import after
        from types import SimpleNamespace
        asked = []
        control = SimpleNamespace(stop=asked.append, checkpoint=lambda: asked.append("checkpoint"))
        stops = after.Stops(SimpleNamespace(control=control))
        after.TOGETHER = 60.0
        tell("ready", os.getpid())
        while not asked: time.sleep(0.01)
        tell("passed-on")
        while len(asked) < 2: time.sleep(0.01)
        tell("asked", __import__("json").dumps(asked))
        after.TOGETHER = 0.0
        tell("later")
        time.sleep(60)
        """,
        tmp_path,
    )
    child = int(there(tmp_path / "ready"))
    process.send_signal(signal.SIGTERM)
    there(tmp_path / "passed-on")
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGHUP)
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGUSR1)
    there(tmp_path / "asked")
    assert sorted(json.loads((tmp_path / "asked").read_text())) == ["checkpoint", "terminated (SIGTERM)"]
    there(tmp_path / "later")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
