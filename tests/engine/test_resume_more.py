"""Exact resume with everything that a plan can add: averages, scalers, accumulation, budgets, validation on the way."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import CheckpointError, Recipe, RunError, Trainer, Validated
from tests.engine import plain
from tests.engine.test_resume import EPOCHS, RECIPE, facts, stop_at

PLANS: dict[str, dict[str, Any]] = {
    "average": {"training.ema": 0.9},
    "fp16": {"training.precision": "fp16", "scheduler": None},
    "bf16-pure": {"training.precision": "bf16-pure", "scheduler": None},
    "float64": {"training.precision": "float64"},
    "accumulate": {"training.accumulate": 5, "training.clip_norm": 0.5},
    "on the way": {"training.validate_steps": 5, "training.validate_every": 2},
    "clip and norm": {"training.clip_value": 0.01, "training.gradient_norm": True},
    "LBFGS": {"optimizer.name": "LBFGS", "optimizer.lr": 0.1, "optimizer.max_iter": 4, "scheduler": None, "model.dropout": 0.0},
    "Muon": {"optimizer.name": "Muon", "scheduler": None, "model.hidden": [8, 8]},
    "warm-up": {"scheduler.name": "CosineAnnealingLR", "scheduler.warmup": 2},
    "fold": {"data.fold": 2, "data.folds": 4},
}


def planned(name: str) -> Recipe:
    return Recipe.from_dict(RECIPE).replace(**PLANS[name])


@pytest.mark.parametrize("name", PLANS)
def test_b3_d1_e10_with_everything_a_plan_can_add(name: str, tmp_path: Path) -> None:
    whole = Trainer.from_recipe(planned(name), runs=tmp_path / "whole")
    whole.fit()
    assert whole.run is not None and whole.length.steps is not None
    for step in (1, whole.length.steps // 2, whole.length.steps - 1):
        first = Trainer.from_recipe(planned(name), runs=tmp_path / str(step))
        stop_at(first, step)
        assert first.fit().state == "stopped"
        assert first.run is not None
        second = Trainer.resume(first.run.path)
        second.fit()
        assert plain.same(second.parts.model.state_dict(), whole.parts.model.state_dict())
        assert facts(first.run) == facts(whole.run)
        if whole.loop.average is not None and second.loop.average is not None:  # E10
            assert plain.same(second.loop.average.state_dict(), whole.loop.average.state_dict())
        if whole.loop.scaler is not None and second.loop.scaler is not None:  # B3
            assert second.loop.scaler.state_dict() == whole.loop.scaler.state_dict()


def test_a_larger_budget_goes_on_in_the_middle_of_the_epoch(tmp_path: Path) -> None:
    def recipe(steps: int) -> Recipe:
        return Recipe.from_dict(RECIPE).replace(**{"training.max_steps": steps, "scheduler": None})

    whole = Trainer.from_recipe(recipe(30), runs=tmp_path / "whole")
    whole.fit()
    first = Trainer.from_recipe(recipe(17), runs=tmp_path / "part")
    assert first.fit().state == "finished" and first.step == 17
    assert first.run is not None and whole.run is not None
    assert len(facts(first.run)[1]) == 2  # the epoch that was cut has its row
    second = Trainer.resume(first.run.path, max_steps=30)
    second.fit()
    assert plain.same(second.parts.model.state_dict(), whole.parts.model.state_dict())
    assert facts(first.run) == facts(whole.run)


def test_the_best_on_the_way_is_kept(tmp_path: Path) -> None:
    recipe = planned("on the way").replace(**{"optimizer.lr": 0.5, "training.epochs": EPOCHS + 3})
    trainer = Trainer.from_recipe(recipe, runs=tmp_path)
    seen: list[Validated] = []
    trainer.on(Validated, seen.append)
    result = trainer.fit()
    assert trainer.run is not None and seen
    losses = {event.step: event.metrics["val/loss"] for event in seen}
    losses |= {event.step: event.metrics["val/loss"] for event in trainer.history.epochs if "val/loss" in event.metrics}
    assert result.best["val/loss"] == min(losses.values())
    assert losses[trainer.run.checkpoints.read("best").step] == min(losses.values())


def test_d7_changed_data_refuse_an_exact_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60)]
    (tmp_path / "data.csv").write_text("\n".join(["x,y,kind", *rows]))
    recipe = Recipe.from_dict(
        {
            "name": "table",
            "data": {"name": "csv", "path": "data.csv", "target": "kind"},
            "training": {"epochs": 2, "device": "cpu"},
        }
    )
    run = Trainer.from_recipe(recipe).fit().run
    assert run is not None
    Trainer.resume(run.path, epochs=3).fit()
    (tmp_path / "data.csv").write_text("\n".join(["x,y,kind", "3,3,a", *rows[1:]]))
    with pytest.raises(CheckpointError, match="the training data is not that of"):
        Trainer.resume(run.path, epochs=4)


@pytest.mark.parametrize("fused", [False, True])
def test_d1_images_with_their_channels_last_are_resumed_as_they_were(fused: bool, tmp_path: Path, digits: Any) -> None:
    """The file holds tensors in the usual order; a fused optimizer goes through weights and state as they lie in memory."""
    inputs, targets = digits[0][:320].view(-1, 1, 8, 8), digits[1][:320]
    ended = []
    for cuts in ((), (7, 12)):
        for steps in (*cuts, None):
            torch.manual_seed(0)
            layers = (nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 10))
            model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
            trainer = Trainer(
                model=model,
                loss=nn.CrossEntropyLoss(),
                optimizer=torch.optim.Adam(model.parameters(), fused=fused),
                train=(inputs, targets),
                epochs=2,
                device="cpu",
                max_steps=steps,
                run_dir=tmp_path / str(len(cuts)),
            )
            trainer.fit()
        ended.append(model.state_dict())
    assert plain.same(*ended)


def test_longer_where_nothing_can_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trainer.from_recipe(Recipe.from_dict(RECIPE).replace(**{"training.epochs": 1}), runs=tmp_path).fit().run

    def refused(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Recipe, "save", refused)
    assert run is not None
    with pytest.raises(RunError, match=r"recipe\.toml can't be written: Read-only file system"):
        Trainer.resume(run.path, epochs=2)
