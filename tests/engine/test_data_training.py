"""Data of every kind under a whole run, from the recipe's file to the last epoch, stopped and resumed on the way."""

from __future__ import annotations

import multiprocessing
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from engine import EpochEnded, Recipe, RecipeError, Trainer
from engine.catalog.own import resolve
from engine.data.batches import StreamedBatches
from engine.data.draws import Seeded
from tests.engine import plain
from tests.engine.processes import alive, until

CODE = """
import numpy, random, torch
from torch.utils.data import Dataset

class Drawing(Dataset):
    classes = ["dark", "bright"]
    def __len__(self):
        return 30
    def __getitem__(self, index):
        picture = torch.full((1, 8, 8), float(index % 2))
        return picture + torch.randn(1, 8, 8) + numpy.random.rand() + random.random(), index % 2

def load():
    return Drawing()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 1, 8, 8), dtype=np.uint8)
    np.savez("images.npz", x=images, y=images.mean((1, 2, 3)) > 127.5)
    (tmp_path / "t.txt").write_text("to be, or not to be, that is the question\n" * 20)
    (tmp_path / "own.py").write_text(CODE)
    return tmp_path


def recipe(data: dict[str, Any], model: str, loss: str = "CrossEntropyLoss") -> Recipe:
    values = {
        "data": {"batch_size": 8, **data},
        "model": {"name": model},
        "loss": {"name": loss},
        "training": {"epochs": 3, "device": "cpu"},
        "checkpoint": {"min_seconds": 0.0},
    }
    return Recipe.from_dict(tomllib.loads(Recipe.from_dict(values).to_toml()))  # through a file and back


AUGMENT = ["flip", "shift", "cutout", "noise", "brightness"]
RUNS = {
    "text": ({"name": "text", "path": "t.txt", "context": 12, "batch_size": 16}, "gpt"),
    "text, a fold": ({"name": "text", "path": "t.txt", "context": 12, "batch_size": 16, "fold": 2, "folds": 3}, "gpt"),
    "reconstruction": (
        {"name": "npz", "path": "images.npz", "reconstruct": True, "augment": ["noise"]},
        "autoencoder",
        "MSELoss",
    ),
    "augmented": ({"name": "npz", "path": "images.npz", "augment": AUGMENT}, "cnn"),
    "a fold": ({"name": "npz", "path": "images.npz", "fold": 1, "folds": 3}, "cnn"),
    "own, drawing": ({"name": "own.py:load"}, "cnn"),
    "own, drawing, augmented": ({"name": "own.py:load", "augment": AUGMENT}, "cnn"),
    "own, drawing, with workers": ({"name": "own.py:load", "augment": AUGMENT, "workers": 2}, "cnn"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_d1_data_of_every_kind_stopped_and_resumed(kind: str, here: Path) -> None:
    whole = Trainer.from_recipe(recipe(*RUNS[kind]), runs=here / "whole").fit()
    assert whole.state == "finished" and len(whole.history) == 3
    for stop in (2, 4):
        first = Trainer.from_recipe(recipe(*RUNS[kind]), runs=here / f"stopped{stop}")
        steps = iter(range(1, 1000))
        first.parts.optimizer.register_step_post_hook(
            lambda *_, first=first, steps=steps, stop=stop: first.control.stop() if next(steps) == stop else None
        )
        assert first.fit().state == "stopped" and first.step == stop and first.run is not None
        torch.manual_seed(999)
        result = Trainer.resume(first.run.path).fit()
        assert result.state == "finished" and plain.same(result.model.state_dict(), whole.model.state_dict())
        for row, other in zip(result.history, whole.history, strict=True):
            assert row["val/loss"] == other["val/loss"]


def test_workers_change_nothing(here: Path) -> None:
    data, model = RUNS["own, drawing, augmented"]
    alone, helped = (Trainer.from_recipe(recipe({**data, "workers": n}, model), runs=None).fit() for n in (0, 2))
    assert plain.same(alone.model.state_dict(), helped.model.state_dict())


def test_workers_end_with_the_run_and_not_with_the_trainer(here: Path) -> None:
    others = {process.pid for process in psutil.Process().children()}
    data, model = RUNS["own, drawing, with workers"]
    trainer = Trainer.from_recipe(recipe(data, model), runs=None)
    began = []

    def look(event: EpochEnded) -> None:
        began.extend(process.pid for process in psutil.Process().children() if process.pid not in others)

    trainer.on(EpochEnded, look)
    trainer.fit()
    assert began
    until(lambda: not any(map(alive, began)), "the workers have ended")
    batches = trainer.parts.train
    assert isinstance(batches, StreamedBatches) and len(list(batches.epoch(1))) == batches.length  # with others
    batches.rest()


def test_what_is_held_back_is_never_changed(here: Path) -> None:
    plainly, augmented = (
        Trainer.from_recipe(recipe({"name": "npz", "path": "images.npz", "augment": names}, "cnn"), runs=None).parts
        for names in ([], AUGMENT)
    )
    for (x, y), (u, v) in zip(plainly.validation.epoch(1), augmented.validation.epoch(1), strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)
    for (x, y), (u, v) in zip(plainly.train.epoch(1), augmented.train.epoch(1), strict=True):
        assert torch.equal(y, v) and not torch.equal(x, u)


def test_own_code_reaches_workers_that_are_not_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As data workers are started by Python from 3.14 on: they load the file of the data set, as it was, and no other."""
    (tmp_path / "earlier.py").write_text(
        "import multiprocessing\nassert not multiprocessing.parent_process()\nclass Net: ...\n"
    )
    monkeypatch.chdir(tmp_path)
    resolve("earlier.py:Net")
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "from torch.utils.data import Dataset\n"
        "class Squares(Dataset):\n"
        "    def __len__(self):\n"
        "        return 9\n"
        "    def __getitem__(self, index):\n"
        "        return torch.tensor([7.0]), 1\n"
    )
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    seeded = Seeded(resolve("own.py:Squares")())
    (tmp_path / "own.py").write_text("changed since")
    process = context.Process(target=_take, args=(seeded, answers))
    process.start()
    process.join(240)
    assert process.exitcode == 0 and answers.get(timeout=60) == 7.0


def _take(seeded: Seeded, answers: Any) -> None:
    answers.put(float(seeded.__getitems__((1, [0]))[0][0]))


def test_a_loss_that_is_always_0_is_refused(tmp_path):
    (tmp_path / "line.csv").write_text("x,y\n" + "".join(f"{x},{1.5 * x}\n" for x in range(40)))
    values = {"data": {"name": "csv", "path": str(tmp_path / "line.csv"), "target": "y"}, "loss": {"name": "CrossEntropyLoss"}}
    with pytest.raises(RecipeError, match="is 0 whatever the model does.*MSELoss"):
        Trainer.from_recipe(Recipe.from_dict(values), runs=None)
