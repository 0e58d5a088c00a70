"""Several processes from one command, ours or torchrun: what a person sees, and what becomes of the run when one dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.events import RunEnded, RunStarted
from engine.run import Journal, Run, Status
from tests.engine.processes import PATIENCE, alive, as_from_a_shell, ended, in_a_terminal, started, until

pytestmark = pytest.mark.usefixtures("in_a_shell")

# The second process has its accident at one step of the training, and only once. All wait while there is a file that says so.
NET = """
import os
import time
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def __init__(self, input_shape, output_size, accident="none"):
        super().__init__(input_shape[0], output_size)
        self.accident, self.calls = accident, 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 40 and self.accident != "none" and os.environ.get("RANK") == "1" and not Path("once").exists():
            Path("once").touch()
            print("rank 1 was here")
            if self.accident == "killed":
                os.kill(os.getpid(), 9)
            if self.accident == "exit":
                os._exit(7)
            raise ValueError("no such luck")
        while self.calls == 30 and Path("hold").exists():
            time.sleep(0.01)
        return super().forward(x)
"""
FEW = ["train", "--data", "iris", "--model", "net.py:Net", "--set", "checkpoint.min_seconds=0", "--epochs", "12"]
MANY = [*FEW[:-1], "1000000"]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def only_run(where: Path) -> Run:
    (path,) = (where / "runs").glob("[!.]*")
    return Run(path)


@contextlib.contextmanager
def torchrun(*arguments: str, options: tuple[str, ...] = (), **streams: Any) -> Iterator[subprocess.Popen[str]]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--log-dir", "log", *options]
    command = [*torchrun, "-m", "engine", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | streams
    with subprocess.Popen(command, preexec_fn=as_from_a_shell, **streams) as process:  # noqa: PLW1509
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                    each.kill()


def rank_of(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """That of the processes which a launcher began."""
    children = psutil.Process(launcher.pid).children()
    return next(child for child in children if child.environ().get("RANK") == str(rank))


def rows(run: Run) -> list[str]:
    """Kinds of the journal's events, and their epochs."""
    return [f"{type(e).__name__} {getattr(e, 'epoch', '')}" for e in Journal.read(run.journal.path)[0]]


@pytest.mark.slow
def test_one_of_two_is_killed_and_both_are_begun_once_more(there: Path) -> None:
    with started(*FEW, "--set", "model.accident=killed", "--processes", "2", "--restarts", "1", "--json") as process:
        status, out, err = ended(process)
    assert status == 0, err
    run = only_run(there)
    told = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in told].count("run_started") == 2
    assert {event["processes"] for event in told if event["event"] == "run_started"} == {2}
    assert [row for row in rows(run) if row.startswith("EpochEnded")] == [f"EpochEnded {i}" for i in range(1, 13)]
    assert Status.read(run.status.path)["state"] == "finished"
    lines = err.splitlines()
    assert len(lines) == 1 and "rank 1" in lines[0], err
    assert "rank 1 was here" in run.output_path.read_text()


def test_a_process_that_dies_is_named(there: Path) -> None:
    with started(*MANY, "--set", "model.accident=killed", "--processes", "2", "--json") as process:
        status, out, err = ended(process)
    assert status == 1
    run = only_run(there)
    assert json.loads(out.splitlines()[-1])["event"] == "run_ended"
    ending = Journal.end(run.journal.path)
    assert ending is not None and ending.state == "failed"
    assert "rank 1 (process" in ending.reason and "was ended by SIGKILL" in ending.reason
    assert Status.read(run.status.path)["reason"] == ending.reason
    assert f"epochal: {ending.reason}; see {run.path.relative_to(there)}/output.log" in err
    assert "torch/distributed" not in err and "====" not in err  # torch's banner is in the log
    assert "Root Cause" in run.output_path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accident", "reason"), [("exit", "ended with exit status 7"), ("raised", "rank 1 failed: ValueError: no such luck")]
)
def test_what_a_process_died_of_is_the_reason(there: Path, accident: str, reason: str) -> None:
    with started(*MANY, "--set", f"model.accident={accident}", "--processes", "2") as process:
        status, _, err = ended(process)
    run = only_run(there)
    ending = Journal.end(run.journal.path)
    assert status == 1 and ending is not None and ending.state == "failed"
    assert reason in ending.reason and err.count(reason) == 1, err
    log = run.output_path.read_text()
    assert ("Traceback (most recent call last)" in log and 'raise ValueError("no such luck")' in log) == (accident == "raised")


