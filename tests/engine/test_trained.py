"""A run's model, loaded again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import CheckpointError, EpochalError, EpochEnded, Recipe, RunError, Trainer, load_model
from engine.assemble import load_data
from engine.data.preprocessing import FILE, Preprocessing
from engine.inference.trained import load_trained

OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Dropout(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)

def load():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()
"""


def trained(root: Path, **changes: Any) -> Any:
    """A finished run, with a checkpoint of each epoch."""
    usual = {"data.name": "iris", "training.epochs": 2, "training.device": "cpu", "checkpoint.min_seconds": 0.0}
    return Trainer.from_recipe(Recipe().replace(**{**usual, **changes}), runs=root).fit()


def test_the_weights_are_those_of_the_checkpoint_and_nothing_random_is_drawn(tmp_path: Path) -> None:
    result = trained(tmp_path, **{"training.epochs": 3})
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model = load_model(result.run, "last")
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    for name, value in result.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    first, _ = result.run.checkpoints.list()[0]
    saved = result.run.checkpoints.read(first).tensors["model"]
    assert all(torch.equal(value, saved[name]) for name, value in load_model(str(result.run.path), first).state_dict().items())
    assert any(not torch.equal(value, model.state_dict()[name]) for name, value in saved.items())


def test_without_a_word_it_is_the_best(tmp_path: Path) -> None:
    result = trained(tmp_path, **{"optimizer.lr": 1.0, "training.epochs": 4})  # far too high: the last epoch is not the best
    best = result.run.checkpoints.read("best")
    loaded = load_trained(result.run, device="cpu")
    assert loaded.step == best.step == load_trained(result.run, "best", device="cpu").step
    assert best.state["epoch"] == result.best["epoch"]


def test_where_the_average_is_validated_it_is_the_average(tmp_path: Path) -> None:
    result = trained(tmp_path, **{"training.ema": 0.9})
    model = load_model(result.run, "last")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in result.average.state_dict().items())
    weights = result.model.state_dict()
    assert any(not torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_own_code_and_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(OWN)
    result = trained(tmp_path / "runs", **{"model.name": "my.py:Net", "model.width": 4, "data.name": "my.py:load"})
    x = torch.randn(5, 2)
    result.model.eval()
    Path("my.py").write_text(OWN.replace("def load", "def gone"))  # the data are not there any more: nobody asks for them
    assert torch.equal(load_model(result.run, "last")(x), result.model(x))


def test_a_run_that_does_not_keep_what_was_measured_measures_it_again(tmp_path: Path) -> None:
    result = trained(tmp_path)
    kept = Preprocessing.kept(result.run.path)
    data, _ = load_data(Recipe.load(result.run.recipe_path))
    assert kept == Preprocessing.of(data)  # to the last bit
    (result.run.path / FILE).unlink()
    assert load_trained(result.run, device="cpu").preprocessing == kept
    text = result.run.recipe_path.read_text().replace("split_seed = 0", "split_seed = 1")
    result.run.recipe_path.write_text(text)
    with pytest.raises(CheckpointError, match="the training data are not those of"):
        load_trained(result.run, device="cpu")


def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    result = trained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no checkpoint of step 7; there are best, last, \d+"):
        load_model(result.run, 7)
    with pytest.raises(CheckpointError, match="has no checkpoint 'bets'"):
        load_model(result.run, "bets")
    (result.run.path / FILE).write_text('{"format": 1}')
    with pytest.raises(RunError, match="is damaged"):
        load_model(result.run)
    (result.run.path / FILE).write_text(json.dumps({"format": 9}))
    with pytest.raises(RunError, match="format 9"):
        load_model(result.run)
    with pytest.raises(EpochalError, match="there is no file"):
        load_model(tmp_path / "model.safetensors")


def test_objects_made_in_python(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    x, y = torch.randn(20, 2), torch.zeros(20, dtype=torch.long)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    trainer = Trainer(
        model=net, loss=nn.CrossEntropyLoss(), optimizer=optimizer, train=(x, y), run_dir=tmp_path / "run", device="cpu"
    )
    trainer.on(EpochEnded, lambda event: None)
    trainer.fit()
    with pytest.raises(RunError, match="it trained objects made in Python"):
        load_model(tmp_path / "run")
    assert torch.equal(load_model(tmp_path / "run", model=nn.Linear(2, 2))(x), net(x))
