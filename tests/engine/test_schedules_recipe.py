"""Schedules and optimizers of recipes through the trainer, and what is said of mistakes in a [scheduler] section."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import optim
from torch.optim import lr_scheduler as torchs

from engine import Recipe, Trainer, catalog
from engine.errors import RecipeError
from engine.recipe import Component
from tests.engine import plain
from tests.engine.test_schedules import LR, STEPS, built, by_hand, rates, sgd


def test_c2_with_accumulation_steps_are_the_optimizers(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(
        {
            "data": {"name": "line", "batch_size": 8},
            "model": {"name": "linear"},
            "optimizer": {"name": "SGD", "lr": LR},
            "scheduler": {"name": "CosineAnnealingLR", "unit": "step", "warmup": 3},
            "training": {"epochs": 3, "accumulate": 4, "device": "cpu"},
        }
    )
    trainer = Trainer.from_recipe(recipe, runs=None)
    assert trainer.parts.train.length is not None
    total = 3 * math.ceil(trainer.parts.train.length / 4)
    used: list[float] = []
    optimizer = trainer.parts.optimizer
    optimizer.register_step_pre_hook(lambda *_: used.append(optimizer.param_groups[0]["lr"]))
    trainer.fit()

    def make(optimizer: optim.Optimizer) -> Any:
        parts = [torchs.LinearLR(optimizer, 0.01, 1.0, 3), torchs.CosineAnnealingLR(optimizer, total - 3)]
        return torchs.SequentialLR(optimizer, parts, milestones=[3])

    assert used == [rate for (rate,) in by_hand(make, total)]


COMBINATIONS: list[dict[str, Any]] = [
    {
        "optimizer": {"name": "Muon", "lr": 0.02, "no_decay": True, "groups": [{"pattern": "layers.1.*", "lr": 0.01}]},
        "scheduler": {
            "name": "chain",
            "unit": "step",
            "chain": [
                {"name": "LinearLR", "length": 5},
                {"name": "OneCycleLR", "length": 9, "cycle_momentum": False},
                {"name": "CosineAnnealingLR"},
            ],
        },
    },
    {
        "optimizer": {"name": "LBFGS", "lr": 0.1, "max_iter": 3},
        "scheduler": {"name": "ReduceLROnPlateau", "patience": 0, "warmup": 9, "warmup_unit": "step"},
    },
    {
        "optimizer": {"name": "AdamW", "groups": [{"pattern": "*.bias", "lr": 0.01, "weight_decay": 0.0}]},
        "scheduler": {
            "name": "CyclicLR",
            "base_lr": 0.001,
            "max_lr": 0.01,
            "step_size_up": 4,
            "warmup": 1,
            "warmup_unit": "epoch",
        },
    },
]


@pytest.mark.parametrize("step", [1, 4, 8, 9, 13, 17])
@pytest.mark.parametrize("parts", COMBINATIONS, ids=lambda parts: parts["scheduler"]["name"])
def test_c1_a_stopped_run_of_combined_parts_goes_on_bit_for_bit(parts: dict[str, Any], step: int, tmp_path: Path) -> None:
    recipe = Recipe.from_dict(
        {
            "data": {"name": "moons", "samples": 120, "batch_size": 16},
            "model": {"name": "mlp", "hidden": [8, 8]},
            "training": {"epochs": 3, "device": "cpu"},
            **parts,
        }
    )
    whole = Trainer.from_recipe(recipe, runs=None)
    whole.fit()
    first = Trainer.from_recipe(recipe, runs=tmp_path)
    taken = []
    first.parts.optimizer.register_step_post_hook(
        lambda *_: (taken.append(1), len(taken) == step and first.control.stop())  # type: ignore[func-returns-value]
    )
    assert first.fit().state == "stopped" and first.run is not None
    torch.manual_seed(999)
    second = Trainer.resume(first.run.path)
    assert second.fit().state == "finished"
    assert plain.same(second.parts.model.state_dict(), whole.parts.model.state_dict())
    assert [group["lr"] for group in second.parts.optimizer.param_groups] == [
        group["lr"] for group in whole.parts.optimizer.param_groups
    ]


# Mistakes.


@pytest.mark.parametrize(
    ("scheduler", "field", "words"),
    [
        ({"name": "OneCycleLR", "warmup": 3}, "scheduler.warmup", "warms up itself"),
        ({"name": "StepLR", "step_size": 2, "warmup": -1}, "scheduler.warmup", "at least 0"),
        ({"name": "constant", "warmup": 2, "warmup_start": 0}, "scheduler.warmup_start", "from 1e-06 to 1"),
        ({"name": "constant", "warmup": 2, "warmup_unit": "batch"}, "scheduler.warmup_unit", "one of epoch, step"),
        ({"name": "ConstantLR", "factor": 0}, "scheduler.factor", "at least 1e-06"),
        ({"name": "SequentialLR"}, "scheduler.name", "name a chain instead"),
        ({"name": "ChainedScheduler"}, "scheduler.name", "name a chain"),
        ({"name": "LambdaLR"}, "scheduler.name", "file.py:name"),
        ({"name": "chain"}, "scheduler.chain", "is missing; it must be a list of tables"),
        ({"name": "chain", "chain": []}, "scheduler.chain", "is empty"),
        ({"name": "chain", "chain": ["StepLR"]}, "scheduler.chain", "a list of tables"),
        ({"name": "chain", "chain": [{"length": 3}]}, "scheduler.chain[0].name", "is missing"),
        ({"name": "chain", "chain": [{"name": "chain"}]}, "scheduler.chain[0].name", "can't be part of one"),
        ({"name": "chain", "chain": [{"name": "StpLR"}]}, "scheduler.chain[0].name", "the nearest is 'StepLR'"),
        ({"name": "chain", "chain": [{"name": "LambdaLR"}]}, "scheduler.chain[0].name", "takes a function"),
        (
            {"name": "chain", "chain": [{"name": "constant"}, {"name": "constant"}]},
            "scheduler.chain[0].length",
            "is missing; it must be an integer of at least 1",
        ),
        ({"name": "chain", "chain": [{"name": "StepLR"}]}, "scheduler.chain[0].step_size", "is missing"),
        (
            {"name": "chain", "chain": [{"name": "constant", "lenght": 2}]},
            "scheduler.chain[0].lenght",
            "the nearest is 'length'",
        ),
        ({"name": "chain", "chain": [{"name": "constant", "unit": "step"}]}, "scheduler.chain[0].unit", "no field of constant"),
        (
            {"name": "chain", "chain": [{"name": "LinearLR", "start_factor": 2}]},
            "scheduler.chain[0].start_factor",
            "LinearLR says",
        ),
        (
            {"name": "chain", "unit": "step", "chain": [{"name": "ReduceLROnPlateau"}]},
            "scheduler.chain[0].name",
            "must be 'epoch'",
        ),
    ],
)
def test_mistakes(scheduler: dict[str, Any], field: str, words: str) -> None:
    (problem,) = catalog.problems({"scheduler": scheduler})
    assert problem.field == field and words in problem.message and "\n" not in problem.message


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("constant", {"warmup": 7}, "scheduler.warmup is 7, and the run has 6 epochs"),
        ("constant", {"warmup": 25, "unit": "step"}, "scheduler.warmup is 25, and the run has 24 steps"),
        ("chain", {"chain": [{"name": "constant", "length": 7}, {"name": "constant"}]}, r"chain\[0\].length is 7"),
        ("OneCycleLR", {"steps": None}, "scheduler.total_steps must be given"),
        ("constant", {"steps": None, "unit": "step", "warmup": 1, "warmup_unit": "epoch"}, "warmup_unit must be 'step'"),
        ("OneCycleLR", {"steps": 2, "epochs": 1, "pct_start": 0.5}, "can't be made for this run"),
    ],
)
def test_what_does_not_fit_the_run(name: str, options: dict[str, Any], words: str) -> None:
    _, optimizer = sgd()
    with pytest.raises(RecipeError, match=words):
        built(optimizer, name, **options)


def test_momentum_cycles_with_a_pair_are_refused_in_one_sentence() -> None:
    values = {"optimizer": {"name": "Muon"}, "scheduler": {"name": "OneCycleLR"}}
    assert [problem.field for problem in catalog.problems(values)] == ["scheduler.name"]
    values["scheduler"]["cycle_momentum"] = False  # type: ignore[assignment]
    assert catalog.problems(values) == ()


def test_none_is_a_constant() -> None:
    recipe = Recipe.from_dict({"scheduler": {"name": "none", "warmup": 3}})
    assert recipe.scheduler == Component("constant", {"warmup": 3})


def test_own_functions_warm_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "from torch.optim.lr_scheduler import LambdaLR\ndef inverse(optimizer, power: float = 1.0):\n"
    (tmp_path / "own.py").write_text(text + "    return LambdaLR(optimizer, lambda unit: (unit + 1) ** -power)\n")
    model, optimizer = sgd()
    found = rates(model, optimizer, built(optimizer, "own.py:inverse", warmup=2, power=0.5, unit="step"))
    expected = by_hand(lambda optimizer: torchs.LambdaLR(optimizer, lambda unit: (unit + 1) ** -0.5), STEPS - 2)
    assert found[2:] == expected
