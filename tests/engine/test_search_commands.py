"""Searches by command, by torchrun and from the queue: what is printed, stopped and gone on with."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

from engine import Search
from engine.cli import main
from engine.control import Control
from engine.jobs import JobTrainer
from engine.run import Run
from engine.run.queue import Job, Queue
from tests.engine.processes import until
from tests.engine.test_search import as_optuna_reads_it, told

RECIPE = """
name = "lilies"
[data]
name = "iris"
[training]
epochs = 1
device = "cpu"
[search]
trials = 2
[search.space]
"optimizer.lr" = { low = 1e-3, high = 1e-1, log = true }
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return "recipe.toml"


def test_the_command_searches_goes_on_and_shows(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", recipe]) == 0
    out = capsys.readouterr().out
    assert "1/2  trial 0  lr=" in out and "best ★" in out and "runs/searches/lilies: 2 of 2 trials · 2 finished" in out
    assert "\ntrain it  epochal train runs/searches/lilies/best.toml\n" in out
    assert main(["search", "lilies", "--trials", "3"]) == 0
    assert "3/3  trial 2" in capsys.readouterr().out
    assert main(["search", "--show", "lilies", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    rows = shown["rows"]
    assert [row["state"] for row in rows] == ["finished"] * 3 and shown["limit"] == 3
    assert shown["best"] == rows[0]["number"] and rows[0]["value"] == min(row["value"] for row in rows)
    assert main(["search", "--show", rows[1]["run"]]) == main(["search", "--show"]) == 0, "by the run of a trial; the newest"
    assert main(["train", "runs/searches/lilies/best.toml", "--quiet"]) == 0
    assert main(["search", recipe, "--set", "model.hidden=[4]"]) == 2
    assert "holds a search of another recipe, which differs in model.hidden" in capsys.readouterr().err
    assert main(["search", "lilies", "--stop"]) == 2
    assert "nobody works on" in capsys.readouterr().err
    assert main(["search", "lillies", "--show"]) == 2
    assert "the nearest is 'lilies'" in capsys.readouterr().err


def test_train_trains_the_recipe_itself_and_says_so(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe]) == 0
    assert "this trains the recipe itself: epochal search recipe.toml" in capsys.readouterr().err
    assert not Path("runs/searches").exists()


def test_settings_reach_the_search(recipe: str) -> None:
    wider = "search.space.model.hidden=[[4], [8]]"
    assert main(["search", recipe, "--quiet", "--trials", "1", "--sampler", "random", "--set", wider]) == 0
    plan = Search.open("lilies").folder.plan
    assert plan.limit == 1 and plan.sampler[0] == "random" and list(plan.space) == ["optimizer.lr", "model.hidden"]


def test_a_rank_of_torchrun_is_one_worker(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "x"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(key, value)
    assert main(["search", recipe, "--workers", "4"]) == 0
    assert "RANK" not in os.environ, "a trial is one process"
    assert len(as_optuna_reads_it(Search.open("lilies")).trials) == 2


MEETS = """
import os
import time
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape[0], output_size)

    def forward(self, x):
        Path(f"worker-{os.getpid()}").touch()
        while len(list(Path().glob("worker-*"))) < 2:  # the other one may begin late
            time.sleep(0.01)
        return super().forward(x)
"""


@pytest.mark.slow
def test_several_workers_share_one_search(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text(MEETS)
    assert main(["search", recipe, "--workers", "2", "--trials", "8", "--model", "net.py:Net"]) == 0
    study = as_optuna_reads_it(Search.open("lilies"))
    assert sorted(trial.number for trial in study.trials) == [*range(8)], "none too many"
    assert len({trial.user_attrs["worker"] for trial in study.trials}) == 2
    assert all(math.isfinite(trial.value) for trial in study.trials if trial.value is not None)
    assert "8 of 8 trials" in capsys.readouterr().out


# in the queue

WAITS = """
import time
from pathlib import Path
from torch import nn

class Net(nn.Linear):
    def __init__(self, input_shape, output_size):
        super().__init__(input_shape[0], output_size)

    def forward(self, x):
        while self.training and not Path("go").exists():
            Path("waits").touch()
            time.sleep(0.01)
        return super().forward(x)
"""


def queued(queue: Queue) -> Job:
    (job,) = queue.read().jobs
    return job


def trained(queue: Queue, watch: Callable[[Control], None] = lambda control: None) -> Job:
    """The job after a process, this one, has trained it."""
    JobTrainer(queue, 1, begun=lambda run: None).train(watch)
    return queued(queue)


def test_a_search_in_the_queue_is_stopped_and_goes_on(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text(WAITS)
    assert main(["queue", "add", recipe, "--hold", "--model", "net.py:Net", "--runs", "queued"]) == 0
    queue = Queue("queued")
    assert Path(queued(queue).search) == Path("queued/searches/lilies").absolute()

    def stop(control: Control) -> None:
        until(Path("waits").exists, "a trial trains")
        queue.stop()
        until(lambda: control.stopping, "the search is asked to stop")
        Path("go").touch()

    job = trained(queue, lambda control: threading.Thread(target=stop, args=[control], daemon=True).start())
    assert (job.state, job.trials, job.best) == ("waiting", 0, "") and Run.list("queued")[0].state == "stopped"
    job = trained(queue)
    assert main(["search", recipe, "--quiet", "--model", "net.py:Net"]) == 0
    undisturbed, gone_on = Search.open("lilies"), Search.open("lilies", runs="queued")
    assert told(gone_on) == told(undisturbed)
    study = as_optuna_reads_it(gone_on)
    assert (job.state, job.trials, job.limit) == ("finished", len(study.trials), len(study.trials))
    assert job.best == f"val/loss {study.best_value:.4g} in trial {study.best_trial.number}" and job.best in job.reason
    capsys.readouterr()
    assert main(["queue", "--runs", "queued"]) == 0
    assert f"2/2 trials  {job.best}" in capsys.readouterr().out


def test_a_search_that_is_there_is_queued_by_its_name(recipe: str) -> None:
    assert main(["search", recipe, "--quiet"]) == 0
    assert main(["queue", "add", "--resume", "lilies", "--hold"]) == 0
    assert trained(Queue("runs")).reason.startswith("the search lilies finished: val/loss")


def test_a_search_of_nothing_but_failures_fails_in_the_queue(recipe: str) -> None:
    Path("net.py").write_text(WAITS.replace("while", "raise ArithmeticError('mine')\n        while"))
    assert main(["queue", "add", recipe, "--hold", "--model", "net.py:Net"]) == 0
    job = trained(Queue("runs"))
    assert job.state == "failed" and "no trial came to its end" in job.reason


@pytest.mark.slow
def test_the_workers_of_a_queued_search_are_processes(recipe: str) -> None:
    assert main(["queue", "add", recipe, "--hold", "--set", "search.workers=2", "--set", "search.trials=4"]) == 0
    job = trained(Queue("runs"))
    assert (job.state, job.trials) == ("finished", 4)
    workers = {trial.user_attrs["worker"] for trial in as_optuna_reads_it(Search.open("lilies")).trials}
    assert not any(worker.endswith(f"-{os.getpid()}") for worker in workers)


def test_a_sweep_of_a_recipe_with_a_search_is_refused(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "add", recipe, "seed=0,1"]) == 2
    assert "several values are a sweep, and the recipe has a [search]" in capsys.readouterr().err
