"""Live changes: from the next step on, on the record, and made again by a resume at the same step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine import Recipe, RecipeError, Trainer
from engine.changes import parse_change
from engine.events import EpochEnded, Event, Message, SettingChanged, Trained
from engine.run import Journal, Run
from tests.engine import plain

RECIPE: dict[str, Any] = {
    "name": "steered",
    "data": {"name": "moons", "samples": 160, "validation": 0.2, "batch_size": 16},  # 8 steps an epoch
    "model": {"name": "mlp", "hidden": [8], "dropout": 0.2},
    "optimizer": {"name": "AdamW", "lr": 1e-2},
    "training": {"epochs": 4, "device": "cpu"},
    "checkpoint": {"min_seconds": 0.0},
}
SCHEDULE = {"name": "OneCycleLR", "max_lr": 4e-2}


def trainer_of(runs: Path, **changes: Any) -> Trainer:
    return Trainer.from_recipe(Recipe.from_dict(RECIPE).replace(**changes), runs=runs)


def at_steps(trainer: Trainer, asked: dict[int, str]) -> None:
    """Ask for these changes, and to stop at "stop", while a step is being taken: they hold from the step after it."""
    taken = trainer.step

    def look(*_: Any) -> None:
        nonlocal taken
        taken += 1
        for text in asked.get(taken, "").split():
            if text == "stop":
                trainer.control.stop()
            elif text == "crash":
                raise SystemExit
            else:
                trainer.control.change(parse_change(text))

    trainer.parts.optimizer.register_step_post_hook(look)


def rates(run: Run) -> list[float]:
    events, _ = Journal.read(run.journal.path)
    return [lr for event in events if isinstance(event, Trained) for lr in event.lr]


def test_a_learning_rate_holds_from_the_next_step_on_and_is_on_the_record(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    at_steps(trainer, {3: "lr=x0.5", 10: "optimizer.lr=2e-2", 11: "weight_decay=0.3"})
    assert trainer.fit().state == "finished" and trainer.run is not None
    assert rates(trainer.run) == [1e-2] * 3 + [5e-3] * 7 + [2e-2] * 22
    stated = [event for event in Journal.read(trainer.run.journal.path)[0] if isinstance(event, SettingChanged)]
    assert [(e.step, e.field, e.before, e.value) for e in stated] == [
        (3, "optimizer.lr", 1e-2, 5e-3),
        (10, "optimizer.lr", 5e-3, 2e-2),
        (11, "optimizer.weight_decay", 1e-2, 0.3),
    ]
    assert trainer.history.settings == stated


def test_a_schedule_goes_on_in_proportion(tmp_path: Path) -> None:
    """The other way to say it: every scheduled rate times the factor, from that step on."""
    as_planned, changed = trainer_of(tmp_path, scheduler=SCHEDULE), trainer_of(tmp_path, scheduler=SCHEDULE)
    at_steps(changed, {5: "lr=x0.5", 20: "lr=x4"})
    for trainer in (as_planned, changed):
        trainer.fit()
    assert as_planned.run is not None and changed.run is not None
    factors = [1.0] * 5 + [0.5] * 15 + [2.0] * 12
    assert rates(changed.run) == pytest.approx([rate * f for rate, f in zip(rates(as_planned.run), factors, strict=True)])


@pytest.mark.parametrize("end", ["stop", "crash"])
@pytest.mark.parametrize("at", [9, 13, 14, 20])
@pytest.mark.parametrize("scheduler", [None, SCHEDULE])
def test_a_resume_makes_the_changes_at_their_steps(tmp_path: Path, end: str, at: int, scheduler: Any) -> None:
    """Whatever was saved last: with every = 1 the checkpoints are those of steps 8, 16 and 24."""
    asked = {3: "lr=x0.5", 13: "lr=x3 clip_norm=0.5 validate_every=2", 14: "weight_decay=x2"}
    whole = trainer_of(tmp_path / "whole", scheduler=scheduler)
    at_steps(whole, asked)
    whole.fit()

    first = trainer_of(tmp_path / "cut", scheduler=scheduler)
    at_steps(first, {**asked, at: f"{asked.get(at, '')} {end}"})
    if end == "crash":
        with pytest.raises(SystemExit):
            first.fit()
    else:
        first.fit()
    assert first.run is not None
    second = Trainer.resume(first.run.path)
    at_steps(second, {step: text for step, text in asked.items() if step > at or (step == at and end == "crash")})
    second.fit()
    assert plain.same(second.parts.model.state_dict(), whole.parts.model.state_dict())
    assert rates(second.run) == rates(whole.run)  # type: ignore[arg-type]
    assert [row.epoch for row in second.history.epochs if "val/loss" in row.metrics] == [1, 2, 4]
    settings = [(e.step, e.field, e.value) for e in second.history.settings]
    assert settings == [(e.step, e.field, e.value) for e in whole.history.settings]


def test_the_run_becomes_longer_and_stays_so(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)
    at_steps(trainer, {12: "epochs=6", 20: "epochs=1", 41: "stop"})
    problems: list[str] = []
    trainer.on(Message, lambda event: problems.append(event.text))
    result = trainer.fit()
    assert result.state == "stopped" and result.run is not None
    assert problems == ["training.epochs = 1 is past: epoch 3 is under way"]
    assert trainer.history.started is not None and trainer.history.started.epochs == 6
    assert trainer.history.started.total_steps == 48
    assert len(Trainer.resume(result.run.path).fit().history) == 6


def test_patience_and_checkpoints(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **{"training.epochs": 9, "optimizer.lr": 1e-9, "training.min_delta": 10.0})
    at_steps(trainer, {1: "patience=2 checkpoint.every=3"})
    result = trainer.fit()
    assert "no better" in result.reason and len(result.history) == 3
    kept = [step for step, _ in trainer.run.checkpoints.list()]  # type: ignore[union-attr]
    assert kept == [8, 24], "the best and the last, none of the second epoch"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("patience=x2", "no value that could be multiplied"),
        ("epochs=x0.1", "a whole number of 1 or more"),
        ("lr=x1e400", "number above 0"),
    ],
)
def test_what_is_not_possible_is_a_sentence_and_changes_nothing(tmp_path: Path, text: str, says: str) -> None:
    trainer = trainer_of(tmp_path, **{"training.epochs": 1})
    stated: list[Event] = []
    trainer.on(Event, stated.append)
    try:
        at_steps(trainer, {2: text})
        trainer.fit()
    except RecipeError as error:  # said by who asks
        assert says in str(error)
        return
    assert any(isinstance(event, Message) and says in event.text for event in stated)
    assert not any(isinstance(event, SettingChanged) for event in stated)


def test_an_optimizer_without_the_field(tmp_path: Path) -> None:
    own = torch.nn.Linear(2, 2)
    trainer = Trainer(
        model=own,
        loss=torch.nn.MSELoss(),
        optimizer=torch.optim.Rprop(own.parameters()),
        train=(torch.randn(8, 2), torch.randn(8, 2)),
        batch_size=2,
        device="cpu",
    )
    at_steps(trainer, {1: "weight_decay=1"})
    said: list[str] = []
    trainer.on(Message, lambda event: said.append(event.text))
    trainer.fit()
    assert said == ["optimizer.weight_decay is not known to Rprop"]


def test_an_epoch_says_what_it_was_trained_with(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **{"training.epochs": 2})
    at_steps(trainer, {8: "lr=x0.1"})
    ended: list[EpochEnded] = []
    trainer.on(EpochEnded, ended.append)
    trainer.fit()
    assert [event.lr for event in ended] == pytest.approx([1e-2, 1e-3])
