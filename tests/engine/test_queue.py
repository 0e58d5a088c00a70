"""The queue: what is kept, what a worker of its own process makes of it, and that neither is lost when processes are killed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import Recipe, RunError, Trainer
from engine.cli import main
from engine.run import Run
from engine.run.queue import Job, Queue
from tests.engine.processes import PATIENCE, as_from_a_shell, until

pytestmark = pytest.mark.usefixtures("in_a_shell")

# Waits in one of its steps for a file; another one raises, or ends its process.
NET = """
import os, time
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def __init__(self, input_shape, output_size, at=-1):
        super().__init__(input_shape[0], output_size)
        self.calls, self.at = 0, at

    def forward(self, x):
        self.calls += self.training
        while self.calls == self.at and not Path("go").exists():
            Path("waits").touch()
            time.sleep(0.01)
        return super().forward(x)

class Broken(Net):
    def forward(self, x):
        if self.calls == 3:
            raise ArithmeticError("mine")
        return super().forward(x)

class Deadly(Net):
    def forward(self, x):
        if self.calls == 3:
            os.kill(os.getpid(), 9)
        return super().forward(x)
"""
SMALL = {
    "data": {"name": "spirals", "samples": 150},
    "training": {"epochs": 4, "device": "cpu"},
    "checkpoint": {"min_seconds": 0},
}


def called(*arguments: str) -> str:
    """What a command prints that has to be done."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([*arguments]) == 0, err.getvalue()
    return out.getvalue()


def recipe(name: str, **model: Any) -> Recipe:
    values = {**SMALL, "name": name, "model": {"name": "net.py:Net", **model}}
    made = Recipe.from_dict(values)
    made.save(Path(f"{name}.toml"))
    return made


def listed() -> dict[str, dict[str, Any]]:
    """What `queue list --json` says of each job, by name."""
    return {job["name"]: job for job in json.loads(called("queue", "list", "--json"))["jobs"]}


def job(name: str) -> Job:
    return next(job for job in Queue("runs").read().jobs if job.name == name).shown


def weights(run: str | Path) -> bytes:
    return (Path(run) / "checkpoints" / "last" / "model.safetensors").read_bytes()


def names(queue: Queue) -> list[str]:
    return [job.name for job in queue.read().jobs]


# what is kept


def test_order_removal_and_numbers_that_are_not_used_again() -> None:
    queue = Queue("runs")
    assert [job.id for job in queue.add([Job(name="a"), Job(name="b")])] == [1, 2]
    queue.add([Job(name="c")], first=True)
    assert names(Queue("runs")) == ["c", "a", "b"]
    queue.move(2, -1)
    queue.move(3, 100)
    assert names(queue) == ["b", "a", "c"]
    queue.remove([3])
    assert queue.add([Job(name="d")])[0].id == 4
    with pytest.raises(RunError, match="there is no job 3 in the queue: there are 2, 1, 4"):
        queue.remove([3])


def test_what_has_ended_can_wait_again_or_be_cleared() -> None:
    queue = Queue("runs")
    queue.add(Job(name=name) for name in "abc")
    for number, state in ((1, "finished"), (2, "failed")):
        queue.claim(number)
        assert queue.read().job(number).alive
        with pytest.raises(RunError, match="is being trained: stop it first"):
            queue.remove([number])
        queue.conclude(number, state, "because")
    with pytest.raises(RunError, match="job 1 has finished"):
        queue.retry([1])
    with pytest.raises(RunError, match="job 2 does not wait: it is failed"):
        queue.move(2, 1)
    queue.retry([2])
    assert [(job.name, job.state, job.reason) for job in queue.read().jobs[1:]] == [("c", "waiting", ""), ("b", "waiting", "")]
    assert [job.name for job in queue.clear()] == ["a"]


def test_a_damaged_queue_is_one_sentence_and_stays_as_it_is() -> None:
    queue = Queue("runs")
    queue.add([Job(name="a")])
    queue.path.write_text('{"jobs": [')
    with pytest.raises(RunError, match="queue.json is damaged"):
        queue.add([Job(name="b")])
    assert queue.path.read_text() == '{"jobs": ['


def test_several_processes_add_at_once() -> None:
    code = "import sys; from engine.run.queue import Job, Queue\nfor i in range(20): Queue('runs').add([Job(name=sys.argv[1])])"
    adding = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "abc"]
    assert [process.wait(PATIENCE) for process in adding] == [0, 0, 0]
    assert sorted(job.id for job in Queue("runs").read().jobs) == list(range(1, 61))
    assert sorted(names(Queue("runs"))) == sorted("abc" * 20)


