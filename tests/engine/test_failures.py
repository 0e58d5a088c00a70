"""What ends a run without being a bug: memory that ran out, a disk that stays full, a wait that is cut short."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from engine import CheckpointWritten, EpochEnded, Run, Trainer
from engine.control import StopWaiting
from engine.events import CheckpointFailed, Event, Progress
from engine.execution.compiled import Compiled
from engine.recipe import Checkpoint
from engine.run import files
from engine.training.failures import explain
from tests.engine import plain
from tests.engine.small import Data, parts, some

NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB"


class Hungry(nn.Module):
    """Runs out of memory in one call of its forward or backward pass."""

    def __init__(self, inside: nn.Module, call: int, error: Exception, norm: bool = False) -> None:
        super().__init__()
        self.inside, self.left, self.error = inside, call, error
        self.norm = nn.BatchNorm1d(64) if norm else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        self.left -= self.training
        if self.left == 0:
            raise self.error
        return self.inside(self.norm(inputs))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(NO_MEMORY), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_f6_out_of_memory_leaves_the_weights_of_the_last_step(digits: Data, tmp_path: Path, error: Exception) -> None:
    own = parts()
    model = Hungry(own["model"], 4, error)
    trainer = Trainer(**own | {"model": model}, train=some(digits, 320), batch_size=32, epochs=2, run_dir=tmp_path / "run")
    result = trainer.fit()
    assert result.state == "failed" and trainer.step == 3
    assert "out of memory on cpu after step 3" in result.reason and "GiB in all" in result.reason
    assert "data.batch_size = 16 with training.accumulate = 2 gives the same gradient" in result.reason
    assert "batch normalization" not in result.reason
    ended = trainer.history.ended
    assert ended is not None and ended.proposal == {"data.batch_size": 16, "training.accumulate": 2}
    saved = Run.open(tmp_path / "run").checkpoints.read("last")
    assert saved.step == 3 and plain.same(saved.tensors["model"], model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters()), "what the failed step held is let go"

    model.left = 0  # there is room now
    again = Trainer(**own | {"model": model}, train=some(digits, 320), batch_size=32, epochs=2, run_dir=tmp_path / "run")
    assert again.fit().state == "finished"
    twice = parts()
    plain.train(twice["model"], twice["loss"], twice["optimizer"], some(digits, 320), epochs=2)
    assert plain.same(own["model"].state_dict(), twice["model"].state_dict())


def test_f6_odd_batches_and_batch_normalization(digits: Data) -> None:
    own = parts()
    model = Hungry(own["model"], 2, torch.OutOfMemoryError(NO_MEMORY), norm=True)
    result = Trainer(**own | {"model": model}, train=some(digits, 45), batch_size=15, accumulate=2, epochs=3).fit()
    assert "data.batch_size = 5 with training.accumulate = 6" in result.reason
    assert "but for batch normalization" in result.reason


def test_f6_while_the_weights_are_updated_nothing_is_saved(digits: Data, tmp_path: Path) -> None:
    """Some are new then and some old: the checkpoint before is what counts."""
    own = parts()
    optimizer = torch.optim.Adam(own["model"].parameters())
    trainer = Trainer(
        **own | {"optimizer": optimizer},
        train=some(digits, 64),
        epochs=4,
        run_dir=tmp_path / "run",
        checkpoint=Checkpoint(min_seconds=0.0),
    )
    calls = 0

    def runs_out(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise torch.OutOfMemoryError(NO_MEMORY)

    optimizer.register_step_post_hook(runs_out)  # called from within torch's step
    result = trainer.fit()
    assert result.state == "failed" and "those of the last checkpoint are sound" in result.reason
    assert Run.open(tmp_path / "run").checkpoints.read("last").step == 4


def test_f6_in_a_burst_of_compiled_steps_some_may_be_taken_already(digits: Data) -> None:
    trainer = Trainer(**parts(), train=some(digits, 64))
    taker = Compiled(trainer.loop)

    def runs_out(_: Any) -> None:
        raise torch.OutOfMemoryError(NO_MEMORY)

    taker._call, taker._groups = runs_out, trainer.parts.optimizer.param_groups
    with pytest.raises(torch.OutOfMemoryError) as caught:
        taker.burst([some(digits, 64)], iter(()), 8)
    failure = explain(caught.value, trainer)
    assert failure is not None and not failure.sound


def test_a_full_disk_at_the_end_is_tried_again(digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what was trained is not lost because the disk was full at the wrong moment."""
    real, refused = files.make_directory, 0

    def full(path: Path) -> None:
        nonlocal refused
        if path.name.startswith(".new-") and refused < 2:
            refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(files, "make_directory", full)
    monkeypatch.setattr("engine.training.fitting.RETRY_SECONDS", 0.01)
    trainer = Trainer(**parts(), train=some(digits, 64), epochs=2, run_dir=tmp_path / "run")
    stated: list[Event] = []
    trainer.on(Event, stated.append)
    result = trainer.fit()
    assert result.state == "finished" and refused == 2
    kinds = [type(event) for event in stated if isinstance(event, (CheckpointFailed, CheckpointWritten))]
    assert kinds == [CheckpointFailed, CheckpointFailed, CheckpointWritten]
    saving = {event.epoch for event in stated if isinstance(event, Progress) and event.phase == "save"}
    assert saving == {2}, "there is no third epoch"
    assert trainer.history.failed_save is None
    saved = Run.open(tmp_path / "run").checkpoints.read("last")
    assert plain.same(saved.tensors["model"], trainer.parts.model.state_dict())


