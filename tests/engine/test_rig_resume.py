"""Checkpoints at awkward moments: what they hold is exact, and a run that goes on from them is the run that was not cut off."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from engine import Run, Trainer
from tests.torture import life, record

HALFWAY = {"training.validate_steps": 5, "training.epochs": 2, "data.samples": 200, "training.accumulate": 1}


@pytest.mark.parametrize("end", [(10, "stop", ""), (11, "kill", "0"), (13, "kill", "0")], ids=str)
def test_f9_a_checkpoint_between_a_step_and_its_validation(end: life.Act, tmp_path: Path) -> None:
    whole = Trainer.from_recipe(life.recipe(**HALFWAY), runs=tmp_path / "whole")
    whole.fit()
    runs = tmp_path / "cut"
    runs.mkdir()
    process = life.begin(life.scripted, runs / "log", HALFWAY, runs, None, [(10, "checkpoint", ""), end])
    process.join(60)
    assert process.exitcode == (-signal.SIGKILL if end[1] == "kill" else 0), (runs / "log").read_text()
    run = Run.open("last", runs)
    assert run.checkpoints.read().step == 10 or end[1] == "kill"  # the kill may have come before it was written
    Trainer.resume(run.path).fit()
    assert whole.run is not None
    assert record.validations(run) == record.validations(whole.run)
    assert record.digests(run.path / "checkpoints" / "last") == record.digests(whole.run.path / "checkpoints" / "last")
    assert record.digests(run.path / "checkpoints" / "best") == record.digests(whole.run.path / "checkpoints" / "best")
