"""Steering: changes to a plan while it is carried out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from engine.changes import EXECUTIONS, Change
from engine.errors import Problem, RecipeError

if TYPE_CHECKING:
    from engine.training.epochs import Epochs


def apply(trainer: Epochs, change: Change) -> tuple[float | None, float | None]:
    """Make the change; what it was before, and what it is. RecipeError, and nothing is changed, where it is not possible."""
    before: float | None
    match change.field:
        case "optimizer.lr":
            return _learning_rate(trainer, change)
        case "optimizer.weight_decay":
            return _weight_decay(trainer, change)
        case "training.execution":  # not by a person: what `auto` has decided
            before = float(EXECUTIONS.index(trainer.taking))
            assert change.value is not None
            if trainer.whole is not None:
                trainer.whole.take(EXECUTIONS[int(change.value)])
            return before, change.value
        case "checkpoint.every":
            before = trainer.checkpoint.every
        case field:
            before = getattr(trainer.plan, field.partition(".")[2])
    value = change.of(before)
    if change.field == "training.epochs":
        _refuse_epochs(trainer, value)
    put(trainer, change.field, value)
    return before, value


def put(trainer: Epochs, field: str, value: float | None) -> None:
    """Set a field of the plan, and all that follows from it."""
    section, _, name = field.partition(".")
    changes: dict[str, Any] = {name: value}
    if section == "checkpoint":
        trainer.checkpoint = dataclasses.replace(trainer.checkpoint, **changes)
        if trainer.saver is not None:
            trainer.saver.plan = trainer.checkpoint
    else:
        trainer.plan = dataclasses.replace(trainer.plan, **changes)
    trainer.changed[field] = value
    match field:
        case "training.clip_norm":
            trainer.loop.clip_norm = value
        case "training.clip_value":
            trainer.loop.clip_value = value
        case "training.patience":
            trainer.best.patience = trainer.plan.patience
        case "training.epochs":
            trainer.length = trainer.plan.length(trainer.parts.train.length)


def _learning_rate(trainer: Epochs, change: Change) -> tuple[float, float]:
    groups, schedule = trainer.parts.optimizer.param_groups, trainer.parts.schedule
    before = float(groups[0]["lr"])
    value = change.of(before)
    assert value is not None
    if before == 0.0:
        raise _refused("optimizer.lr", "is 0 at this step, and what follows is in proportion to it")
    if schedule is not None:
        schedule.scale(value / before)
    else:
        for group in groups:
            group["lr"] *= value / before
    groups[0]["lr"] = value  # to the last bit
    return before, value


def _weight_decay(trainer: Epochs, change: Change) -> tuple[float, float]:
    groups = [group for group in trainer.parts.optimizer.param_groups if "weight_decay" in group]
    if not groups:
        raise _refused("optimizer.weight_decay", f"is not known to {type(trainer.parts.optimizer).__name__}")
    decayed = [group for group in groups if group["weight_decay"]] or groups  # biases that are spared stay spared
    before = float(decayed[0]["weight_decay"])
    value = change.of(before)
    assert value is not None
    for group in decayed:
        group["weight_decay"] = value
    return before, value


def _refuse_epochs(trainer: Epochs, value: float | None) -> None:
    if trainer.plan.max_steps is not None:
        raise _refused("training.epochs", f"is not used: the run has a budget of {trainer.plan.max_steps} steps")
    under_way = trainer.epoch + 1
    if value is not None and value < under_way:
        raise _refused("training.epochs", f"= {value:g} is past: epoch {under_way} is under way")


def _refused(field: str, says: str) -> RecipeError:
    return RecipeError([Problem(field, f"{field} {says}")])