@pytest.mark.slow
def test_a_mistake_that_only_the_data_show_is_told_once(there: Path) -> None:
    with started(*FEW, "--processes", "2", "--set", "data.batch_size=1000", "--set", "data.drop_last=true") as process:
        status, out, err = ended(process)
    assert status == 2 and out == "" and not (there / "runs").exists()
    assert len(err.splitlines()) == 1 and err.startswith("epochal: "), err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_to_the_launcher_stops_all_with_a_checkpoint(there: Path, name: str, code: int) -> None:
    with started(*MANY, "--processes", "2", "--restarts", "3") as process:
        until(lambda: list(there.glob("runs/*/checkpoints/step-*")), "there is a checkpoint")
        process.send_signal(signal.Signals[name])
        status, out, err = ended(process)
    assert status == code
    assert err == "epochal: ends after this step, with a checkpoint; once more ends it at once\n"
    run = only_run(there)
    ending = Journal.end(run.journal.path)
    assert ending is not None and ending.state == "stopped" and name in ending.reason
    assert run.checkpoints.read("last").step == ending.step
    assert "goes on" not in out and "stopped" in out


@pytest.mark.slow
def test_a_signal_to_one_of_them_stops_all_and_is_what_the_exit_status_says(there: Path) -> None:
    with started(*MANY, "--processes", "2", "--restarts", "3") as process:
        until(lambda: list(there.glob("runs/*/checkpoints/step-*")), "there is a checkpoint")
        rank_of(process, 1).terminate()
        status, out, err = ended(process)
    assert (status, err) == (143, "")
    run = only_run(there)
    ending = Journal.end(run.journal.path)
    assert ending is not None and ending.state == "stopped" and "SIGTERM" in ending.reason
    assert run.checkpoints.read("last").step == ending.step
    assert "goes on" not in out and "stopped" in out


@pytest.mark.slow
def test_a_torchrun_one_of_whose_processes_is_asked_to_end_fails_when_the_checkpoint_is_written(there: Path) -> None:
    with torchrun(*MANY) as process:
        until(lambda: list(there.glob("runs/*/checkpoints/step-*")), "there is a checkpoint")
        rank_of(process, 1).terminate()
        status, _, err = ended(process)
    assert status == 1 and "exitcode  : 143" in err
    run = only_run(there)
    ending = Journal.end(run.journal.path)
    assert ending is not None and ending.state == "stopped"
    assert run.checkpoints.read("last").step == ending.step


@pytest.mark.slow
def test_a_second_signal_ends_all_at_once(there: Path) -> None:
    with started(*MANY, "--processes", "2", "--restarts", "3") as process:
        until(lambda: list(there.glob("runs/*/checkpoints/step-*")), "there is a checkpoint")
        children = psutil.Process(process.pid).children()
        for child in children:
            child.suspend()  # they can't stop by themselves
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None and "once more ends it at once" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        status, _, _ = ended(process)
    assert status == 143
    until(lambda: not any(alive(child.pid) for child in children), "they have ended")


