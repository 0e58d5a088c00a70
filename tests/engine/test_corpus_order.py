"""Group D of the corpus through whole recipes: order and randomness with one's own data set, augmentation and workers.

What tensors in memory and single loaders do is in test_resume.py and test_batches.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from engine import Recipe, RunError, Trained, Trainer
from engine.data.order import order
from engine.errors import EpochalError, RecipeError
from tests.engine import plain

SAMPLES, BATCH, EPOCHS, STEPS, SEED = 22, 5, 3, 5, 3  # 22 samples make 5 steps an epoch, the last one of two samples

OWN = '''
import os

import torch
from torch import nn
from torch.utils.data import Dataset

generator = torch.Generator().manual_seed(1)
FEATURES = torch.randn(30, 4, generator=generator) + float(os.environ.get("SHIFT", "0"))
CLASSES = torch.arange(30) % 3


class Noisy(Dataset):
    """Each look at a sample is another one, by torch's global generator; each is written down."""

    def __init__(self, first, last):
        self.first, self.last, self.targets = first, last, CLASSES[first:last]

    def __len__(self):
        return self.last - self.first

    def __getitem__(self, index):
        with open("loaded.txt", "a") as file:
            file.write(f"{self.first + index}\\n")
        return FEATURES[self.first + index] + 0.1 * torch.randn(4), int(CLASSES[self.first + index])


def alone(): return Noisy(0, 22)
def both(): return Noisy(0, 22), Noisy(22, 30)
def arrays(): return (FEATURES[:22], CLASSES[:22]), (FEATURES[22:], CLASSES[22:])


class Net(nn.Module):
    def __init__(self, output_size: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, output_size))

    def forward(self, x):
        return self.layers(x)
