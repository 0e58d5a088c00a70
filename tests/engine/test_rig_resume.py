"""Checkpoints at awkward moments: what they hold is exact, and a run that goes on from them is the run that was not cut off."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from engine import Checkpoint, CheckpointError, CheckpointWritten, EpochEnded, Recipe, Run, Trainer
from engine.run import load_history
from tests.engine import plain
from tests.engine.processes import alive, until
from tests.engine.small import Data, parts, some
from tests.torture import life, record

HALFWAY = {"training.validate_steps": 5, "training.epochs": 2, "data.samples": 200, "training.accumulate": 1}


@pytest.mark.parametrize("end", [(10, "stop", ""), (11, "kill", "0"), (13, "kill", "0")], ids=str)
def test_f9_a_checkpoint_between_a_step_and_its_validation(end: life.Act, tmp_path: Path) -> None:
    whole = Trainer.from_recipe(life.recipe(**HALFWAY), runs=tmp_path / "whole")
    whole.fit()
    runs = tmp_path / "cut"
    runs.mkdir()
    process = life.begin(life.scripted, runs / "log", HALFWAY, runs, None, [(10, "checkpoint", ""), end])
    process.join(180)
    assert process.exitcode == (-signal.SIGKILL if end[1] == "kill" else 0), (runs / "log").read_text()
    run = Run.open("last", runs)
    assert run.checkpoints.read().step == 10 or end[1] == "kill"  # the kill may have come before it was written
    Trainer.resume(run.path).fit()
    assert whole.run is not None
    assert record.validations(run) == record.validations(whole.run)
    assert record.digests(run.path / "checkpoints" / "last") == record.digests(whole.run.path / "checkpoints" / "last")
    assert record.digests(run.path / "checkpoints" / "best") == record.digests(whole.run.path / "checkpoints" / "best")


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_e4_every_byte_and_every_length_of_a_trainers_checkpoint(stride: int, tmp_path: Path) -> None:
    """One byte changed anywhere, or one byte too few or many: named as damaged, and the checkpoint before it is used."""
    small = {"model.hidden": [2], "training.ema": None, "scheduler": None, "optimizer.name": "SGD", "data.samples": 40}
    trainer = Trainer.from_recipe(life.recipe(**small, **{"training.epochs": 2}), runs=tmp_path)
    trainer.fit()
    assert trainer.run is not None
    checkpoints = trainer.run.checkpoints
    (before, _), (newest, directory) = checkpoints.list()
    tried = 0
    for path in sorted(directory.iterdir()):
        whole = path.read_bytes()
        places = range(0, len(whole), stride)
        flipped = (whole[:at] + bytes([whole[at] ^ (0xFF if at % 2 else 1 << at % 8)]) + whole[at + 1 :] for at in places)
        lengths = (whole[:length] for length in places)
        for content in itertools.chain(flipped, lengths, [whole + b" ", whole + b"\n"]):
            if path.name == "manifest.json" and content.strip() == whole.strip():  # it says the same
                continue
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=f"step-{newest:08d} is damaged"):
                checkpoints.read(newest)
            tried += 1
            if tried % 100 == 0:
                saved = checkpoints.read()
                assert saved.step == before and len(saved.passed_over) == 1
        path.write_bytes(whole)
    assert checkpoints.read().step == newest
    assert tried > 10_000 / stride
    (directory / "model.safetensors").write_bytes(b"")
    again = Trainer.resume(trainer.run.path)
    assert again.step == before
    assert plain.same(again.fit().model.state_dict(), trainer.parts.model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [("compiled", "eager"), ("eager", "compiled"), ("compiled", "compiled")])
def test_e8_compiled_and_plain_execution_go_on_from_each_other(before: str, after: str, tmp_path: Path) -> None:
    # Neither dropout, which the compiler draws in its own way, nor what makes rounding large: normalization, Adam.
    model = {"model.dropout": 0.0, "model.batch_norm": False}
    plan = {"data.samples": 200, "training.epochs": 2, "optimizer.name": "SGD", "scheduler": None, **model}
    whole = Trainer.from_recipe(life.recipe(**plan, **{"training.execution": "eager"}), runs=None).fit()
    first = Trainer.from_recipe(life.recipe(**plan, **{"training.execution": before}), runs=tmp_path)
    first.on(EpochEnded, lambda event: first.control.stop())
    assert first.fit().state == "stopped"
    assert first.run is not None
    names = first.run.checkpoints.read().tensors["model"].keys()
    assert names == whole.model.state_dict().keys()
    Recipe.load(first.run.recipe_path).replace(**{"training.execution": after}).save(first.run.recipe_path)
    second = Trainer.resume(first.run.path)
    assert second.execution == after
    result = second.fit()
    for name, value in result.model.state_dict().items():
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_e12_a_checkpoint_asked_for_in_the_middle_of_a_window_is_made_at_the_steps_end(tmp_path: Path) -> None:
    plan = {"training.accumulate": 4, "training.epochs": 2, "data.samples": 300}
    whole = Trainer.from_recipe(life.recipe(**plan), runs=tmp_path / "whole")
    whole.fit()
    first = Trainer.from_recipe(life.recipe(**plan), runs=tmp_path / "cut")
    batches = 0
    weights: dict[int, dict[str, Tensor]] = {}

    def ask(module: nn.Module, *_: Any) -> None:
        nonlocal batches
        batches += module.training
        if batches == 6 and module.training:  # the second of the four batches of step 2
            first.control.checkpoint()

    first.parts.model.register_forward_hook(ask)
    first.parts.optimizer.register_step_post_hook(
        lambda *_: weights.update({first.step + 1: {k: v.clone() for k, v in first.parts.model.state_dict().items()}})
    )
    first.on(CheckpointWritten, lambda event: first.control.stop())
    first.fit()
    assert first.run is not None
    saved = first.run.checkpoints.read(2)
    assert saved.state["batch"] == 8
    assert plain.same(saved.tensors["model"], weights[2])
    result = Trainer.resume(first.run.path).fit()
    assert plain.same(result.model.state_dict(), whole.parts.model.state_dict())


class Dying(Dataset):
    """A data worker is killed while it loads sample 40, once."""

    def __init__(self, inputs: Tensor, targets: Tensor, once: Path) -> None:
        self.inputs, self.targets, self.once = inputs, targets, once

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 40 and get_worker_info() is not None and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inputs[index], self.targets[index]


def test_f5_a_data_worker_that_is_killed(digits: Data, tmp_path: Path) -> None:
    def trainer(name: str) -> Trainer:
        loader = DataLoader(Dying(*some(digits, 64), tmp_path / name), batch_size=16, num_workers=1)
        return Trainer(**parts(), train=loader, epochs=2, run_dir=tmp_path / "runs" / name)

    (tmp_path / "never").touch()
    (tmp_path / "runs").mkdir()
    whole = trainer("never").fit()
    result = trainer("once").fit()
    assert result.state == "failed" and result.run is not None
    assert "was killed after step" in result.reason
    assert "fewer data.workers may help" in result.reason and "a resume goes on" in result.reason  # what to do
    assert plain.same(trainer("once").fit().model.state_dict(), whole.model.state_dict())


def test_f5_a_worker_that_is_killed_in_the_middle_of_a_step(digits: Data, tmp_path: Path) -> None:
    """torch would raise its error at once, in whatever the program does: the step is finished, and the record as well."""
    loader = DataLoader(TensorDataset(*some(digits, 320)), batch_size=16, num_workers=1, persistent_workers=True)
    trainer = Trainer(**parts(), train=loader, epochs=2, run_dir=tmp_path / "run")
    interrupted: list[int] = []

    def strike(*_: Any) -> None:
        if trainer.step == 1:
            worker: int = loader._iterator._workers[0].pid  # type: ignore[union-attr]
            os.kill(worker, signal.SIGKILL)
            try:
                until(lambda: not alive(worker), "it is gone, and the signal comes that says so")
            except RuntimeError:
                interrupted.append(trainer.step)

    trainer.parts.optimizer.register_step_post_hook(strike)
    result = trainer.fit()
    assert not interrupted
    assert result.state == "failed" and "was killed after step" in result.reason
    assert result.run is not None and result.run.checkpoints.read().step == trainer.step >= 2
    history = load_history(result.run)
    assert history.ended is not None and [message.text for message in history.messages] == []


@pytest.mark.parametrize("within", [False, True])
def test_f5_the_signal_of_a_killed_worker_comes_at_any_moment(digits: Data, tmp_path: Path, within: bool) -> None:
    """torch raises its error wherever the program is: weights of a step that is not counted yet are not saved."""
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
    batches = [(digits[0][at : at + 16], digits[1][at : at + 16]) for at in range(0, 64, 16)]
    trainers: list[Trainer] = []

    class Loader:
        def __len__(self) -> int:
            return len(batches)

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for number, batch in enumerate(batches):
                if number == 3 and not within and not trainers[1:]:
                    raise killed
                yield batch

    def trainer() -> Trainer:
        own = parts()
        trainers.append(Trainer(**own, train=Loader(), epochs=2, run_dir=tmp_path / "run"))
        return trainers[-1]

    def strike(*_: Any) -> None:
        if trainers[0].step == 2:
            raise killed

    first = trainer()
    if within:
        first.parts.optimizer.register_step_post_hook(strike)
    result = first.fit()
    assert result.state == "failed" and result.run is not None
    assert [step for step, _ in result.run.checkpoints.list()] == ([] if within else [3])
    assert f"goes on from the last {'checkpoint' if within else 'step'}" in result.reason
    last = trainer()
    assert last.step == (0 if within else 3)
    twin = parts()
    for inputs, targets in batches * 2:
        twin["optimizer"].zero_grad()
        twin["loss"](twin["model"](inputs), targets).backward()
        twin["optimizer"].step()
    assert plain.same(last.fit().model.state_dict(), twin["model"].state_dict())


class Faulty(nn.Module):
    """A model whose author made a mistake that shows in the third step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 3:
            raise ValueError("a mistake in my model")
        return self.layer(inputs)  # type: ignore[no-any-return]


def test_f8_an_error_in_the_users_model_points_at_their_line(digits: Data, tmp_path: Path) -> None:
    model = Faulty()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = some(digits, 32)
    trainer = Trainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        train=data,
        batch_size=16,
        epochs=2,
        device="cpu",
        run_dir=tmp_path / "run",
        checkpoint=Checkpoint(min_seconds=0),
    )
    with pytest.raises(ValueError, match="a mistake in my model") as raised:
        trainer.fit()
    frame = raised.traceback[-1]
    assert frame.path == Path(__file__) and 'raise ValueError("a mistake in my model")' in str(frame.statement)
    run = Run.open(tmp_path / "run")
    assert run.checkpoints.read().step == 2
    ended = load_history(run).ended
    assert ended is not None and ended.state == "failed" and "a mistake in my model" in ended.reason
