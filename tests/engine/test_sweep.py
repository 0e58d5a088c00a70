"""Sweeps: how several values are written, what recipes they make, and that each is trained as it would be alone."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest

from engine import EpochEnded, Recipe, RecipeError, Sweep, Trainer
from engine.cli import main
from engine.run import Run
from engine.sweep import Axis, count, expand, ranked

BASE = {
    "name": "flowers",
    "data": {"name": "iris"},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"epochs": 2, "device": "cpu"},
}


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optimizer.lr=1e-4,3e-4", ["1e-4", "3e-4"]),
        ("optimizer.lr = 1e-4 , 3e-4", ["1e-4", "3e-4"]),
        ("model.hidden=[64],[64, 32]", ["[64]", "[64, 32]"]),
        ("data.path='a,b.csv',../c..csv", ["'a,b.csv'", "../c..csv"]),
        ("seed=0..3", ["0", "1", "2", "3"]),
        ("seed=7,0..2", ["7", "0", "1", "2"]),
        ("optimizer.lr=1e-4..1e-1x4", ["0.0001", "0.001", "0.01", "0.1"]),
        ("optimizer.lr=1e-1..1e-3x3", ["0.1", "0.01", "0.001"]),
        ("data.batch_size=16..64x3", ["16", "32", "64"]),
        ("data.batch_size=1..4x9", ["1", "2", "3", "4"]),
    ],
)
def test_how_values_are_written(text: str, values: list[str]) -> None:
    assert list(Axis.parse(text).values) == values


def test_a_range_is_even_on_a_logarithmic_scale() -> None:
    values = [float(value) for value in Axis.parse("optimizer.lr=1e-4..1e-1x16").values]
    assert len(values) == 16
    assert (values[0], values[-1]) == (1e-4, 1e-1)
    ratios = [b / a for a, b in pairwise(values)]
    assert ratios == pytest.approx([1000 ** (1 / 15)] * 15, rel=2e-3)


def test_the_product_of_the_fields_as_recipes_that_name_what_differs() -> None:
    axes = [Axis.parse("optimizer.lr=1e-2,1e-3"), Axis.parse("seed=0..2")]
    members = expand(BASE, axes)
    assert len(members) == count(axes) == 6
    assert [(m.recipe.optimizer.arguments["lr"], m.recipe.seed) for m in members] == [
        (lr, seed) for lr in (1e-2, 1e-3) for seed in (0, 1, 2)
    ]
    assert members[1].label == "lr=1e-2 seed=1"
    assert members[1].recipe.name == "flowers-lr1e-2-seed1"
    assert members[0].recipe.data.name == "iris"
    assert len({m.recipe.name for m in members}) == 6


def test_a_component_can_be_swept() -> None:
    members = expand(BASE, ["optimizer=SGD,Adam", "model.hidden=[8],[8, 4]"])
    assert [m.recipe.optimizer.name for m in members] == ["SGD", "SGD", "Adam", "Adam"]
    assert [m.recipe.model.arguments["hidden"] for m in members] == [[8], [8, 4]] * 2


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        (["optimizer.lr"], "write FIELD=VALUE"),
        (["optimizer.lr="], "write FIELD=VALUE"),
        (["optimizer.rl=1e-3,1e-4"], "the nearest is 'lr'"),
        (["seed=0,x"], "seed is 'x'"),
        (["seed=0,,1"], "empty value"),
        (["seed=0,1", "seed=2"], "given twice"),
        (["name=a,b"], "name can't be swept"),
        (["optimizer.lr=1e-3,0.001"], "the same recipe"),
        (["optimizer.lr=0..1x3"], "ends above 0"),
        (["optimizer.lr=0.1..1"], "whole numbers"),
        (["seed=0..40", "data.split_seed=0..40"], "1,681 runs; at most 1,000"),
        (["scheduler.name=OneCycleLR", "scheduler.max_lr=0.01", "optimizer.lr=1e-3,1e-2"], "sweep that, or leave it out"),
        ([], "needs a field"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_trained(axes: list[str], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        expand(BASE, axes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


def test_a_member_is_a_run_as_if_trained_alone() -> None:
    members = expand(BASE, ["optimizer=RMSprop", "optimizer.lr=1e-2,1e-3"])
    outcomes = Sweep(members).fit()
    assert [outcome.state for outcome in outcomes] == ["finished"] * 2
    assert len(Run.list("runs")) == 2
    for member, outcome in zip(members, outcomes, strict=True):
        assert outcome.run is not None
        assert Recipe.load(outcome.run.recipe_path) == Recipe.from_dict(member.recipe.to_dict())
        alone = Trainer.from_recipe(member.recipe, runs=None).fit()
        assert outcome.value == alone.best["val/loss"]
        assert outcome.run.checkpoints.read("last").state["epoch"] == 2
        assert Trainer.resume(outcome.run.path, epochs=3).fit().history[-1]["epoch"] == 3


OWN = """
import os, signal
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], output_size: int, which: int = 0) -> None:
        super().__init__()
        self.which, self.layer = which, nn.Linear(*input_shape, output_size)

    def forward(self, inputs):
        if self.which == 1 and self.training:
            BROKEN
        return self.layer(inputs)
