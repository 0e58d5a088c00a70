"""A run that moved to a faster execution on its own: resumed, it moves at the same step and ends with the same bytes."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Checkpoint, Trainer
from engine.changes import parse_change
from engine.control import Control
from engine.events import EpochEnded, SettingChanged
from engine.execution import whole
from engine.execution.generators import generators_alone
from engine.run import Journal, Run, load_history
from tests.engine.small import some

FURTHER = 3  # epochs after the move
Data = tuple[Tensor, Tensor]


@pytest.fixture(scope="module", autouse=True)
def repaid_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(whole.REPAID, "compiled", 0.0)
        yield


def trainer_at(path: Path, data: Data, control: Control | None = None, every: int = 1) -> Trainer:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.2))
    return Trainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters()),
        train=some(data, 640),
        validation=some(data, 64),
        epochs=10**6,
        seed=3,
        device="cpu",
        execution="auto",
        run_dir=path,
        control=control,
        checkpoint=Checkpoint(every=every, keep=10**6, min_seconds=0.0),
    )


@pytest.fixture(scope="module")
def moved(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A run that was left alone, and the step after which it moved. It was told then how many epochs were left."""
    path, control = tmp_path_factory.mktemp("alone") / "run", Control()
    trainer = trainer_at(path, digits, control)
    at: list[int] = []

    def heard(event: SettingChanged) -> None:
        if event.field == "training.execution":
            at.append(event.step)
            control.change(parse_change(f"epochs={trainer.epoch + 1 + FURTHER}"))

    whole.REPAID["compiled"] = math.inf  # not before there are checkpoints from before the move, however soon it is compiled
    trainer.on(SettingChanged, heard)
    trainer.on(EpochEnded, lambda event: at or tidy(path, event.epoch))
    trainer.on(EpochEnded, lambda event: whole.REPAID.update(compiled=0.0) if event.epoch == 3 else None)
    assert trainer.fit().state == "finished"
    assert len(at) == 1 and trainer.taking == "compiled"
    return path, at[0]


def tidy(path: Path, epoch: int) -> None:
    """Keep the disk free: of the checkpoints before the move the last ones are enough."""
    for old in sorted((path / "checkpoints").glob("step-*"))[:-5]:
        shutil.rmtree(old)


def steps(path: Path) -> list[int]:
    return sorted(int(each.name.partition("-")[2]) for each in (path / "checkpoints").glob("step-*"))


def told(path: Path) -> list[Any]:
    """What the journal says, without clocks; changes that are to be repeated stand where they stood."""
    events, problems = Journal.read(path / "journal.jsonl")
    assert not problems
    kept = [event for event in events if isinstance(event, (EpochEnded, SettingChanged))]
    return [
        (event.step, event.metrics if isinstance(event, EpochEnded) else (event.field, event.value))
        for event in sorted(kept, key=lambda event: (event.step, type(event).__name__))
    ]


@pytest.mark.parametrize("back", ["before the move", "after it"])
def test_resumed_it_moves_at_the_same_step_and_ends_with_the_same_bytes(
    back: str, moved: tuple[Path, int], digits: Data, tmp_path: Path
) -> None:
    alone, at = moved
    path = tmp_path / "run"
    shutil.copytree(alone, path, symlinks=True)
    before = [step for step in steps(alone) if step <= at]
    kept = before[-2] if back == "before the move" else next(step for step in steps(alone) if step > at)
    for step in steps(path):
        if step > kept:
            shutil.rmtree(path / "checkpoints" / f"step-{step:08d}")
    resumed = trainer_at(path, digits)
    assert resumed.step == kept < steps(alone)[-1]
    assert resumed.fit().state == "finished"
    assert resumed.taking == "compiled" and steps(path)[-1] == steps(alone)[-1]
    last = f"checkpoints/step-{steps(alone)[-1]:08d}"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (path / last / name).read_bytes() == (alone / last / name).read_bytes()
    assert told(path) == told(alone)


def test_repeated_it_moves_where_it_did(moved: tuple[Path, int], digits: Data, tmp_path: Path) -> None:
    alone, at = moved
    control = Control()
    again = trainer_at(tmp_path / "again", digits, control, every=10**6)
    again.repeat_execution(load_history(Run.open(alone)))
    again.on(EpochEnded, lambda event: control.stop() if event.step == steps(alone)[-1] else None)
    assert again.fit().state == "stopped"
    assert [(event.field, event.step) for event in again.history.settings] == [("training.execution", at)]
    last = f"checkpoints/step-{steps(alone)[-1]:08d}"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (tmp_path / "again" / last / name).read_bytes() == (alone / last / name).read_bytes()


def test_a_thread_that_compiles_leaves_the_generators_to_the_training() -> None:
    """torch puts them back, when it has compiled, to where they were when it began."""
    from torch._dynamo.utils import preserve_rng_state

    begun, drawn = threading.Event(), threading.Event()

    def compiles() -> None:
        with generators_alone(), preserve_rng_state():
            begun.set()
            drawn.wait(60)

    torch.manual_seed(5)
    expected = torch.rand(4).tolist()
    torch.manual_seed(5)
    thread = threading.Thread(target=compiles)
    thread.start()
    begun.wait(60)
    found = torch.rand(2).tolist()
    drawn.set()
    thread.join()
    assert found + torch.rand(2).tolist() == expected
