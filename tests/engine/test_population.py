"""Trained together, each member of a population is what it would have been alone, and a run like any other."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import EpochEnded, Message, Recipe, Sweep, Trainer
from engine.cli import main
from engine.run import Journal, Run
from engine.sweep import Outcome, expand, population
from engine.sweep.stack import Stack

BASE: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits", "batch_size": 64},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"epochs": 2, "device": "cpu"},
}
TOGETHER = "trained together"


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    monkeypatch.setitem(population.FEWEST, "cpu", 2)


def swept(values: dict[str, Any], *axes: str, runs: str | None = None) -> tuple[list[Outcome], str, Sweep]:
    """The outcomes, what was said of how they were trained, and the sweep."""
    sweep, said = Sweep(expand({**BASE, **values}, axes), runs=runs), list[str]()
    sweep.on(Message, lambda member, event: said.append(event.text))
    return sweep.fit(), "; ".join(said), sweep


def histories(values: dict[str, Any], *axes: str) -> list[tuple[list[dict[str, float]], list[dict[str, float]]]]:
    """The epochs of each member trained together, and of the same recipe trained alone."""
    sweep = Sweep(expand({**BASE, **values}, axes), runs=None)
    rows: dict[str, list[dict[str, float]]] = {member.label: [] for member in sweep.members}
    said = list[str]()
    sweep.on(EpochEnded, lambda member, event: rows[member.label].append({**event.metrics, "lr": event.lr}))
    sweep.on(Message, lambda member, event: said.append(event.text))
    sweep.fit()
    assert TOGETHER in said[0]
    pairs = []
    for member in sweep.members:
        recipe = member.recipe.replace(**{"training.execution": "eager"})
        alone = Trainer.from_recipe(recipe, runs=None).fit()
        dropped = ("epoch", "seconds")
        pairs.append((rows[member.label], [{k: v for k, v in row.items() if k not in dropped} for row in alone.history]))
    return pairs


@pytest.mark.parametrize(
    ("values", "axes"),
    [
        ({"optimizer": {"name": "Adam"}}, ["optimizer.lr=1e-3,1e-2", "seed=0,1"]),
        ({"optimizer": {"name": "Adam"}}, ["optimizer.weight_decay=0,0.1", "optimizer.betas=[0.9, 0.999],[0.5, 0.9]"]),
        ({"optimizer": {"name": "AdamW", "lr": 3e-3}}, ["optimizer.weight_decay=0,0.5", "optimizer.eps=1e-8,1e-2"]),
        ({"optimizer": {"name": "SGD"}}, ["optimizer.lr=0.01,0.1", "seed=0,1"]),
        ({"optimizer": {"name": "SGD", "lr": 0.05}}, ["optimizer.momentum=0,0.9", "optimizer.weight_decay=0,0.05"]),
        ({"optimizer": {"name": "SGD", "momentum": 0.8, "nesterov": True}}, ["optimizer.lr=0.01,0.1"]),
        (
            {"optimizer": {"name": "AdamW", "no_decay": True, "groups": [{"pattern": "layers.1.*", "lr": 1e-4}]}},
            ["optimizer.weight_decay=0.1,0.5"],
        ),
        ({"scheduler": {"name": "OneCycleLR", "max_lr": 0.05}}, ["seed=0,1"]),
        ({"scheduler": {"name": "StepLR", "step_size": 1}}, ["optimizer.lr=1e-3,1e-2"]),
        ({"training": {"epochs": 2, "clip_norm": 0.5, "clip_value": 0.02, "device": "cpu"}}, ["optimizer.lr=1e-3,1e-2"]),
        ({"training": {"max_steps": 30, "validate_steps": 10, "device": "cpu"}}, ["seed=0,1"]),
        ({"loss": {"name": "CrossEntropyLoss", "weight": "balanced", "label_smoothing": 0.1}}, ["seed=0,1"]),
        ({"data": {"name": "digits", "batch_size": 64, "drop_last": True, "shuffle": False}}, ["seed=0,1"]),
        ({"data": {"name": "diabetes"}, "loss": {"name": "MSELoss"}}, ["optimizer.lr=1e-4,1e-3", "seed=0,1"]),
        (
            {
                "data": {"name": "digits", "images": True},
                "model": {"name": "cnn", "channels": [4]},
                "training": {"epochs": 1, "device": "cpu"},
            },
            ["optimizer.lr=1e-3,1e-2"],
        ),
    ],
)
def test_each_member_is_what_it_is_alone(values: dict[str, Any], axes: list[str]) -> None:
    for together, alone in histories(values, *axes):
        assert len(together) == len(alone)
        for row, wanted in zip(together, alone, strict=True):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)


OWN = """
import torch
from torch import nn