# what is trained


def test_a_worker_and_its_job_are_killed_and_nothing_is_lost() -> None:
    Path("net.py").write_text(NET)
    recipe("broken").replace(**{"model.name": "net.py:Broken"}).save(Path("broken.toml"))
    recipe("deadly").replace(**{"model.name": "net.py:Deadly"}).save(Path("deadly.toml"))
    long, last = recipe("long", at=8), recipe("last")
    assert "works on the queue" in called("queue", "add", "broken.toml", "deadly.toml", "long.toml", "last.toml")
    Path("last.toml").write_text("not even TOML")  # the recipe was frozen
    until(Path("waits").exists, "the third job is under way")
    assert job("broken").state == "failed" and "ArithmeticError: mine" in job("broken").reason
    assert job("deadly").state == "failed" and "SIGKILL" in job("deadly").reason
    worker, training = Queue("runs").read().worker, job("long").process
    assert worker is not None and training is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert listed()["long"]["alive"], "the job goes on without its worker"
    os.kill(training.pid, signal.SIGKILL)
    until(lambda: job("long").state == "died", "it is shown so")
    assert next(run for run in Run.list("runs") if run.name.endswith("long")).state == "died"
    assert listed()["last"]["state"] == "waiting"
    Path("go").touch()
    called("queue", "start")
    until(lambda: job("last").state == "finished", "the queue has gone on")
    assert job("long").state == "finished" and len(list(Path("runs").glob("*-long"))) == 1, "the same run went on"
    for name, made in (("long", long), ("last", last)):
        alone = Trainer.from_recipe(made, runs="alone").fit()
        assert alone.run is not None and weights(job(name).run) == weights(alone.run.path)
    until(lambda: not Queue("runs").read().working, "the worker has ended")


@pytest.mark.slow
def test_stopped_it_goes_on_from_there_and_a_signal_to_the_worker_does_the_same() -> None:
    Path("net.py").write_text(NET)
    recipe("long", at=8).replace(**{"training.epochs": 100_000}).save(Path("long.toml"))
    recipe("next")
    called("queue", "add", "long.toml", "next.toml")
    until(Path("waits").exists, "it is under way")
    assert "is still being trained" not in called("queue", "hold")
    Path("go").touch()
    assert "goes on when the queue is started" in called("queue", "stop")
    until(lambda: not Queue("runs").read().working, "the worker has ended")
    stopped = job("long")
    step = Run(Path(stopped.run)).checkpoints.read("last").step
    assert stopped.state == "waiting" and step > 0 and job("next").state == "waiting"
    assert "is held" in called("queue", "add", "next.toml", "--name", "another")
    called("queue", "start")
    until(lambda: job("long").alive and job("long").run, "it goes on")
    until(lambda: Run.list("runs")[0].step > step, "it trains")
    worker = Queue("runs").read().worker
    assert worker is not None and job("long").run == stopped.run
    psutil.Process(worker.pid).terminate()
    until(lambda: not Queue("runs").read().working and job("long").state == "waiting", "worker and job have ended")
    assert Run(Path(stopped.run)).checkpoints.read("last").step > step
    assert not Queue("runs").read().held
    called("queue", "remove", "1")
    called("queue", "start")
    until(lambda: job("another").state == "finished", "the rest is done")
    assert "finished" in called("queue")


def test_a_sweep_in_the_background_is_listed_stopped_and_gone_on_with() -> None:
    Path("flowers.toml").write_text('name = "flowers"\n[data]\nname = "iris"\n[training]\nepochs = 1000000\ndevice = "cpu"\n')
    command = [sys.executable, "-m", "engine", "sweep", "flowers.toml", "seed=0..7", "--background", "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, preexec_fn=as_from_a_shell).stdout)
    begun = listed()["flowers"]
    assert told["job"] == begun["id"] and told["pid"] == begun["process"]["pid"] and begun["direct"]
    until(lambda: all(part.run for part in job("flowers").parts), "all have begun")
    assert [part.label for part in job("flowers").parts] == [f"seed={seed}" for seed in range(8)]
    assert {part.how for part in job("flowers").parts} == {"population of 8"}
    until(lambda: "trained together" in called("queue"), "it is told")
    until(lambda: all(run.state == "running" for run in Run.list("runs")), "they are under way")
    called("queue", "stop", str(told["job"]))
    until(lambda: job("flowers").state == "stopped", "it has stopped")
    assert {run.state for run in Run.list("runs")} == {"stopped"}
    assert all(Run(run.path).checkpoints.read("last").step == run.step > 0 for run in Run.list("runs"))
