"""SIGTERM, SIGINT and SIGUSR1, wherever the training is when they come."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.cli import main
from engine.run import Run
from engine.run.checkpoints import Checkpoints
from tests.engine.processes import alive, ended, read_until, started, until

pytestmark = pytest.mark.usefixtures("in_a_shell")
STATUS = {"SIGTERM": 143, "SIGINT": 130}
SIGNALS = pytest.mark.parametrize("name", STATUS)

# The signal comes from inside the training code: at exactly that place, and once.
NET = """
import os
import signal
from torch import nn
from engine.run import Run

asked = []

class Net(nn.Linear):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape[0], output_size)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if WHERE and not asked:
            asked.append(True)
            WHAT
        return super().forward(x)
"""
IN_THE_STEP = "self.training and self.calls == CALL"
KILL = "os.kill(os.getpid(), signal.SIGNAL)"
IRIS = ["train", "--set", "data.name=iris", "--set", "model={name='net.py:Net'}", "--epochs", "3"]  # 4 batches an epoch

# One sample takes long: the signal is sent while it is waited for, by one of the processes that load.
DATA = """
import os
import signal
import time
from pathlib import Path
import torch
from torch.utils.data import Dataset

def first():
    try:
        Path("asked").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

class Slow(Dataset):
    loaded = 0

    def __len__(self):
        return 64

    def __getitem__(self, index):
        self.loaded += Path("runs").exists()
        if self.loaded == 50 and first():
            WHAT
            time.sleep(SECONDS)
        return torch.full((4,), index / 64), index % 2

def load():
    return Slow()