class Normed(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], output_size: int, kind: str = "plain") -> None:
        super().__init__()
        self.kind, self.calls = kind, 0
        self.first, self.norm = nn.Linear(*input_shape, 16, bias=False), nn.BatchNorm1d(16)
        self.last = nn.Linear(16, output_size)
        self.unused = nn.Linear(2, 2) if kind == "unused" else None
        if kind == "frozen":
            self.first.requires_grad_(False)

    def forward(self, inputs):
        hidden = self.norm(self.first(inputs)).relu()
        if self.kind == "branch" and hidden.mean() > 0:
            hidden = hidden * 2
        if self.kind == "counts" and self.training:
            self.calls += 1
        if self.kind == "raises" and not self.training and inputs.shape[0] == 7:
            raise ArithmeticError("mine")
        return self.last(hidden)
"""


@pytest.mark.parametrize("kind", ["plain", "frozen"])
def test_batch_norm_and_frozen_weights(kind: str) -> None:
    Path("own.py").write_text(OWN)
    # With Adam a weight whose true gradient is 0, as that of a constant input before a normalization, follows the rounding.
    values = {"model": {"name": "own.py:Normed", "kind": kind}, "optimizer": {"name": "SGD", "momentum": 0.9}}
    for together, alone in histories(values, "optimizer.lr=0.01,0.05", "seed=0,1"):
        for row, wanted in zip(together, alone, strict=True):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"optimizer": {"name": "RMSprop"}}, "the optimizer is RMSprop"),
        ({"optimizer": {"name": "Adam", "amsgrad": True}}, "optimizer.amsgrad = True"),
        ({"optimizer": {"name": "SGD", "momentum": 0.5, "dampening": 0.5}}, "optimizer.dampening = 0.5"),
        ({"training": {"execution": "eager"}}, "training.execution is 'eager'"),
        ({"training": {"precision": "bf16"}}, "training.precision is 'bf16'"),
        ({"training": {"non_finite": "skip"}}, "training.non_finite is 'skip'"),
        ({"training": {"accumulate": 2}}, "training.accumulate"),
        ({"training": {"ema": 0.9}}, "training.ema"),
        ({"data": {"name": "digits", "images": True, "augment": ["shift"]}}, "data.augment"),
        ({"model": {"name": "mlp", "dropout": 0.5}}, "draws random numbers"),
        ({"model": {"name": "own.py:Normed", "kind": "branch"}}, "can't be vectorized"),
        ({"model": {"name": "own.py:Normed", "kind": "counts"}}, "changes its own calls"),
        ({"model": {"name": "own.py:Normed", "kind": "unused"}}, "the loss does not depend on"),
    ],
)
def test_what_can_not_be_one_step_is_trained_one_after_another(values: dict[str, Any], why: str) -> None:
    Path("own.py").write_text(OWN)
    plan = {"epochs": 1, "max_steps": 2, "device": "cpu", **values.get("training", {})}
    outcomes, said, _ = swept({**values, "training": plan}, "seed=0,1")
    assert [outcome.state for outcome in outcomes] == ["finished"] * 2
    assert said.startswith("2 runs are trained one after another, because ")
    assert why in said


def test_a_few_are_trained_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(population.FEWEST, "cpu", 4)
    plan = {"epochs": 1, "max_steps": 2, "device": "cpu"}
    assert swept({"training": plan}, "seed=0..2")[1] == (
        "3 runs are trained one after another, because so few would gain nothing together"
    )
    assert TOGETHER in swept({"training": plan}, "seed=0..3")[1]


def test_only_those_that_are_alike_train_together() -> None:
    outcomes, said, _ = swept({}, "data.batch_size=64,128", "seed=0..2", "training.epochs=1")
    assert [outcome.state for outcome in outcomes] == ["finished"] * 6
    assert said.count("3 runs are trained together") == 2


def test_a_member_that_is_not_finite_ends_alone() -> None:
    outcomes, said, _ = swept({"optimizer": {"name": "SGD"}}, "optimizer.lr=0.1,1e12,0.01", runs="runs")
    assert TOGETHER in said
    assert [outcome.state for outcome in outcomes] == ["finished", "failed", "finished"]
    recipe = outcomes[1].member.recipe.replace(**{"training.execution": "eager"})
    alone = Trainer.from_recipe(recipe, runs=None).fit()
    assert outcomes[1].reason == alone.reason  # the same step, the same samples
    for outcome in (outcomes[0], outcomes[2]):
        alone = Trainer.from_recipe(outcome.member.recipe.replace(**{"training.execution": "eager"}), runs=None).fit()
        assert outcome.value == pytest.approx(alone.best["val/loss"], rel=1e-4)
    broken = outcomes[1].run
    assert broken is not None
    assert all(torch.isfinite(tensor).all() for tensor in broken.checkpoints.read("last").tensors["model"].values())


@pytest.mark.parametrize("optimizer", [{"name": "Adam"}, {"name": "SGD", "momentum": 0.9, "lr": 0.05}])
def test_each_is_a_run_of_its_own_that_can_be_resumed(optimizer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    outcomes, said, _ = swept({"optimizer": optimizer}, "seed=0,1", runs="runs")
    assert TOGETHER in said
    assert len(Run.list("runs")) == 2
    for outcome in outcomes:
        run = outcome.run
        assert run is not None
        assert Recipe.load(run.recipe_path).seed == outcome.member.recipe.seed
        assert Recipe.load(run.recipe_path).training.execution == "auto"
        events, problems = Journal.read(run.journal.path)
        assert not problems
        assert [event.epoch for event in events if isinstance(event, EpochEnded)] == [1, 2]
        assert run.status.read(run.status.path)["state"] == "finished"
        assert main(["resume", str(run.path), "--epochs", "3", "--quiet"]) == 0
        alone = Trainer.from_recipe(outcome.member.recipe.replace(**{"training.epochs": 3}), runs=None).fit()
        resumed = [event for event in Journal.read(run.journal.path)[0] if isinstance(event, EpochEnded)][-1]
        assert resumed.metrics["val/loss"] == pytest.approx(alone.history[-1]["val/loss"], rel=1e-4)
    capsys.readouterr()


def test_one_is_stopped_and_resumed_while_the_others_go_on() -> None:
    sweep = Sweep(expand(BASE, ["seed=0..2"]), runs="runs")

    def stop_one(member: Any, event: EpochEnded) -> None:
        if member is sweep.members[1] and event.epoch == 1:
            sweep.control._led[1].stop("enough of this one")

    sweep.on(EpochEnded, stop_one)
    outcomes = sweep.fit()
    assert [outcome.state for outcome in outcomes] == ["finished", "stopped", "finished"]
    stopped = outcomes[1].run
    assert stopped is not None
    held = stopped.checkpoints.read("last").state
    assert (held["epoch"], held["batch"]) == (1, 0)
    resumed = Trainer.resume(stopped.path).fit()
    alone = Trainer.from_recipe(sweep.members[1].recipe.replace(**{"training.execution": "eager"}), runs=None).fit()
    assert resumed.history[-1]["val/loss"] == pytest.approx(alone.history[-1]["val/loss"], rel=1e-4)
    assert outcomes[2].best["epoch"] == 2


def test_a_stop_of_the_sweep_writes_a_checkpoint_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep(expand(BASE, ["seed=0,1", "data.batch_size=64,32"]), runs="runs")
    sweep.on(EpochEnded, lambda member, event: sweep.control.stop("enough"))
    outcomes = sweep.fit()
    assert sorted(outcome.state for outcome in outcomes) == ["left out", "left out", "stopped", "stopped"]
    for outcome in outcomes:
        if outcome.run is not None:
            assert outcome.run.checkpoints.read("last").state["step"] == 23
            assert Trainer.resume(outcome.run.path).fit().history[-1]["epoch"] == 2


def test_an_error_in_one_member_ends_that_one(capfd: pytest.CaptureFixture[str]) -> None:
    Path("own.py").write_text(OWN.replace("inputs.shape[0] == 7", "self.first.weight[0, 0] > 0"))
    model = {"name": "own.py:Normed", "kind": "raises"}
    outcomes, said, _ = swept({"model": model}, "seed=0..5", runs="runs")
    assert TOGETHER in said
    assert {outcome.state for outcome in outcomes} == {"finished", "failed"}
    assert all("ArithmeticError: mine" in outcome.reason for outcome in outcomes if outcome.state == "failed")
    assert "own.py" in capfd.readouterr().err


def test_a_live_change_of_one_acts_on_that_one() -> None:
    from engine.changes import Change

    sweep = Sweep(expand(BASE, ["seed=0,1"]), runs=None)
    rates: dict[str, list[float]] = {member.label: [] for member in sweep.members}

    def listen(member: Any, event: EpochEnded) -> None:
        rates[member.label].append(event.lr)
        if event.epoch == 1 and member is sweep.members[0]:
            sweep.control._led[0].change(Change("optimizer.lr", 0.5, times=True))

    sweep.on(EpochEnded, listen)
    sweep.fit()
    assert rates == {"seed=0": [1e-3, 5e-4], "seed=1": [1e-3, 1e-3]}


def test_members_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "model.hidden=[8]", "--epochs", "1", "--device", "cpu"]
    assert main(["sweep", "optimizer.lr=1e-3,1e-2", *settings, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["finished"] * 2
    assert rows[0]["best"]["val/loss"] < rows[1]["best"]["val/loss"]


def epochs_of(run: Run) -> list[dict[str, float]]:
    return [{**event.metrics, "lr": event.lr} for event in Journal.read(run.journal.path)[0] if isinstance(event, EpochEnded)]


@pytest.mark.parametrize("steps", [29, 40])  # an epoch has 29
def test_a_population_that_was_stopped_goes_on_as_one(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {**BASE, "scheduler": {"name": "StepLR", "step_size": 1}, "training": {"epochs": 3, "device": "cpu"}}
    axes = ["seed=0,1"]
    undisturbed, said, _ = swept(values, *axes, runs="undisturbed")
    assert TOGETHER in said
    members = expand(values, axes)
    sweep, update, taken = Sweep(members, runs="stopped"), Stack.update, itertools.count(1)

    def stop(stack: Stack, gradients: torch.Tensor) -> None:
        update(stack, gradients)
        if next(taken) == steps:
            sweep.control.stop()

    monkeypatch.setattr(Stack, "update", stop)
    stopped = sweep.fit()
    assert [outcome.state for outcome in stopped] == ["stopped"] * 2
    again, said_again = Sweep(members, begun={i: outcome.run.path for i, outcome in enumerate(stopped)}), list[str]()
    again.on(Message, lambda member, event: said_again.append(event.text))
    for outcome, wanted in zip(again.fit(), undisturbed, strict=True):
        assert outcome.state == "finished" and outcome.run.name in [each.run.name for each in stopped]
        for row, other in zip(epochs_of(outcome.run), epochs_of(wanted.run), strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert said_again == [f"2 runs are trained together from step {steps} on, each step of all as one"]


def test_members_that_stand_at_other_steps_go_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    members = expand(BASE, ["seed=0,1"])
    for member, epochs in zip(members, (1, 2), strict=True):
        Trainer.from_recipe(member.recipe.replace(**{"training.epochs": epochs})).fit()
    begun = {i: run.path for i, run in enumerate(sorted(Run.list("runs"), key=lambda run: run.epoch))}
    sweep, said = Sweep(members, begun=begun), list[str]()
    sweep.on(Message, lambda member, event: said.append(event.text))
    outcomes = sweep.fit()
    assert (
        TOGETHER not in "".join(said)
        and [outcome.state for outcome in outcomes] == ["finished"] * 2
        and len(Run.list("runs")) == 2
    )
