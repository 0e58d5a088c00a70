"""A fork goes on like the run that it comes from, or from its weights alone, and says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import Recipe, RecipeError, Run, Trainer
from engine.cli import main
from engine.errors import CheckpointError, RunError
from engine.run import load_history
from engine.run.about import about
from tests.engine.test_resume import facts, recipe, stop_at

STEP = 17  # in the second of three epochs of 12 steps


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run that was stopped in the middle of an epoch, with a scheduler, dropout and batch normalization."""
    trainer = Trainer.from_recipe(recipe(), runs=tmp_path_factory.mktemp("parent"))
    stop_at(trainer, STEP)
    trainer.fit()
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.parts.model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def said(trainer: Trainer) -> list[str]:
    assert trainer.run is not None
    return [message.text for message in load_history(trainer.run).messages]


def test_unchanged_it_ends_with_the_bytes_of_the_run_that_went_on(parent: Trainer, tmp_path: Path) -> None:
    whole = Trainer.from_recipe(recipe(), runs=tmp_path / "whole")
    whole.fit()
    fork = Trainer.fork(parent.run.path, runs=tmp_path / "fork")
    fork.fit()
    assert same(weights(fork), weights(whole))
    points, epochs = facts(fork.run)
    all_points, all_epochs = facts(whole.run)
    assert points == [point for point in all_points if point[0] > STEP]
    assert [row[:4] for row in epochs] == [row[:4] for row in all_epochs[1:]]
    assert any("at step 17: the weights, the state of the optimizer and the position" in text for text in said(fork))
    record = json.loads((fork.run.path / "environment.json").read_text())["parent"]
    assert (record["run"], record["step"], record["whole"]) == (parent.run.name, STEP, True)
    assert (about(fork.run.path).parent, about(fork.run.path).parent_step) == (parent.run.name, STEP)


def test_a_fork_that_is_interrupted_at_once_is_resumed_from_where_it_began(parent: Trainer, tmp_path: Path) -> None:
    fork = Trainer.fork(parent.run.path, runs=tmp_path)
    assert fork.run.checkpoints.list()[-1][0] == STEP
    place = fork.run.path
    del fork  # killed before its first step
    resumed = Trainer.resume(place)
    assert (resumed.step, resumed.epoch) == (STEP, 1)
    resumed.fit()
    whole = Trainer.fork(parent.run.path, runs=tmp_path)
    whole.fit()
    assert same(weights(resumed), weights(whole))


def test_another_learning_rate_holds_from_the_first_step_on(tmp_path: Path) -> None:
    plain = recipe(scheduler=None)
    parent = Trainer.from_recipe(plain, runs=tmp_path)
    stop_at(parent, STEP)
    parent.fit()
    fork = Trainer.fork(parent.run.path, runs=tmp_path / "forks", **{"optimizer.lr": 3e-3, "optimizer.betas": [0.8, 0.99]})
    assert [group["betas"] for group in fork.parts.optimizer.param_groups] == [(0.8, 0.99)]
    fork.parts.optimizer.param_groups[0]["betas"] = (0.9, 0.999)
    fork.fit()
    changed = Trainer.resume(parent.run.path)
    changed.parts.optimizer.param_groups[0]["lr"] = 3e-3
    changed.fit()
    assert same(weights(fork), weights(changed))
    assert Recipe.load(fork.run.recipe_path).optimizer.arguments["lr"] == 3e-3


def test_a_scheduled_learning_rate_is_in_proportion(tmp_path: Path) -> None:
    steps = recipe(**{"scheduler.name": "StepLR", "scheduler.step_size": 1, "scheduler.gamma": 0.1})
    parent = Trainer.from_recipe(steps, runs=tmp_path)
    stop_at(parent, STEP)
    parent.fit()
    fork = Trainer.fork(parent.run.path, runs=tmp_path / "forks", **{"optimizer.lr": 3e-2})
    assert fork.parts.optimizer.param_groups[0]["lr"] == pytest.approx(3e-2 * 0.1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"data.batch_size": 8}, "differs in data.batch_size"),
        ({"optimizer.name": "SGD"}, "optimizer.name"),
        ({"scheduler": None}, "scheduler.name"),
        ({"training.ema": 0.9}, "training.ema"),
    ],
)
def test_with_another_order_or_optimizer_it_takes_the_weights_alone(parent: Trainer, tmp_path: Path, changes: Any, why: str):
    fork = Trainer.fork(parent.run.path, runs=tmp_path, **changes)
    assert (fork.step, fork.epoch, len(fork.parts.optimizer.state)) == (0, 0, 0)
    assert same(weights(fork), parent.run.checkpoints.read("last").tensors["model"])
    fork.fit()
    assert any(text.startswith("a fork of ") and "only the weights were taken" in text and why in text for text in said(fork))
    again = Trainer.from_recipe(Recipe.load(fork.run.recipe_path), runs=None)
    again.fit()
    assert same(weights(again), weights(fork)), "its recipe alone repeats it"


def test_from_any_checkpoint(tmp_path: Path) -> None:
    parent = Trainer.from_recipe(recipe(), runs=tmp_path)
    parent.fit()
    steps = [step for step, _ in parent.run.checkpoints.list()]
    fork = Trainer.fork(parent.run.path, step=steps[0], runs=tmp_path / "forks")
    assert fork.step == steps[0]
    fork.fit()
    assert same(weights(fork), weights(parent))
    longer = Trainer.fork(parent.run.path, runs=tmp_path / "forks", **{"training.epochs": 4})
    assert (longer.epoch, longer.length.epochs) == (3, 4)


def test_what_is_not_possible_is_said_before_anything_is_written(parent: Trainer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no checkpoint of step 5: there are those of steps .*17"):
        Trainer.fork(parent.run.path, step=5, runs=tmp_path)
    with pytest.raises(RecipeError, match=r"training.epochs is 1 and must be more: the checkpoint of step 17 is there already"):
        Trainer.fork(parent.run.path, runs=tmp_path, **{"training.epochs": 1})
    with pytest.raises(RecipeError, match="does not fit the model"):
        Trainer.fork(parent.run.path, runs=tmp_path, **{"model.hidden": [9]})
    own = Run.create(tmp_path / "own", "own")
    with pytest.raises(RunError, match="has no recipe"):
        Trainer.fork(own.path)
    assert not list(tmp_path.glob("2*"))


def test_on_the_command_line(parent: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(parent.run.path.parent)
    arguments = ["fork", parent.run.name, "--runs", root, "--set", "optimizer.weight_decay=0.1", "--name", "other"]
    assert main([*arguments, "--epochs", "2"]) == 0
    out, err = capsys.readouterr()
    assert "goes on from step 17 after epoch 1 of 2" in out and f"a fork of {parent.run.name} at step 17: the weights," in err
    assert main(["runs", "--runs", root, "--filter", "weight_decay"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 2 and "-other" in listed[1] and f"of {parent.run.name} at 17" in listed[1]
    assert "weight_decay 0.1" in listed[1]
    assert main(["fork", parent.run.name, "--runs", root, "--step", "first"]) == 2
    assert "must be a whole number, last or best" in capsys.readouterr().err
