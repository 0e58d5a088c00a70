"""What a launched process knows of its launcher and of earlier attempts, and what a launcher makes of a death; no processes."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.cli.signals import Signals
from engine.distributed import launched
from engine.distributed.attempt import store_of_this_attempt
from engine.distributed.launch import _death
from engine.run import Run

pytestmark = pytest.mark.usefixtures("in_a_shell")


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


def test_restarts_are_for_several_processes() -> None:
    from engine.cli import main

    assert main(["train", "--data", "iris", "--restarts", "2"]) == 2


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
