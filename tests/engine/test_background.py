"""--background: the run outlives what began it, and a start that fails is told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.cli import main
from engine.run import Run
from tests.engine.processes import PATIENCE, SMALL, alive, as_from_a_shell, started, until

pytestmark = pytest.mark.usefixtures("in_a_shell")

# Prints as Python and as C code do, starts a helper that keeps the standard streams, and waits in its steps for a file.
TALKING = """
import os
import subprocess
import time
from pathlib import Path
from torch import nn

print("imported")
Path("helper").write_text(str(subprocess.Popen(["sleep", "600"]).pid))

class Net(nn.Linear):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape[0], output_size)
        self.calls = 0

    def forward(self, x):
        print("forward")
        os.write(2, b"as C does\\n")
        self.calls += 1
        while self.calls == 7 and not Path("go").exists():
            time.sleep(0.01)
        return super().forward(x)
"""
NET = ["--set", "model={name='net.py:Net'}"]


def called(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a process that has ended and let go of its streams."""
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        preexec_fn=as_from_a_shell,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_run_outlives_the_command() -> None:
    Path("net.py").write_text(TALKING)
    status, out, err = called(*SMALL, *NET, "--epochs", "1000000", "--background", "--json")
    begun = json.loads(out)
    run, process = Run(Path(begun["run"])), psutil.Process(begun["pid"])
    try:
        assert (status, err.splitlines()[0]) == (0, "imported")
        assert run.status.read(run.status.path)["state"] == "running"
        assert run.status.read(run.status.path)["pid"] == begun["pid"] == os.getsid(begun["pid"])
        if sys.platform == "linux":
            led = [str(Path(f"/proc/{begun['pid']}/fd/{number}").readlink()) for number in range(3)]
            assert led == [os.devnull, *[str(run.output_path.resolve())] * 2]
        Path("go").touch()
        process.terminate()
        until(lambda: not alive(process.pid), "SIGTERM ended it")
        ended = run.status.read(run.status.path)
        assert (ended["state"], ended["reason"]) == ("stopped", "asked to end (SIGTERM)")
        assert run.checkpoints.read("last").step == ended["step"] > 0
        printed = run.output_path.read_text()
        assert printed.startswith("imported\nforward\nas C does\n")
        assert printed.count("forward\n") == printed.count("as C does\n") >= ended["step"]
    finally:
        os.kill(int(Path("helper").read_text()), signal.SIGKILL)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()

    status, out, err = called("resume", "--background", "--epochs", str(ended["epoch"] + 1))
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    assert (status, err.splitlines()[0]) == (0, "imported")
    assert [label for label, _ in lines] == ["run", "process", "attach"]
    assert (lines[0][1], lines[2][1]) == (str(run.path), f"python -m engine attach {run.path}")
    os.kill(int(Path("helper").read_text()), signal.SIGKILL)
    until(lambda: Run.list("runs")[0].state == "finished", "the resumed run is finished")


def in_one_sentence(words: str, status: int, *arguments: str) -> None:
    got, out, err = called(*SMALL, "--background", *arguments)
    assert (got, out, len(err.splitlines())) == (status, "", 1), err
    assert words in err
    assert not Path("runs").exists()


def test_a_mistake_is_told_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    in_one_sentence("optimizer.lr is -1", 2, "--set", "optimizer.lr=-1")
    assert main([*SMALL, "--background", "--no-run"]) == 2
    assert "--no-run" in capsys.readouterr().err and not Path("runs").exists()


def test_a_process_that_is_killed_before_the_run_has_begun() -> None:
    Path("net.py").write_text("import os\nos.kill(os.getpid(), 9)")
    in_one_sentence("ended by SIGKILL before the run had begun", 137, *NET)


def test_a_signal_while_it_begins_goes_to_the_run() -> None:
    Path("net.py").write_text("import os, time\nprint('importing', os.getpid(), flush=True)\ntime.sleep(600)")
    with started(*SMALL, *NET, "--background") as process:
        streams: Any = process.stderr
        words, pid = streams.readline().split()
        assert words == "importing"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert streams.read() == ""
    assert not alive(int(pid))
    assert not Path("runs").exists()
