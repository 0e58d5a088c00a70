"""Several processes from one command, ours or torchrun: what a person sees, and what becomes of the run when one dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.cli.signals import Signals
from engine.distributed import launched
from engine.distributed.attempt import store_of_this_attempt
from engine.distributed.launch import _death
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


# Without processes


def test_what_stopped_all_is_told_by_the_first_where_nobody_would_begin_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "stopped"

    def status(reason: str = "asked to end (SIGTERM)", **variables: str) -> int:
        """Of a process that got no signal itself."""
        with monkeypatch.context() as patch:
            for name in (
                launched.LAUNCHER,
                launched.STOPPED,
                "RANK",
                "TORCHELASTIC_RESTART_COUNT",
                "TORCHELASTIC_MAX_RESTARTS",
            ):
                patch.delenv(name, raising=False)
            for name, value in ({"WORLD_SIZE": "2", "RANK": "0"} | variables).items():
                patch.setenv(name, value)
            return Signals().status_of(reason)

    assert status() == 143 and status("interrupted (SIGINT)") == 130
    assert status("stopped by the user") == status(RANK="1") == 0
    assert status(TORCHELASTIC_RESTART_COUNT="1", TORCHELASTIC_MAX_RESTARTS="2") == 0
    assert status(TORCHELASTIC_RESTART_COUNT="2", TORCHELASTIC_MAX_RESTARTS="2") == 143
    assert status(EPOCHAL_LAUNCHER="epochal", EPOCHAL_STOPPED=str(told)) == 0
    assert told.read_text() == "15"


def test_restarts_are_for_several_processes(there: Path) -> None:
    from engine.cli import main

    assert main([*FEW, "--restarts", "2"]) == 2


def test_a_sweep_is_for_one_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.errors import EpochalError, RecipeError
    from engine.search.searching import Search
    from engine.sweep import expand
    from engine.sweep.sweeping import Sweep

    with pytest.raises(RecipeError, match=r"training.processes is 2 and must be 1 in a sweep"):
        expand({"training": {"processes": 2}}, ["seed=0..1"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EpochalError, match="a sweep is for one process, and a launcher began 2"):
        Sweep(expand({}, ["seed=0..1"]))
    with pytest.raises(EpochalError, match="a search is for one process"):
        Search.create({})


@pytest.fixture
def begun_by(monkeypatch: pytest.MonkeyPatch) -> Any:
    def begun_by(**variables: str) -> None:
        for name in (
            "TORCHELASTIC_RUN_ID",
            "TORCHELASTIC_RESTART_COUNT",
            "EPOCHAL_AGENT",
            "SLURM_JOB_ID",
            "SLURM_RESTART_COUNT",
        ):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return begun_by


def test_the_run_of_an_earlier_attempt_is_found(tmp_path: Path, begun_by: Any) -> None:
    now = time.time()
    agent, other = f"10:{now - 100}", f"11:{now - 50}"

    begun_by(TORCHELASTIC_RUN_ID="none", EPOCHAL_AGENT=agent)
    assert launched.earlier_run(tmp_path) is None
    mine = Run.create(tmp_path, "mine")
    found = launched.earlier_run(tmp_path)
    assert found is not None and found.path == mine.path

    begun_by(TORCHELASTIC_RUN_ID="none", EPOCHAL_AGENT=other)  # a torchrun beside it
    assert launched.earlier_run(tmp_path) is None

    begun_by(TORCHELASTIC_RUN_ID="100", EPOCHAL_AGENT=agent)
    theirs = Run.create(tmp_path, "theirs")
    begun_by(TORCHELASTIC_RUN_ID="100", EPOCHAL_AGENT=other)  # rank 0 has moved to the second machine
    found = launched.earlier_run(tmp_path)
    assert found is not None and found.path == theirs.path
    begun_by(TORCHELASTIC_RUN_ID="100", EPOCHAL_AGENT=f"12:{now + 1000}")  # another day, the same --rdzv-id
    assert launched.earlier_run(tmp_path) is None

    begun_by(SLURM_JOB_ID="7")
    queued = Run.create(tmp_path, "queued")
    assert launched.earlier_run(tmp_path) is None  # the same job, begun once
    begun_by(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="1")
    found = launched.earlier_run(tmp_path)
    assert found is not None and found.path == queued.path
    begun_by(SLURM_JOB_ID="8", SLURM_RESTART_COUNT="1")
    assert launched.earlier_run(tmp_path) is None
    begun_by()
    assert launched.earlier_run(tmp_path) is None


def test_the_first_to_die_is_told_from_those_that_die_of_it() -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    def failure(rank: int, code: int, second: int, message: Any = "") -> ProcessFailure:
        made = ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=code, error_file="<N/A>")
        made.timestamp, made.message = second, message
        return made

    lost = {0: failure(0, 1, 50), 1: failure(1, -15, 50), 2: failure(2, -9, 50), 3: failure(3, 1, 50)}
    assert str(_death(lost, [])) == "rank 2 (process 102) was ended by SIGKILL, perhaps for want of memory"
    raised = {0: failure(0, 1, 50), 1: failure(1, 1, 51, {"message": "ValueError: no"}), 2: failure(2, -15, 50)}
    assert str(_death(raised, [])) == "rank 1 (process 101) failed: ValueError: no"
    killed_late = {0: failure(0, 3, 50), 1: failure(1, -9, 80)}  # by torch's launcher, which waits 30 seconds
    assert _death(killed_late, []).rank == 0


def test_a_new_attempt_does_not_meet_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    agent = TCPStore("localhost", 0, is_master=True)
    agent.set("epochal/here/1", "one that has died")
    found: dict[int, Any] = {}

    class Environment(dict[str, str]):
        """Each thread is a rank."""

        def __getitem__(self, name: str) -> str:
            return threading.current_thread().name if name == "RANK" else super().__getitem__(name)

    def join(rank: int) -> None:
        found[rank] = store_of_this_attempt(timedelta(seconds=60))

    variables = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "localhost", "MASTER_PORT": str(agent.port)}
    monkeypatch.setattr(os, "environ", Environment(**variables, WORLD_SIZE="2"))
    threads = [threading.Thread(target=join, args=(rank,), name=str(rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found[0].set("address", "here")
    assert found[1].get("address") == b"here"
    assert not agent.check(["address"])
