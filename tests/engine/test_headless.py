"""The command line as a process of its own: imports, pipes, terminals, signals."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import main
from engine.events import from_dict
from engine.run import Run
from tests.engine.processes import ENDLESS, PATIENCE, SMALL, ended, held, in_a_terminal, read_until, seen, started

pytestmark = pytest.mark.usefixtures("in_a_shell")


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from engine.cli import main; status = main(['train', '--help']); main(['--help'])\n"
        "print([name for name in ('torch', 'numpy', 'pandas', 'sklearn', 'textual', 'plotext', 'tui') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_training_needs_no_console() -> None:
    program = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("textual", "plotext", "tui", "rich"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from engine.cli import main
sys.exit(main(sys.argv[1:]) or main(["runs"]) or main(["check"]) or main(["catalog"]))
"""
    command = [sys.executable, "-c", program, *SMALL, "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Run.list("runs")[0].state == "finished"


def test_a_pipe_gets_plain_rows_as_they_come() -> None:
    Path("net.py").write_text(held(6))
    with started(*SMALL, "--epochs", "3", "--set", "model={name='net.py:Net'}") as process:
        read_until(process, "    1  ")  # the row of epoch 1 is out while epoch 2 is under way
        Path("go").touch()
        status, out, err = ended(process)
    assert (status, err) == (0, "")
    rows = [line for line in out.splitlines() if line != "in the step"]
    assert [row.split()[0] for row in rows[:2]] == ["2", "3"]
    assert "\x1b" not in out
    assert "\r" not in out


def test_sigterm_finishes_the_step_and_saves_and_resume_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text(held(7))
    with started(*ENDLESS, "--set", "model={name='net.py:Net'}") as process:
        read_until(process, "in the step")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline() == "epochal: ends after this step, with a checkpoint; once more ends it at once\n"
        Path("go").touch()
        status, out, err = ended(process)
    (run,) = Run.list("runs")
    assert (status, err) == (143, "")
    assert "stopped   asked to end (SIGTERM)" in out
    assert f"go on     python -m engine resume {run.path}" in out
    assert run.state == "stopped"
    assert Run(run.path).checkpoints.read("last").step == run.step > 0

    assert main(["resume", "--json", "--epochs", str(run.epoch + 2)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(from_dict(event) for event in events)
    assert events[0]["step"] == run.step
    assert [event["epoch"] for event in events if event["event"] == "epoch_ended"] == [run.epoch + 1, run.epoch + 2]
    assert Run.list("runs")[0].state == "finished"


def test_a_second_signal_does_not_wait_for_the_step() -> None:
    Path("net.py").write_text(held(7))
    with started(*ENDLESS, "--set", "model={name='net.py:Net'}") as process:
        read_until(process, "in the step")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == -signal.SIGINT  # 130 in a shell
    assert Run.list("runs")[0].state == "died"


def test_an_interrupted_start_has_no_traceback() -> None:
    with started("train", options=("-X", "importtime")) as process:
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)  # the other end does not get far ahead of what is read here
        for line in process.stderr:
            if re.search(r"\| +torch\.", line):  # in the middle of importing torch
                break
        process.send_signal(signal.SIGINT)
        status, out, err = ended(process)
    assert (status, out) == (130, "")
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err


def test_a_reader_that_goes_away_does_not_stop_the_training() -> None:
    with started(*SMALL, "--epochs", "30") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert Run.list("runs")[0].epoch == 30


def test_a_terminal_has_a_live_line_and_none_of_it_is_left() -> None:
    with in_a_terminal(*SMALL, "--epochs", "300", columns=100) as (process, terminal):
        text = seen(terminal)
        assert process.wait(PATIENCE) == 0
    os.close(terminal)
    live = re.findall(r"\r\x1b\[2K([█░]+ [^\r\n]*)", text)
    assert live
    assert all(len(line) < 100 for line in live)
    assert re.search(r"%  epoch \d+/300  step \d+/1200  loss [\d.e-]+  left \d+:\d\d  [\d.]+k? steps/s", "\n".join(live))
    screen = [line.rsplit("\r\x1b[2K", 1)[-1].rstrip("\r") for line in text.split("\n")]
    assert not any("█" in line or "\x1b" in line for line in screen)
    rows = [line for line in screen if re.match(r" +\d+  ", line)]
    assert [int(row.split()[0]) for row in rows] == list(range(1, 301))
    assert screen[-2].startswith("go on")
    assert screen[-1] == ""


def test_a_hang_up_does_not_stop_the_training() -> None:
    with in_a_terminal(*SMALL, "--epochs", "200") as (process, terminal):
        assert "epoch" in seen(terminal, until=b"    2  ")
        os.close(terminal)  # the last user of our end: the session gets SIGHUP, its terminal is gone
        assert process.wait(PATIENCE) == 0
    assert Run.list("runs")[0].state == "finished"
    assert Run.list("runs")[0].epoch == 200


def test_ctrl_c_in_a_terminal() -> None:
    with in_a_terminal(*ENDLESS) as (process, terminal):
        seen(terminal, until=b"    2  ")
        os.write(terminal, b"\x03")
        text = seen(terminal)
        assert process.wait(PATIENCE) == 130
    os.close(terminal)
    assert "stopped   interrupted (SIGINT)" in text
    assert "Traceback" not in text
