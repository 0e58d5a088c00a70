"""On a GPU: members trained together in bursts of recorded steps are what each is alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import EpochEnded, Message, Sweep, Trainer
from engine.sweep import expand
from engine.trainer import Result

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

BASE: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits", "batch_size": 64},
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"epochs": 3, "device": "cuda"},
}


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)


def trained(
    values: dict[str, Any], *axes: str, runs: str | None = None
) -> tuple[Sweep, list[Any], list[list[dict[str, float]]]]:
    """The sweep, its outcomes, and the epochs of each member."""
    sweep, said = Sweep(expand({**BASE, **values}, axes), runs=runs), list[str]()
    rows: dict[str, list[dict[str, float]]] = {member.label: [] for member in sweep.members}
    sweep.on(EpochEnded, lambda member, event: rows[member.label].append({**event.metrics, "lr": event.lr}))
    sweep.on(Message, lambda member, event: said.append(event.text))
    outcomes = sweep.fit()
    assert "trained together" in said[0]
    assert not any("can't be recorded" in text for text in said), said
    return sweep, outcomes, list(rows.values())


def alone(member: Any, **changes: Any) -> Result:
    return Trainer.from_recipe(member.recipe.replace(**{"training.execution": "eager", **changes}), runs=None).fit()


@pytest.mark.parametrize(
    ("values", "axes"),
    [
        ({"optimizer": {"name": "Adam"}}, ["optimizer.lr=1e-3,1e-2", "optimizer.weight_decay=0,0.1", "seed=0,1"]),
        (
            {"optimizer": {"name": "AdamW", "lr": 3e-3}},
            ["optimizer.weight_decay=0,0.5", "optimizer.betas=[0.9, 0.999],[0.5, 0.9]"],
        ),
        ({"optimizer": {"name": "SGD", "lr": 0.05}}, ["optimizer.momentum=0,0.9", "optimizer.weight_decay=0,0.05"]),
        ({"optimizer": {"name": "SGD", "momentum": 0.8, "nesterov": True}}, ["optimizer.lr=0.01,0.1"]),
        ({"scheduler": {"name": "OneCycleLR", "max_lr": 0.05}}, ["seed=0,1"]),
        ({"training": {"epochs": 2, "clip_norm": 0.5, "clip_value": 0.02, "device": "cuda"}}, ["optimizer.lr=1e-3,1e-2"]),
        ({"loss": {"name": "CrossEntropyLoss", "weight": "balanced"}}, ["seed=0,1"]),
        ({"data": {"name": "digits", "batch_size": 64, "validation": 0.0}}, ["seed=0..3"]),
        ({"data": {"name": "digits", "images": True}, "model": {"name": "cnn", "channels": [4]}}, ["optimizer.lr=1e-3,1e-2"]),
    ],
)
def test_each_member_is_what_it_is_alone(values: dict[str, Any], axes: list[str]) -> None:
    sweep, outcomes, rows = trained(values, *axes)
    assert [outcome.state for outcome in outcomes] == ["finished"] * len(outcomes)
    for member, together in zip(sweep.members, rows, strict=True):
        wanted = [{k: v for k, v in row.items() if k not in ("epoch", "seconds")} for row in alone(member).history]
        for row, other in zip(together, wanted, strict=True):
            assert row == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_a_member_that_is_not_finite_ends_alone() -> None:
    sweep, outcomes, _ = trained({"optimizer": {"name": "SGD"}}, "optimizer.lr=0.1,1e12,0.01,0.02", runs="runs")
    assert [outcome.state for outcome in outcomes] == ["finished", "failed", "finished", "finished"]
    step = alone(sweep.members[1]).reason.partition(" at step ")[2].partition(";")[0].partition(" (")[0]
    assert f"at step {step};" in outcomes[1].reason
    for i in (0, 2, 3):
        assert outcomes[i].value == pytest.approx(alone(sweep.members[i]).best["val/loss"], rel=1e-3)


def test_each_is_resumed_as_any_run() -> None:
    _, outcomes, _ = trained({}, "seed=0,1", runs="runs")
    for outcome in outcomes:
        assert outcome.run is not None
        resumed = Trainer.resume(outcome.run.path, epochs=4).fit()
        expected = alone(outcome.member, **{"training.epochs": 4}).history[-1]["val/loss"]
        assert resumed.history[-1]["val/loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.real("it is for its pace")
def test_128_members_take_their_steps_at_500_times_the_pace_of_the_tutorial() -> None:
    """No assertion of time: it prints the member-steps a second, with all that the host does beside them."""
    data = {"name": "digits", "batch_size": 32, "validation": 0.0}
    values = {"data": data, "model": {"name": "mlp", "hidden": [128]}, "training": {"epochs": 200, "device": "cuda"}}
    sweep = Sweep(expand(values, ["optimizer.lr=1e-4..1e-2x128"]), runs=None)
    ended: list[float] = []
    sweep.on(EpochEnded, lambda member, event: ended.append(time.perf_counter()))
    assert {outcome.state for outcome in sweep.fit()} == {"finished"}
    assert len(ended) == 128 * 200
    steps = 190 * 57  # from the tenth epoch's end to the last one's, 1797 samples in batches of 32
    rate = steps / (ended[-1] - ended[128 * 10 - 1])
    print(f"\n128 digits MLPs, batch 32, Adam: {rate:.0f} steps a second of all, {128 * rate:.0f} member-steps a second")