@pytest.mark.slow
def test_a_hang_up_ends_nothing(there: Path) -> None:
    (there / "hold").touch()
    with in_a_terminal(*FEW, "--processes", "2", "--restarts", "1") as (process, terminal):
        until(lambda: list(there.glob("runs/*/checkpoints/step-*")), "there is a checkpoint")
        os.close(terminal)  # the session's leader gets a SIGHUP
        (there / "hold").unlink()
        assert process.wait(PATIENCE) == 0
    ending = Journal.end(only_run(there).journal.path)
    assert ending is not None and ending.state == "finished"


@pytest.mark.slow
def test_a_hang_up_ends_the_users_torchrun_and_not_the_training(there: Path) -> None:
    launcher = ["-c", "import os; os.close(os.open(os.ttyname(0), os.O_RDWR)); from torch.distributed.run import main; main()"]
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, *launcher, "--nproc-per-node", "2", "--log-dir", "log", "-m", "engine", *FEW]
    (there / "hold").touch()
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=as_from_a_shell,  # noqa: PLW1509
    ) as process:
        os.close(theirs)
        until(lambda: list(there.glob("runs/*/checkpoints/step-*")), "there is a checkpoint")
        run = only_run(there)
        trainer = Status.read(run.status.path)["pid"]
        os.close(ours)
        process.wait(PATIENCE)
    assert alive(trainer)
    (there / "hold").unlink()
    until(lambda: Status.read(run.status.path)["state"] == "finished", "the training is done")


@pytest.mark.slow
def test_torchrun_begins_the_same_run_once_more(there: Path) -> None:
    """Two of them beside each other, in the same folder, with the same command: each goes on with its own."""
    arguments = [*FEW, "--set", "model.accident=killed"]
    with torchrun(*FEW, "--name", "other", options=("--max-restarts", "1")) as other:
        with torchrun(*arguments, options=("--max-restarts", "1")) as process:
            out, err = process.communicate(timeout=PATIENCE)
            status = process.returncode
        assert ended(other)[0] == 0
    assert status == 0, err
    assert out.count("goes on from step") == 1
    both = [Run(path) for path in (there / "runs").iterdir()]
    assert len(both) == 2
    assert sorted(sum(row.startswith("RunStarted") for row in rows(run)) for run in both) == [1, 2]
    assert {Status.read(run.status.path)["state"] for run in both} == {"finished"}


@pytest.mark.slow
def test_a_rank_that_torchrun_is_told_to_kill_dies(there: Path) -> None:
    """What stands in for a rank does not outlive it, nor it the stand-in."""
    with torchrun(*MANY) as process:
        until(lambda: list(there.glob("runs/*/checkpoints/step-*")), "there is a checkpoint")
        stand_ins = psutil.Process(process.pid).children()
        trainers = [child for stand_in in stand_ins for child in stand_in.children()]
        assert len(stand_ins) == len(trainers) == 2
        stand_ins[1].kill()
        status, _, _ = ended(process)
    assert status == 1
    until(lambda: not any(alive(trainer.pid) for trainer in trainers), "they have ended")


@pytest.mark.slow
def test_in_the_background(there: Path) -> None:
    with started(*FEW[:-1], "100", "--processes", "2", "--background", "--json") as process:
        status, out, err = ended(process)
    assert status == 0, err
    run = Run(there / json.loads(out)["run"])
    until(lambda: Status.read(run.status.path)["state"] == "finished", "it is done")
    kinds = [type(event) for event in Journal.read(run.journal.path)[0]]
    assert kinds.count(RunStarted) == kinds.count(RunEnded) == 1


@pytest.mark.slow
def test_a_job_of_the_queue(there: Path) -> None:
    from engine.cli import main
    from engine.run.queue import Queue

    assert main(["queue", "add", *FEW[1:], "--set", "training.processes=2", "--hold"]) == 0
    with started("queue", "start", "--foreground") as process:
        status, out, err = ended(process)
    assert status == 0, out + err
    (job,) = Queue(Path("runs")).read().jobs
    assert job.state == "finished" and job.run and only_run(there).name == Path(job.run).name
    assert '"processes": 2' in only_run(there).journal.path.read_text()
