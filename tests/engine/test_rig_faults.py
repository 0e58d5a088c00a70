"""A disk that fails, and a kill, at every file operation of a whole training: nothing is lost, nothing is told twice."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import EpochalError, Message, Run, Trainer
from engine.events import CheckpointFailed
from engine.training import fitting, recorder, trainer_state
from tests.engine import plain
from tests.torture import disk, life, record

SMALL = {"training.epochs": 2, "data.samples": 100, "training.accumulate": 1}  # 5 steps an epoch


@pytest.fixture(scope="module", autouse=True)
def hurry() -> Iterator[None]:
    """Nothing is waited for; and nothing is written because so many seconds have passed, of which a busy machine takes more."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fitting, "RETRY_SECONDS", 0.01)
        patched.setattr(recorder, "HEARTBEAT_SECONDS", 1e6)
        patched.setattr(trainer_state, "REPORT_SECONDS", 1e6)
        yield


def new(runs: Path, **changes: Any) -> Trainer:
    return Trainer.from_recipe(life.recipe(**SMALL, **changes), runs=runs)


class Whole:
    """The training on a disk that never fails."""

    def __init__(self, runs: Path) -> None:
        trainer = new(runs)
        with disk.failing(lambda number, name: None) as self.operations:
            trainer.fit()
        assert trainer.run is not None
        self.weights, self.step = trainer.parts.model.state_dict(), trainer.step
        self.steps, self.validations = record.steps(trainer.run), record.validations(trainer.run)

    def assert_resumes(self, path: Path, where: str) -> None:
        """What is on the disk is old or new, and leads to the same end."""
        torch.manual_seed(999)  # another process: its generators are anywhere
        trainer = Trainer.resume(path)
        assert not [message for message in trainer.history.messages if "damaged" in message.text], where
        assert trainer.fit().state == "finished", where
        self.assert_same(trainer, where)

    def assert_same(self, trainer: Trainer, where: str) -> None:
        assert trainer.run is not None
        assert plain.same(trainer.parts.model.state_dict(), self.weights), where
        assert record.steps(trainer.run) == self.steps, where
        assert record.validations(trainer.run) == self.validations, where
        saved = trainer.run.checkpoints.read("last")
        assert saved.step == self.step and not saved.passed_over, where
        assert plain.same(saved.tensors["model"], self.weights), where
        assert record.litter(trainer.run) == [], where


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


STRIDES = pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.slow)])


def each_call(attempt: Callable[[int], list[str]], stride: int) -> int:
    """Call `attempt(0)`, `attempt(stride)`, … until one makes fewer operations than that."""
    call = 0
    while len(attempt(call)) > call:
        call += stride
    return call


def begin(runs: Path, where: str, **changes: Any) -> Trainer | None:
    """A trainer; None where the disk did not take its directory: that is told in one sentence, and nothing is left."""
    try:
        return new(runs, **changes)
    except EpochalError as error:
        assert "\n" not in str(error), where
        assert list(runs.iterdir()) == [], where
        return None


@STRIDES
def test_e2_one_failure_at_every_file_operation_of_a_training(whole: Whole, tmp_path: Path, stride: int) -> None:
    def attempt(call: int) -> list[str]:
        with disk.failing(lambda number, name: disk.error(call) if number == call else None) as done:
            where = f"operation {call}"
            trainer = begin(tmp_path / str(call), where)
            if trainer is None:
                return done
            failed: list[Any] = []
            trainer.on(CheckpointFailed, failed.append)
            trainer.on(Message, failed.append)
            assert trainer.fit().state == "finished", where
        where = f"operation {call}: {done[call] if len(done) > call else 'none'}"
        assert trainer.run is not None
        whole.assert_same(trainer, where)
        if "/checkpoints" in where:
            assert failed, where
        whole.assert_resumes(trainer.run.path, where)
        return done

    assert each_call(attempt, stride) >= len(whole.operations)


@pytest.mark.parametrize("for_ever", [False, True])
def test_e2_a_disk_that_is_full_from_any_file_operation_on(whole: Whole, tmp_path: Path, for_ever: bool) -> None:
    def attempt(call: int) -> list[str]:
        last = 10**9 if for_ever else call + 25
        patience = {"checkpoint.retry_minutes": 0.0 if for_ever else 1.0}

        def fail(number: int, name: str) -> OSError | None:
            return disk.full() if call <= number < last and name in disk.FILLING else None

        with disk.failing(fail) as done:
            where = f"operation {call}"
            trainer = begin(tmp_path / str(call), where, **patience)
            if trainer is None:
                return done
            result = trainer.fit()
        where = f"full from operation {call} on: {done[call] if len(done) > call else 'none'}"
        assert plain.same(result.model.state_dict(), whole.weights), where
        assert trainer.run is not None
        del trainer, result
        whole.assert_resumes(Run.open("last", tmp_path / str(call)).path, where)
        return done

    assert each_call(attempt, stride=5) >= len(whole.operations)


@STRIDES
def test_e2_one_failure_at_every_file_operation_of_a_resume(whole: Whole, tmp_path: Path, stride: int) -> None:
    def attempt(call: int) -> list[str]:
        first = new(tmp_path / str(call))
        first.parts.optimizer.register_step_post_hook(lambda *_: first.control.stop() if first.step == 6 else None)
        assert first.fit().state == "stopped"
        assert first.run is not None
        with disk.failing(lambda number, name: disk.error(call) if number == call else None) as done:
            where = f"operation {call}"
            try:
                trainer = Trainer.resume(first.run.path)
            except EpochalError as error:
                assert "\n" not in str(error), where
                trainer = None
            if trainer is not None:
                assert trainer.fit().state == "finished", where
        where = f"operation {call}: {done[call] if len(done) > call else 'none'}"
        if trainer is not None:
            whole.assert_same(trainer, where)
        whole.assert_resumes(first.run.path, where)
        return done

    assert each_call(attempt, stride) > 20


@STRIDES
def test_e1_killed_at_every_file_operation_of_a_training(whole: Whole, tmp_path: Path, stride: int) -> None:
    recipe = tmp_path / "recipe.toml"
    life.recipe(**SMALL).save(recipe)
    call, killed = 0, True
    while killed:
        runs = tmp_path / str(call)
        runs.mkdir()
        process = life.begin(life.killed_at, runs / "log", call, ["train", str(recipe), "--runs", str(runs), "--quiet"])
        process.join(180)
        killed = process.exitcode == -signal.SIGKILL
        assert killed or process.exitcode == 0, (runs / "log").read_text()
        found = [path for path in runs.glob("*-torture") if (path / "recipe.toml").exists()]
        where = f"killed in operation {call}"
        assert found or call < 12, where
        if found:
            steps = record.steps(Run(found[0]))
            assert steps == whole.steps[: len(steps)], where
            whole.assert_resumes(found[0], where)
        call += stride
    assert call >= len(whole.operations)