'''


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)


def recipe(data: str = "both", workers: int = 0, **changes: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "name": "order",
            "seed": SEED,
            "data": {"name": f"own.py:{data}", "batch_size": BATCH, "validation": 0.0, "workers": workers},
            "model": {"name": "own.py:Net"},
            "loss": {"name": "CrossEntropyLoss"},
            "optimizer": {"name": "Adam", "lr": 0.01},
            "training": {"epochs": EPOCHS, "device": "cpu"},
            "checkpoint": {"min_seconds": 0.0},
        }
    ).replace(**changes)


def loaded() -> list[int]:
    """The training samples that were looked at since the last call. With workers they come in the workers' order."""
    path = Path("loaded.txt")
    seen = [int(line) for line in path.read_text().split()] if path.exists() else []
    seen = [index for index in seen if index < SAMPLES]  # the others are for validation
    path.unlink(missing_ok=True)
    return seen


def stop_at(trainer: Trainer, step: int) -> None:
    """Ask for a stop while that step is being taken."""

    def look(*_: Any) -> None:
        if trainer.step + 1 == step:
            trainer.control.stop()

    trainer.parts.optimizer.register_step_post_hook(look)


def facts(trainer: Trainer) -> tuple[Any, ...]:
    """All that two runs must agree in, times left out."""
    series = {name: trainer.history.series[name].columns() for name in ("train/loss", "lr")}
    return series, [(e.epoch, e.step, dict(e.metrics), e.lr, e.best) for e in trainer.history.epochs]


def assert_same(one: Trainer, other: Trainer) -> None:
    assert plain.same(one.parts.model.state_dict(), other.parts.model.state_dict())
    ours, theirs = one.parts.optimizer.state_dict(), other.parts.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"] and ours["state"].keys() == theirs["state"].keys()
    assert all(plain.same(ours["state"][key], theirs["state"][key]) for key in theirs["state"])
    assert facts(one) == facts(other)


EVERY = [pytest.param(step, marks=() if step in (1, 5, 8, 14) else pytest.mark.slow) for step in range(1, EPOCHS * STEPS)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", EVERY)
def test_d1_stopped_at_a_step_and_resumed_with_augmentation_and_workers(step: int, workers: int) -> None:
    whole = Trainer.from_recipe(recipe(), runs="whole")
    whole.fit()
    first = Trainer.from_recipe(recipe(workers=workers), runs="runs")
    stop_at(first, step)
    assert first.fit().state == "stopped" and first.step == step
    assert first.run is not None
    torch.manual_seed(999)  # another process: its generators are anywhere
    second = Trainer.resume(first.run.path)
    assert second.fit().state == "finished"
    assert_same(second, whole)


def test_d2_after_a_resume_at_the_boundary_the_order_is_the_next_epochs() -> None:
    first = Trainer.from_recipe(recipe(), runs="runs")
    stop_at(first, STEPS)
    loaded()
    first.fit()
    assert first.run is not None
    one = loaded()
    second = Trainer.resume(first.run.path)
    stop_at(second, 2 * STEPS)
    loaded()
    second.fit()
    two = loaded()
    assert sorted(one) == sorted(two) == list(range(SAMPLES))
    assert (one, two) == tuple(order(SAMPLES, SEED, epoch, True).tolist() for epoch in (1, 2))
    assert one != two


def test_d3_a_resume_in_the_middle_loads_nothing_before_its_place() -> None:
    first = Trainer.from_recipe(recipe(**{"training.epochs": 2}), runs="runs")
    stop_at(first, STEPS + 3)
    first.fit()
    assert first.run is not None
    second = Trainer.resume(first.run.path)
    loaded()
    second.fit()
    assert loaded() == order(SAMPLES, SEED, 2, True).tolist()[3 * BATCH :]


@pytest.mark.parametrize("workers", [0, 2])
def test_d4_validation_changes_neither_order_nor_dropout_nor_augmentation(workers: int) -> None:
    runs: list[Trainer] = []
    losses: list[list[float]] = []
    for data, changes in (("alone", {}), ("both", {}), ("both", {"training.validate_steps": 2})):
        seen: list[float] = []
        runs.append(Trainer.from_recipe(recipe(data, workers, **changes), runs=None))  # seeds; then it trains at once
        runs[-1].on(Trained, lambda event, seen=seen: seen.extend(event.loss))
        runs[-1].fit()
        losses.append(seen)
    assert losses[0] == losses[1] == losses[2] and len(losses[0]) == EPOCHS * STEPS
    for trainer in runs[1:]:
        assert plain.same(trainer.parts.model.state_dict(), runs[0].parts.model.state_dict())


@pytest.mark.parametrize("data", ["alone", "arrays"])
def test_d5_a_lone_sample_under_batch_normalization_is_reported_with_the_way_out(data: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Trainer.from_recipe(recipe(data, **{"data.batch_size": 7}), runs="runs")  # 22 = 3 * 7 + 1
    assert [problem.field for problem in caught.value.problems] == ["data.batch_size"]
    sentence = str(caught.value)
    assert "batch normalization" in sentence and "7" in sentence and "drop_last" in sentence and "\n" not in sentence
    assert not Path("runs").exists()
    way_out = recipe(data, **{"data.batch_size": 7, "data.drop_last": True, "training.epochs": 1})
    assert Trainer.from_recipe(way_out, runs=None).fit().state == "finished"
    other = recipe(data, **{"data.batch_size": 8, "training.epochs": 1})
    assert Trainer.from_recipe(other, runs=None).fit().state == "finished"


@pytest.mark.parametrize("data", ["alone", "arrays"])
def test_d6_a_batch_larger_than_the_data_with_drop_last_says_that_there_are_0_steps(data: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Trainer.from_recipe(recipe(data, **{"data.batch_size": 23, "data.drop_last": True}), runs="runs")
    sentence = str(caught.value)
    assert "0 steps" in sentence and "22" in sentence and "\n" not in sentence
    assert not Path("runs").exists()


@pytest.mark.parametrize("data", ["alone", "arrays"])
@pytest.mark.parametrize("step", [3, STEPS])
def test_d7_data_that_changed_since_the_checkpoint_are_refused(data: str, step: int) -> None:
    first = Trainer.from_recipe(recipe(data), runs="runs")
    stop_at(first, step)
    first.fit()
    assert first.run is not None
    before = {path: path.read_bytes() for path in first.run.path.rglob("*") if path.is_file()}
    Path("own.py").write_text(OWN.replace("+ float(os", "+ 1.0 + float(os"))
    with pytest.raises(EpochalError) as caught:
        Trainer.resume(first.run.path)
    sentence = str(caught.value)
    assert "\n" not in sentence and "data" in sentence and "is not that of" in sentence
    assert {path: path.read_bytes() for path in first.run.path.rglob("*") if path.is_file()} == before

    Path("own.py").write_text(f"# the same data in another file\n{OWN}")
    assert Trainer.resume(first.run.path).fit().state == "finished"


class Stream(IterableDataset):
    """Samples without a length, endless or not; the same ones from the start of each walk."""

    def __init__(self, samples: int | None) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        index = 0
        while self.samples is None or index < self.samples:
            generator = torch.Generator().manual_seed(index)
            yield torch.randn(4, generator=generator), torch.tensor(index % 3)
            index += 1


class Endless:
    """Batches for ever, of a class that knows nothing of torch's loaders."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for samples in iter(lambda: list(zip(range(BATCH), Stream(None), strict=False)), None):
            yield torch.stack([x for _, (x, _) in samples]), torch.stack([y for _, (_, y) in samples])


LOADERS: dict[str, Callable[[], Any]] = {
    "stream": lambda: DataLoader(Stream(22), BATCH),
    "endless stream": lambda: DataLoader(Stream(None), BATCH),
    "endless batches": Endless,
    "with a length": lambda: DataLoader(TensorDataset(torch.randn(22, 4), torch.arange(22) % 3), BATCH),
}


def own_trainer(loader: Any, steps: int, **more: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Trainer(
        model=model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, train=loader, max_steps=steps, device="cpu", **more
    )


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("steps", [3, 5, 12])
def test_d8_a_step_budget_is_kept_to_the_step(kind: str, steps: int) -> None:
    taken = 0

    def count(*_: Any) -> None:
        nonlocal taken
        taken += 1

    trainer = own_trainer(LOADERS[kind](), steps)
    trainer.parts.optimizer.register_step_post_hook(count)
    result = trainer.fit()
    assert (result.state, trainer.step, taken) == ("finished", steps, steps)
    assert str(steps) in result.reason
    assert result.history and result.history[-1]["train/loss"] > 0


def test_d8_an_endless_loader_is_trained_on_as_by_hand() -> None:
    trainer = own_trainer(LOADERS["endless stream"](), 12)
    losses: list[float] = []
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    trainer.fit()
    twin = own_trainer([], 1).parts
    expected = []
    for _, (inputs, targets) in zip(range(12), LOADERS["endless stream"](), strict=False):
        twin.optimizer.zero_grad()
        loss = twin.loss(twin.model(inputs), targets)
        loss.backward()
        twin.optimizer.step()
        expected.append(loss.item())
    assert losses == expected
    assert plain.same(trainer.parts.model.state_dict(), twin.model.state_dict())


def test_d8_a_recipe_on_an_endless_stream_takes_its_steps_and_goes_on_from_there() -> None:
    Path("own.py").write_text(
        OWN
        + """
from torch.utils.data import IterableDataset


class Endless(IterableDataset):
    num_classes = 3

    def __iter__(self):
        index = 0
        while True:
            yield FEATURES[index % 30], int(CLASSES[index % 30])
            index += 1


def endless(): return Endless()
"""
    )
    given = recipe("endless", **{"training.max_steps": 11, "scheduler": "OneCycleLR", "scheduler.max_lr": 0.1})
    whole = Trainer.from_recipe(given, runs="whole")
    assert whole.fit().state == "finished" and whole.step == 11
    first = Trainer.from_recipe(given, runs="runs")
    stop_at(first, 7)
    assert first.fit().state == "stopped"
    assert first.run is not None
    second = Trainer.resume(first.run.path)
    assert second.fit().state == "finished" and second.step == 11
    assert_same(second, whole)


def test_d8_without_a_budget_a_schedule_that_needs_the_length_says_so() -> None:
    Path("own.py").write_text(OWN + "\ndef stream(): return torch.utils.data.DataLoader(Stream())\n" + STREAM)
    with pytest.raises((RecipeError, RunError)) as caught:
        Trainer.from_recipe(recipe("stream", **{"scheduler": "OneCycleLR", "scheduler.max_lr": 0.1}), runs=None)
    assert "scheduler.total_steps" in str(caught.value) and "\n" not in str(caught.value)


STREAM = """

class Stream(torch.utils.data.IterableDataset):
    num_classes = 3

    def __iter__(self):
        return iter([(FEATURES[index], CLASSES[index]) for index in range(22)])
"""
