"""Promises 2 and 3: a run that was stopped and resumed is the run that was never stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import Control, EpochEnded, Recipe, Run, Trained, Trainer
from engine.run import load_history
from tests.engine import plain

EPOCHS, STEPS = 3, 12  # 12 steps an epoch

RECIPE: dict[str, Any] = {
    "name": "resume",
    "seed": 5,
    "data": {"name": "moons", "samples": 240, "validation": 0.2, "batch_size": 16},
    "model": {"name": "mlp", "hidden": [8], "dropout": 0.3, "batch_norm": True},
    "loss": {"name": "CrossEntropyLoss"},
    "optimizer": {"name": "Adam", "lr": 1e-2},
    "scheduler": {"name": "OneCycleLR", "max_lr": 5e-2},
    "training": {"epochs": EPOCHS, "device": "cpu"},
    "checkpoint": {"min_seconds": 0.0},
}


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict(RECIPE).replace(**changes)


def stop_at(trainer: Trainer, step: int) -> None:
    """Ask for a stop while that step is being taken."""
    taken = trainer.step

    def look(*_: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == step:
            trainer.control.stop()

    trainer.parts.optimizer.register_step_post_hook(look)


def facts(run: Run) -> tuple[list[tuple[int, float, float]], list[tuple[int, int, dict[str, float], float, bool]]]:
    """What the journal says of steps and epochs, without the times."""
    history = load_history(run)
    rates = dict(zip(*history.series["lr"].columns()[:2], strict=True))
    points = [(step, mean, rates[step]) for step, mean, _, _ in history.series["train/loss"]]
    return points, [(e.epoch, e.step, dict(e.metrics), e.lr, e.best) for e in history.epochs]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = Trainer.from_recipe(recipe(), runs=tmp_path_factory.mktemp("whole"))
    trainer.fit()
    return trainer


@pytest.mark.parametrize("step", range(1, EPOCHS * STEPS))
def test_d1_stopped_at_any_step_and_resumed(step: int, whole: Trainer, tmp_path: Path) -> None:
    first = Trainer.from_recipe(recipe(), runs=tmp_path)
    stop_at(first, step)
    assert first.fit().state == "stopped" and first.step == step
    assert first.run is not None and whole.run is not None

    torch.manual_seed(999)  # another process: its generators are anywhere
    second = Trainer.resume(first.run.path)
    result = second.fit()
    assert result.state == "finished"
    assert plain.same(result.model.state_dict(), whole.parts.model.state_dict())
    ours, theirs = second.parts.optimizer.state_dict(), whole.parts.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for index, values in theirs["state"].items():
        assert plain.same(ours["state"][index], values)
    assert facts(first.run) == facts(whole.run)
    assert [row["val/loss"] for row in result.history] == [e.metrics["val/loss"] for e in whole.history.epochs]


SCHEDULES = [
    {"name": "StepLR", "step_size": 1, "gamma": 0.5},
    {"name": "MultiStepLR", "milestones": [1, 2]},
    {"name": "CosineAnnealingLR"},
    {"name": "CosineAnnealingWarmRestarts", "T_0": 2},
    {"name": "CyclicLR", "base_lr": 0.001, "max_lr": 0.1, "step_size_up": 5},
    {"name": "ExponentialLR", "gamma": 0.9},
    {"name": "LinearLR"},
    {"name": "PolynomialLR"},
    {"name": "ReduceLROnPlateau", "patience": 0},
]


@pytest.mark.parametrize("scheduler", SCHEDULES, ids=lambda scheduler: scheduler["name"])
def test_c1_learning_rates_of_a_resumed_run(scheduler: dict[str, Any], tmp_path: Path) -> None:
    values = {**RECIPE, "scheduler": scheduler, "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.5}}
    rates: list[list[float]] = []
    for stop in (None, 1, STEPS, STEPS + 5, 2 * STEPS):
        trainer = Trainer.from_recipe(Recipe.from_dict(values), runs=tmp_path / str(stop))
        seen: list[float] = []
        trainer.on(Trained, lambda event, seen=seen: seen.extend(event.lr))
        if stop is not None:
            stop_at(trainer, stop)
        trainer.fit()
        if stop is not None:
            assert trainer.run is not None
            trainer = Trainer.resume(trainer.run.path)
            trainer.on(Trained, lambda event, seen=seen: seen.extend(event.lr))
            trainer.fit()
        rates.append(seen)
    assert len(rates[0]) == EPOCHS * STEPS
    assert all(other == rates[0] for other in rates[1:])


@pytest.mark.parametrize("name", ["OneCycleLR", "CosineAnnealingLR"])
def test_c7_more_epochs_hold_the_last_learning_rate(name: str, tmp_path: Path) -> None:
    scheduler = {"name": name} | ({"max_lr": 0.05} if name == "OneCycleLR" else {})
    first = Trainer.from_recipe(Recipe.from_dict({**RECIPE, "scheduler": scheduler}), runs=tmp_path)
    first.fit()
    assert first.run is not None
    second = Trainer.resume(first.run.path, epochs=EPOCHS + 2)
    result = second.fit()
    rates = {row["epoch"]: row["lr"] for row in result.history}
    assert len(rates) == EPOCHS + 2
    assert rates[EPOCHS + 1] == rates[EPOCHS + 2] <= rates[EPOCHS]
    assert Recipe.load(first.run.recipe_path).training.epochs == EPOCHS + 2


def test_c5_best_and_patience_survive(tmp_path: Path) -> None:
    values = {**RECIPE, "optimizer": {"name": "SGD", "lr": 0.0}, "model": {"name": "linear"}, "scheduler": None}
    del values["scheduler"]
    patient = Recipe.from_dict(values).replace(**{"training.patience": 4, "training.epochs": 30})
    first = Trainer.from_recipe(patient, runs=tmp_path)
    first.on(EpochEnded, lambda event: first.control.stop() if event.epoch == 3 else None)
    assert first.fit().state == "stopped"
    assert first.run is not None
    result = Trainer.resume(first.run.path).fit()
    assert result.state == "finished" and result.best["epoch"] == 1
    assert len(result.history) == 5  # the best, and four without a gain, before and after the resume together


def test_e11_best_is_the_best_also_after_a_resume(tmp_path: Path) -> None:
    first = Trainer.from_recipe(recipe(**{"training.monitor": "val/accuracy"}), runs=tmp_path)
    stop_at(first, 2 * STEPS)
    first.fit()
    assert first.run is not None
    result = Trainer.resume(first.run.path, epochs=8).fit()
    best = max(result.history, key=lambda row: row["val/accuracy"])  # the first of equals
    assert result.best["epoch"] == best["epoch"]
    saved = first.run.checkpoints.read("best")
    assert saved.state["epoch"] == best["epoch"]


def test_best_is_written_although_checkpoints_are_rare(tmp_path: Path) -> None:
    rare = recipe(**{"checkpoint.min_seconds": 1000.0, "optimizer.lr": 0.5, "training.epochs": 6})
    trainer = Trainer.from_recipe(rare, runs=tmp_path)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    model = trainer.parts.model
    trainer.on(EpochEnded, lambda e: kept.update({e.epoch: {k: v.clone() for k, v in model.state_dict().items()}}))
    result = trainer.fit()
    assert trainer.run is not None
    saved = trainer.run.checkpoints.read("best")
    assert saved.state["epoch"] == result.best["epoch"]
    assert plain.same(saved.tensors["model"], kept[int(result.best["epoch"])])
    assert trainer.run.checkpoints.read("last").step == 6 * STEPS


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path, whole: Trainer) -> None:
    first = Trainer.from_recipe(recipe(), runs=tmp_path)

    def die(*_: Any) -> None:
        raise SystemExit  # as near to a kill as one process comes: nothing is saved

    first.parts.optimizer.register_step_pre_hook(die)
    with pytest.raises(SystemExit):
        first.fit()
    assert first.run is not None
    second = Trainer.resume(first.run.path)
    assert second.fit().state == "finished"
    assert plain.same(second.parts.model.state_dict(), whole.parts.model.state_dict())
    assert whole.run is not None and facts(first.run) == facts(whole.run)


def test_ones_own_objects_continue_in_their_run_dir(digits: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> None:
    def trainer(epochs: int, control: Control | None = None) -> Trainer:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 10))
        optimizer = torch.optim.Adam(model.parameters())
        data = digits[0][:100], digits[1][:100]
        return Trainer(
            model=model,
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer,
            train=data,
            epochs=epochs,
            device="cpu",
            run_dir=tmp_path / "mine",
            control=control,
        )

    trainer(2).fit()
    second = trainer(5)
    assert second.epoch == 2
    second.fit()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 10))
    plain.train(
        model,
        nn.CrossEntropyLoss(),
        torch.optim.Adam(model.parameters()),
        (digits[0][:100], digits[1][:100]),
        epochs=5,
    )
    assert plain.same(second.parts.model.state_dict(), model.state_dict())


def test_a_resume_with_nothing_left_to_do_tidies_up(whole: Trainer, tmp_path: Path) -> None:
    """What a writer leaves that was killed while it removed an old checkpoint, after the last one was there."""
    assert whole.run is not None
    run = tmp_path / "run"
    shutil.copytree(whole.run.path, run, symlinks=True, ignore=shutil.ignore_patterns(".lock"))
    gone = run / "checkpoints" / ".gone-step-00000012"
    gone.mkdir()
    (gone / "state.json").write_text("{}")
    assert Trainer.resume(run).fit().state == "finished"
    assert not gone.exists() and plain.same(
        Run.open(run).checkpoints.read("last").tensors["model"], whole.parts.model.state_dict()
    )


def test_a_stop_before_the_first_step_of_an_epoch_writes_the_same_checkpoint_again(whole: Trainer, tmp_path: Path) -> None:
    stopped = Trainer.from_recipe(recipe(), runs=tmp_path)
    stopped.on(EpochEnded, lambda event: stopped.control.stop() if event.epoch == 1 else None)
    stopped.fit()
    assert stopped.run is not None and whole.run is not None and stopped.step == STEPS
    again, before = (run.checkpoints.read(STEPS).state for run in (stopped.run, whole.run))
    for state in (again, before):
        for clock in ("elapsed", "epoch_seconds"):
            del state[clock]
        del state["best"]["row"]["seconds"]
    assert again == before