"""
SLOW = ["train", "--data", "data.py:load", "--set", "model.name=linear", "--set", "data.batch_size=8", "--epochs", "1000"]


def write_net(where: str, what: str) -> None:
    Path("net.py").write_text(NET.replace("WHERE", where).replace("WHAT", what))


def write_data(what: str, seconds: int) -> None:
    Path("data.py").write_text(DATA.replace("WHAT", what).replace("SECONDS", str(seconds)))


def of_the_run(kind: str) -> list[dict[str, Any]]:
    journal = [json.loads(line) for line in Run.open("last").journal.path.read_text().splitlines()]
    return [event for event in journal if event["event"] == kind]


def stopped_by(name: str, status: int) -> Run:
    """The run, stopped as this signal stops one, with its last step saved."""
    run = Run.open("last")
    written = run.status.read(run.status.path)
    asked = {"SIGTERM": "asked to end (SIGTERM)", "SIGINT": "interrupted (SIGINT)"}[name]
    assert (status, written["state"], written["reason"]) == (STATUS[name], "stopped", asked)
    assert run.checkpoints.read("last").step == written["step"] > 0
    return run


def goes_on_to_its_end() -> None:
    assert main(["resume", "--epochs", "3"]) == 0
    assert [event["epoch"] for event in of_the_run("epoch_ended")] == [1, 2, 3]
    assert of_the_run("run_ended")[0]["state"] == "finished"


@SIGNALS
@pytest.mark.parametrize(
    ("call", "window", "step", "batch"),
    [(7, 1, 7, 3), (5, 3, 3, 3), (8, 3, 4, 4)],
    ids=["stepping", "accumulating", "accumulating the tail"],
)
def test_f1_in_a_step(name: str, call: int, window: int, step: int, batch: int) -> None:
    write_net(IN_THE_STEP.replace("CALL", str(call)), KILL.replace("SIGNAL", name))
    status = main([*IRIS, "--set", f"training.accumulate={window}"])
    saved = stopped_by(name, status).checkpoints.read("last")
    assert (saved.step, saved.state["batch"]) == (step, batch)
    goes_on_to_its_end()


@SIGNALS
def test_f1_while_validating(name: str) -> None:
    write_net("not self.training and self.calls", KILL.replace("SIGNAL", name))
    status = main(IRIS)
    assert stopped_by(name, status).checkpoints.read("last").step == 4
    assert of_the_run("epoch_ended") == []
    goes_on_to_its_end()


@SIGNALS
@pytest.mark.parametrize(("workers", "process", "seconds"), [(0, "os.getpid()", 600), (2, "os.getppid()", 3)])
def test_f1_while_data_is_waited_for(name: str, workers: int, process: str, seconds: int) -> None:
    write_data(f"os.kill({process}, signal.{name})", seconds)
    stopped_by(name, main([*SLOW, "--set", f"data.workers={workers}"]))


@SIGNALS
def test_f1_while_saving(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_net("False", "pass")
    write, sent = Checkpoints.write, []

    def killed_on_the_way(self: Checkpoints, *arguments: Any, **options: Any) -> Any:
        if not sent:
            sent.append(name)
            os.kill(os.getpid(), getattr(signal, name))
        return write(self, *arguments, **options)

    monkeypatch.setattr(Checkpoints, "write", killed_on_the_way)
    run = stopped_by(name, main([*IRIS, "--epochs", "1000000", "--set", "checkpoint.min_seconds=0"]))
    assert run.checkpoints.read(4).step == 4  # that of the first epoch, which was being written


@SIGNALS
def test_f1_in_a_pause(name: str) -> None:
    write_net(IN_THE_STEP.replace("CALL", "7"), "Run.open('last').tell('pause')")

    def send() -> None:
        try:
            until(lambda: any(run.state == "paused" for run in Run.list("runs")), "it is paused")
        finally:
            os.kill(os.getpid(), getattr(signal, name))

    sender = threading.Thread(target=send)
    sender.start()
    status = main([*IRIS, "--epochs", "1000000"])
    sender.join()
    stopped_by(name, status)
    assert len(of_the_run("run_paused")) == 1


def test_a_scheduler_s_warning_writes_a_checkpoint_and_the_run_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    write_net(IN_THE_STEP.replace("CALL", "5"), KILL.replace("SIGNAL", "SIGUSR1"))
    early = Path("net.py").read_text() + f"\n{KILL.replace('SIGNAL', 'SIGUSR1')}\n"
    Path("net.py").write_text(early)
    status = main([*IRIS, "--set", "training.accumulate=3"])
    assert status == 0
    assert capfd.readouterr().err.splitlines() == [
        "epochal: there is nothing to save yet",
        "epochal: writes a checkpoint after this step and goes on",
    ]
    assert of_the_run("run_ended")[0]["step"] == 6
    saved = Run.open("last").checkpoints.read(3)
    assert (saved.state["epoch"], saved.state["batch"]) == (1, 3)  # a whole window


@SIGNALS
def test_a_signal_to_all_processes_of_the_run(name: str) -> None:
    """Ctrl-C in a terminal, or a scheduler's: the data's processes get it as well."""
    write_data("print('waited for', flush=True)", 3)
    with started(*SLOW, "--set", "data.workers=2", start_new_session=True) as process:
        read_until(process, "waited for")
        workers = psutil.Process(process.pid).children()
        os.killpg(process.pid, getattr(signal, name))
        status, out, err = ended(process)
    assert workers
    until(lambda: not any(alive(worker.pid) for worker in workers), "they have ended")
    # What torch says of more workers than processors may come before, what it says of a batch that nobody wants may follow.
    assert err.count("epochal: ends after this step, with a checkpoint; once more ends it at once\n") == 1
    assert "KeyboardInterrupt" not in err
    assert "go on     " in out
    stopped_by(name, status)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++")
def test_f1_while_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")  # more of them are processes that import torch anew
    linear = ["--set", "model.name=linear"]
    with started(*IRIS[:3], *linear, "--set", "training.execution=compiled", "--epochs", "1000000") as process:
        until(lambda: list(cache.rglob("*.cpp")), "the compiler is at work")
        process.send_signal(signal.SIGTERM)
        status, _, err = ended(process)
    assert "Traceback" not in err
    stopped_by("SIGTERM", status)