def test_a_run_whose_directory_was_removed_says_so(digits: Data, tmp_path: Path) -> None:
    checkpoint = Checkpoint(retry_minutes=0.0)
    trainer = Trainer(**parts(), train=some(digits, 64), epochs=1, run_dir=tmp_path / "run", checkpoint=checkpoint)
    trainer.on(Progress, lambda _: shutil.rmtree(tmp_path / "run", ignore_errors=True))
    result = trainer.fit()
    assert trainer.history.failed_save is not None
    assert trainer.history.failed_save.reason == f"{tmp_path / 'run'} is gone" and "is gone" in result.reason


def test_a_disk_that_stays_full_is_said_and_the_model_is_there(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer = Trainer(
        **parts(),
        train=some(digits, 64),
        epochs=3,
        run_dir=tmp_path / "run",
        checkpoint=Checkpoint(min_seconds=0.0, retry_minutes=0.0),
    )
    monkeypatch.setattr(files, "make_directory", full)
    ended: list[EpochEnded] = []
    trainer.on(EpochEnded, ended.append)
    result = trainer.fit()
    assert len(ended) == 3, "the training went on"
    assert result.state == "failed" and "No space left on device" in result.reason and "all 3 epochs done" in result.reason
    reference = parts()
    plain.train(reference["model"], reference["loss"], reference["optimizer"], some(digits, 64), epochs=3)
    assert plain.same(result.model.state_dict(), reference["model"].state_dict())


class Slow(Dataset):  # type: ignore[type-arg]
    """Sample 70 takes for ever: a signal's handler, here called by the sample itself, cuts the wait short."""

    def __init__(self, data: Data, trainer: list[Trainer]) -> None:
        self.data, self.trainer = data, trainer
        self.cut = True

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 70 and self.cut:
            self.trainer[0].control.stop("terminated (SIGTERM)")
            assert self.trainer[0].control.waiting
            raise StopWaiting
        return self.data[0][index], self.data[1][index]


@pytest.mark.parametrize("in_validation", [False, True])
def test_f1_a_wait_for_data_is_cut_short(digits: Data, tmp_path: Path, in_validation: bool) -> None:
    made: list[Trainer] = []
    train, validation = Slow(some(digits, 96), made), Slow(some(digits, 96), made)
    (train if in_validation else validation).cut = False

    def trainer() -> Trainer:
        return Trainer(**parts(), train=train, validation=validation, batch_size=8, epochs=2, run_dir=tmp_path / "run")

    made.append(trainer())
    result = made[0].fit()
    assert result.state == "stopped" and result.reason == "terminated (SIGTERM)" and not made[0].control.waiting
    train.cut = validation.cut = False
    again = trainer()
    assert again.step == made[0].step <= 12
    again.fit()
    whole = Trainer(**parts(), train=train, validation=validation, batch_size=8, epochs=2)
    whole.fit()
    assert plain.same(again.parts.model.state_dict(), whole.parts.model.state_dict())
    assert [row["val/loss"] for row in again.fit().history] == [row["val/loss"] for row in whole.fit().history]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writing a checkpoint takes until this is set."""
    go = threading.Event()
    real = files.fill

    def slow(*arguments: Any) -> None:
        assert go.wait(60)
        real(*arguments)

    monkeypatch.setattr(files, "fill", slow)
    yield go
    go.set()


def test_e7_the_training_goes_on_while_a_checkpoint_is_written(digits: Data, tmp_path: Path, held: threading.Event) -> None:
    """And what is written is the step that was asked for, whatever the weights have become."""
    own = parts()
    trainer = Trainer(**own, train=some(digits, 320), epochs=2, run_dir=tmp_path / "run")
    weights: dict[int, dict[str, Tensor]] = {}

    def look(*_: Any) -> None:
        step = len(weights) + 1
        weights[step] = {name: value.clone() for name, value in own["model"].state_dict().items()}
        if step == 3:
            trainer.control.checkpoint()
        if step == 12:  # nine steps were taken meanwhile
            held.set()

    own["optimizer"].register_step_post_hook(look)
    trainer.fit()
    saved = Run.open(tmp_path / "run").checkpoints.read(3)
    assert plain.same(saved.tensors["model"], weights[3]) and not plain.same(weights[3], weights[12])
