"""The plain script: run by itself it prints the losses of the run, to the last bit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import save_file

from engine import Recipe, Trainer
from engine.errors import RecipeError
from engine.export.script import script
from engine.models.mlp import MLP

OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, output_size, width=8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Dropout(0.2), nn.Linear(width, output_size))

    def forward(self, x):
        return self.layers(x)


def load(samples=200):
    x = torch.randn(samples, 2)
    return x, (x[:, 0] * x[:, 1] > 0).long()
"""

CASES: dict[str, dict[str, Any]] = {
    "mlp": {},
    "cnn": {
        "data": {"name": "digits", "images": True, "batch_size": 64},
        "model": {"name": "cnn", "channels": [4, 8]},
        "optimizer": {"name": "SGD", "lr": 0.02, "momentum": 0.9},
        "scheduler": {"name": "OneCycleLR", "max_lr": 0.1},
    },
    "csv": {
        "data": {"name": "csv", "path": "table.csv", "target": "y", "standardize_target": True, "drop_last": True},
        "model": {"name": "mlp", "hidden": [16], "batch_norm": True},
        "loss": {"name": "HuberLoss", "delta": 0.5},
        "optimizer": {"name": "AdamW", "lr": 0.01, "weight_decay": 0.1},
        "scheduler": {"name": "CosineAnnealingLR"},
    },
    "moons": {
        "data": {"name": "moons", "samples": 300, "noise": 0.2, "fold": 2, "folds": 4},
        "model": {"name": "mlp", "hidden": [16, 16], "dropout": 0.3, "activation": "GELU"},
        "scheduler": {"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.3},
        "training": {"patience": 2, "monitor": "val/accuracy", "epochs": 6},
    },
    "accumulate": {
        "data": {"name": "wine", "batch_size": 10},
        "loss": {"name": "CrossEntropyLoss", "weight": "balanced", "label_smoothing": 0.1},
        "training": {"accumulate": 4, "clip_norm": 0.5},
    },
    "average": {
        "data": {"name": "spirals", "samples": 200, "shuffle": False},
        "optimizer": {"name": "RMSprop", "lr": 0.003},
        "scheduler": {"name": "StepLR", "step_size": 2, "unit": "step"},
        "training": {"ema": 0.9, "clip_value": 0.01, "validate_every": 2, "precision": "float64"},
    },
    "rnn": {
        "data": {"name": "digits", "images": True, "validation": 0.0, "batch_size": 256},
        "model": {"name": "rnn", "hidden": 8},
        "training": {"precision": "bf16", "epochs": 2},
    },
    "transformer": {"data": {"name": "sine", "samples": 60}, "model": {"name": "transformer"}, "loss": {"name": "auto"}},
    "autoencoder": {
        "data": {"name": "iris", "reconstruct": True},
        "model": {"name": "autoencoder", "hidden": [4]},
        "loss": {"name": "MSELoss"},
    },
    "own": {"data": {"name": "sub/net.py:load", "samples": 150}, "model": {"name": "sub/net.py:Net", "width": 12}},
    "head": {
        "data": {"name": "digits", "batch_size": 128},
        "model": {"name": "mlp", "hidden": [12, 10], "batch_norm": True, "dropout": 0.2},
        "optimizer": {"name": "AdamW", "lr": 0.01, "weight_decay": 0.1},
        "training": {"weights": "body.safetensors", "weights_except": ["layers.9.*"], "freeze": ["layers.[126].*"]},
    },
    "unfrozen": {
        "data": {"name": "digits", "batch_size": 128},
        "model": {"name": "mlp", "hidden": [12, 10], "batch_norm": True, "dropout": 0.2},
        "training": {"freeze": ["layers.[126].*"], "freeze_epochs": 1},
    },
    "archive": {"data": {"name": "npz", "path": "held.npz"}, "model": {"name": "linear"}},
}


@pytest.fixture(scope="module")
def printed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, list[dict[str, float]]], dict[str, list[dict[str, float]]]]:
    """What the trainer measured in each epoch and what the scripts print, which run in a process of their own."""
    where = tmp_path_factory.mktemp("scripts")
    random = numpy.random.default_rng(0)
    (where / "sub").mkdir()
    (where / "sub" / "net.py").write_text(OWN)
    rows = random.normal(size=(120, 4)).round(3)
    (where / "table.csv").write_text("a,b,c,y\n" + "\n".join(",".join(map(str, row)) for row in rows.tolist()))
    numpy.savez(where / "held.npz", x=random.integers(0, 255, (90, 3, 3), dtype=numpy.uint8), y=random.integers(5, 8, 90))
    torch.manual_seed(9)
    body = MLP((64,), 3, (12, 10), dropout=0.2, batch_norm=True)  # of three classes
    save_file(body.state_dict(), where / "body.safetensors")
    expected = {}
    here = Path.cwd()
    os.chdir(where)
    try:
        for name, values in CASES.items():
            plan = {"epochs": 3, "device": "cpu", **values.get("training", {})}
            recipe = Recipe.from_dict({"name": name, "seed": 3, **values, "training": plan})
            (where / f"run_{name}.py").write_text(script(recipe))
            expected[name] = Trainer.from_recipe(recipe, runs=None).fit().history
    finally:
        os.chdir(here)
    program = (
        "import runpy, sys\n"
        f"for name in {list(CASES)!r}:\n"
        "    print('script', name)\n"
        "    runpy.run_path('run_' + name + '.py')\n"
        "print('engine' in sys.modules or 'tui' in sys.modules)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n"), "a script needs nothing of epochal"
    parts = re.split(r"^script (\w+)\n", done.stdout, flags=re.M)[1:]
    told = {
        name: [row(line) for line in text.splitlines() if line.startswith("epoch")]
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return expected, told


def row(line: str) -> dict[str, float]:
    """ "epoch 1  train/loss 0.5" as numbers."""
    return {key: float(value) for key, value in (part.split(" ") for part in line.split("  "))}


@pytest.mark.parametrize("name", CASES)
def test_the_losses_are_the_same_to_the_last_bit(printed: Any, name: str) -> None:
    expected, told = printed[0][name], printed[1][name]
    assert len(told) == len(expected)
    for found, wanted in zip(told, expected, strict=True):
        assert found == {key: wanted[key] for key in ("epoch", "train/loss", "val/loss", "val/accuracy") if key in wanted}


def test_it_reads_like_the_tutorial() -> None:
    text = script(Recipe().replace(**{"model.hidden": [32], "training.device": "cpu"}))
    assert "nn.Linear(64, 32),\n    nn.ReLU(),\n    nn.Linear(32, 10),\n" in text
    assert "optimizer = torch.optim.Adam(model.parameters(), lr=0.001)\n" in text
    assert "engine" not in text and max(map(len, text.splitlines())) <= 128


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"training.non_finite": "skip"}, "training.non_finite"),
        ({"training.max_steps": 9}, "training.max_steps"),
        ({"training.precision": "fp16"}, "training.precision"),
        ({"scheduler": {"name": "StepLR", "step_size": 1, "warmup": 2}}, "scheduler.warmup"),
        ({"optimizer.name": "LBFGS"}, "optimizer.name"),
        ({"optimizer": {"name": "AdamW", "no_decay": True}}, "optimizer.no_decay"),
        ({"data": {"name": "digits", "images": True, "augment": ["noise"]}, "model.name": "cnn"}, "data.augment"),
    ],
)
def test_what_has_no_plain_words_is_one_sentence(changes: dict[str, Any], field: str) -> None:
    values = Recipe().to_dict(complete=False)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        values[section] = {**values.get(section, {}), name: value} if name else value
    with pytest.raises(RecipeError) as caught:
        script(Recipe.from_dict(values))
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "\n" not in str(caught.value) and field in str(caught.value)