"""


def own(broken: str) -> list[str]:
    Path("own.py").write_text(OWN.replace("BROKEN", broken))
    return ["data.name=iris", "model.name=own.py:Net", "training.epochs=2", "training.device=cpu"]


def test_one_that_fails_does_not_stop_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    settings = [part for setting in own("raise ArithmeticError('mine')") for part in ("--set", setting)]
    status = main(["sweep", "model.which=0,1,2", *settings, "--json"])
    printed = capfd.readouterr()
    rows = {row["values"]["model.which"]: row for row in json.loads(printed.out)}
    assert status == 1
    assert [rows[which]["state"] for which in "012"] == ["finished", "failed", "finished"]
    assert "ArithmeticError: mine" in rows["1"]["reason"]
    assert "own.py" in printed.err  # where it was raised
    assert list(rows)[-1] == "1"  # nothing was measured: last


def test_where_no_run_can_be_made_nothing_is_begun(capsys: pytest.CaptureFixture[str]) -> None:
    Path("blocked").write_text("a file", encoding="utf-8")
    assert main(["sweep", "seed=0..2", "--runs", "blocked"]) == 2
    assert capsys.readouterr() == ("", "epochal: can't make a run directory in blocked: File exists\n")


def test_ctrl_c_ends_the_sweep_with_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    once = "self.calls = getattr(self, 'calls', 0) + 1; self.calls == 6 and os.kill(os.getpid(), signal.SIGINT)"
    settings = [part for setting in own(once) for part in ("--set", setting)]
    assert main(["sweep", "model.which=0,1,2", *settings, "--json"]) == 130
    rows = {row["values"]["model.which"]: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[which]["state"] for which in "012"] == ["finished", "stopped", "left out"]
    assert rows["2"]["run"] is None
    stopped = Run(Path(rows["1"]["run"]))
    assert 0 < stopped.checkpoints.read("last").state["step"] < 8
    assert len(Run.list("runs")) == 2


def test_the_table_has_the_best_first(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--set", "data.name=iris", "--set", "training.monitor=val/accuracy", "--epochs", "2", "--device", "cpu"]
    assert main(["sweep", "optimizer.lr=1e-6,1e-2,1e30", *arguments, "--quiet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["lr", "accuracy", "val", "loss", "epoch", "run"]
    accuracy = [float(line.split()[1].replace("–", "nan")) for line in lines[1:4]]
    assert lines[1].startswith("1e-2")
    assert accuracy[0] > accuracy[1]
    assert lines[1].endswith("-lr1e-2")
    assert lines[-1].startswith("lr=1e30: failed, ")


def test_values_are_listed_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "seed=0,1", "optimizer.lr=1e-2..1e-1x2", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["seed  lr", "0     0.01", "0     0.1", "1     0.01", "1     0.1"]
    assert main(["sweep", "missing.toml", "seed=0,1"]) == 2
    assert "missing.toml" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_what_is_asked_of_a_sweep_and_what_it_tells() -> None:
    sweep = Sweep(expand(BASE, ["optimizer=RMSprop,Adagrad", "seed=0,1"]), runs=None)
    heard: list[tuple[str, int]] = []

    def listen(label: str, event: EpochEnded) -> None:
        heard.append((label, event.epoch))
        if len(heard) == 3:
            sweep.control.stop("enough")

    sweep.on(EpochEnded, lambda member, event: listen(member.label, event))
    outcomes = sweep.fit()
    assert [outcome.state for outcome in outcomes] == ["finished", "stopped", "left out", "left out"]
    assert [outcome.reason for outcome in outcomes[1:]] == ["enough"] * 3
    assert heard[-1] == ("optimizer=RMSprop seed=1", 1)
    assert math.isnan(outcomes[2].value)
    assert ranked(outcomes)[-2:] == outcomes[2:]
