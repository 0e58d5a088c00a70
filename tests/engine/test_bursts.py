"""A population in bursts of steps that nobody looks at, with a stand-in for the CUDA graph: the same as each alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import EpochEnded, Sweep, Trainer
from engine.changes import Change
from engine.execution.cuda_graph import StandIn
from engine.sweep import expand, population
from engine.training.fitting import Fitting
from tests.engine.test_population import BASE, OWN, histories, swept


class Counting(StandIn):
    replays = 0

    def replay(self) -> None:
        Counting.replays += 1
        super().replay()


@pytest.fixture(autouse=True)
def _in_bursts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    monkeypatch.setitem(population.FEWEST, "cpu", 2)
    monkeypatch.setitem(population.GRAPHS, "cpu", lambda device: Counting())
    monkeypatch.setattr(Counting, "replays", 0)


@pytest.mark.parametrize(
    ("values", "axes"),
    [
        ({"optimizer": {"name": "Adam"}}, ["optimizer.weight_decay=0,0.1", "optimizer.betas=[0.9, 0.999],[0.5, 0.9]"]),
        ({"optimizer": {"name": "AdamW", "lr": 3e-3}}, ["optimizer.weight_decay=0,0.5", "optimizer.eps=1e-8,1e-2"]),
        ({"optimizer": {"name": "SGD", "lr": 0.05}}, ["optimizer.momentum=0,0.9", "optimizer.weight_decay=0,0.05"]),
        ({"optimizer": {"name": "SGD", "momentum": 0.8, "nesterov": True}}, ["optimizer.lr=0.01,0.1", "seed=0,1"]),
        (
            {"optimizer": {"name": "AdamW", "no_decay": True, "groups": [{"pattern": "layers.1.*", "lr": 1e-4}]}},
            ["optimizer.weight_decay=0.1,0.5"],
        ),
        ({"scheduler": {"name": "OneCycleLR", "max_lr": 0.05}}, ["optimizer.eps=1e-8,1e-3", "seed=0,1"]),
        ({"scheduler": {"name": "StepLR", "step_size": 1}}, ["optimizer.lr=1e-3,1e-2"]),
        ({"training": {"epochs": 2, "clip_norm": 0.5, "clip_value": 0.02, "device": "cpu"}}, ["optimizer.lr=1e-3,1e-2"]),
        ({"training": {"max_steps": 30, "validate_steps": 10, "device": "cpu"}}, ["seed=0,1"]),
        ({"loss": {"name": "CrossEntropyLoss", "weight": "balanced", "label_smoothing": 0.1}}, ["seed=0,1"]),
        ({"data": {"name": "digits", "batch_size": 64, "drop_last": True, "shuffle": False}}, ["seed=0,1"]),
        ({"data": {"name": "diabetes"}, "loss": {"name": "MSELoss"}}, ["optimizer.lr=1e-4,1e-3", "seed=0,1"]),
        (
            {"data": {"name": "digits", "batch_size": 64, "validation": 0.0}, "training": {"epochs": 4, "device": "cpu"}},
            ["seed=0,1"],
        ),
        ({"training": {"epochs": 5, "validate_every": 2, "device": "cpu"}}, ["seed=0,1"]),
    ],
)
def test_each_member_is_what_it_is_alone(values: dict[str, Any], axes: list[str]) -> None:
    for together, alone in histories(values, *axes):
        assert len(together) == len(alone)
        for row, wanted in zip(together, alone, strict=True):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert Counting.replays > 20


def test_batch_norm() -> None:
    Path("own.py").write_text(OWN)
    values = {"model": {"name": "own.py:Normed"}, "optimizer": {"name": "SGD", "momentum": 0.9}}
    for together, alone in histories(values, "optimizer.lr=0.01,0.05", "seed=0,1"):
        for row, wanted in zip(together, alone, strict=True):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("optimizer", [{"name": "SGD"}, {"name": "SGD", "momentum": 0.9}, {"name": "Adam"}])
def test_a_member_that_is_not_finite_ends_with_the_weights_of_the_step_before(
    optimizer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[Fitting] = []
    make = Sweep._fitting
    monkeypatch.setattr(Sweep, "_fitting", lambda *given: trainers.append(make(*given)) or trainers[-1])
    outcomes = Sweep(expand({**BASE, "optimizer": optimizer}, ["optimizer.lr=0.01,1e30,0.02,1e25"]), runs=None).fit()
    assert [outcome.state for outcome in outcomes] == ["finished", "failed"] * 2
    for trainer, outcome in zip(trainers, outcomes, strict=True):
        alone = Trainer.from_recipe(outcome.member.recipe.replace(**{"training.execution": "eager"}), runs=None).fit()
        assert outcome.reason.partition(";")[0] == alone.reason.partition(" (")[0]
        for name, weights in trainer.parts.model.state_dict().items():
            assert weights.isfinite().all()
            assert torch.allclose(weights, alone.model.state_dict()[name], rtol=1e-2, atol=1e-4), name


def test_the_others_move_together_where_half_have_ended() -> None:
    """Those with a rate of 0 gain nothing, and early stopping ends them."""
    values = {"training": {"epochs": 6, "patience": 1, "min_delta": 1e-6, "device": "cpu"}}
    pairs = histories(values, "optimizer.lr=1e-12,1e-3,2e-12,3e-12,4e-3")
    assert [len(together) for together, _ in pairs] == [len(alone) for _, alone in pairs]
    assert len(pairs[0][0]) < len(pairs[1][0])
    for together, alone in pairs:
        for row, wanted in zip(together, alone, strict=True):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def listened(sweep: Sweep, act: Callable[[Any, EpochEnded], None]) -> list[Any]:
    sweep.on(EpochEnded, act)
    return sweep.fit()


def test_a_live_change_acts_and_one_is_stopped_and_resumed() -> None:
    sweep = Sweep(expand({**BASE, "training": {"epochs": 4, "device": "cpu"}}, ["seed=0..2"]), runs="runs")
    rates: dict[str, list[float]] = {member.label: [] for member in sweep.members}

    def act(member: Any, event: EpochEnded) -> None:
        rates[member.label].append(event.lr)
        if event.epoch == 1 and member is sweep.members[0]:
            sweep.control._led[0].change(Change("optimizer.lr", 0.5, times=True))
        if event.epoch == 2 and member is sweep.members[1]:
            sweep.control._led[1].stop("enough of this one")

    outcomes = listened(sweep, act)
    assert rates == {"seed=0": [1e-3, *[5e-4] * 3], "seed=1": [1e-3] * 2, "seed=2": [1e-3] * 4}
    assert [outcome.state for outcome in outcomes] == ["finished", "stopped", "finished"]
    stopped = outcomes[1].run
    assert (stopped.checkpoints.read("last").state["epoch"], stopped.checkpoints.read("last").state["batch"]) == (2, 0)
    resumed = Trainer.resume(stopped.path).fit()
    alone = Trainer.from_recipe(sweep.members[1].recipe.replace(**{"training.execution": "eager"}), runs=None).fit()
    assert resumed.history[-1]["val/loss"] == pytest.approx(alone.history[-1]["val/loss"], rel=1e-4)


def test_what_can_not_be_recorded_is_said_and_launched_operation_by_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(StandIn):
        def record(self, body: Callable[[], None]) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setitem(population.GRAPHS, "cpu", lambda device: Refusing())
    outcomes, said, _ = swept({}, "seed=0,1")
    assert [outcome.state for outcome in outcomes] == ["finished"] * 2
    assert said.count("can't be recorded (operation not permitted when stream is capturing)") == 2
