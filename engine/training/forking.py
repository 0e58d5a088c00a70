"""Forking: a new run that begins at a checkpoint of another, with a recipe of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.assemble import assemble
from engine.changes import Change
from engine.control import Control
from engine.distributed import leading, refuse_others, writes
from engine.errors import CheckpointError, Problem, RecipeError, RunError, named
from engine.parts import Parts
from engine.recipe import Recipe
from engine.recipe_text import differences
from engine.run import Run, Saved, files
from engine.track.attach import refuse_missing
from engine.training import steering

if TYPE_CHECKING:
    from engine.trainer import Trainer

Made = Callable[[Parts, Recipe, Run | None, Control | None], "Trainer"]

# What a fork may change and still go on from the same place: the state of the optimizer and the position keep their meaning.
_SECTIONS = ("loss", "training", "checkpoint", "track")
_KEYS = ("name", "data.workers")
_NOT = ("training.precision", "training.accumulate", "training.ema", "training.weights",
        "training.weights_except", "training.freeze", "training.freeze_epochs",
        "optimizer.name", "optimizer.groups", "optimizer.no_decay")  # fmt: skip


def fork(
    made: Made,
    of: str | Path,
    recipe: Recipe | None,
    changes: Mapping[str, Any],
    step: int | str,
    runs: str | Path | None,
    control: Control | None,
) -> Trainer:
    """See `Trainer.fork`."""
    parent = Run.open(of)
    parent.refuse_without_recipe("begin another like it")
    theirs = Recipe.load(parent.recipe_path)
    recipe = (recipe or theirs).replace(**changes) if changes else recipe or theirs
    if not isinstance(step, str | int):
        raise RunError(f'the step is {named(step)}; it must be "last", "best" or the number of one')
    saved = _checkpoint(parent, step)
    changed = [key for key, _, _ in differences(theirs.to_dict(), recipe.to_dict())]
    in_the_way = [key for key in changed if not _goes_on(key)]
    parts = None
    if not in_the_way:
        parts = assemble(recipe.replace(**{"training.weights": None}))
        if saved.state["fingerprint"] != parts.fingerprint:
            in_the_way = ["the data themselves"]
        else:
            groups = parts.optimizer.param_groups
            options = [key for key in changed if key.startswith("optimizer.")]
            in_the_way = [key for key in options if any(key.partition(".")[2] not in group for group in groups)]
    refuse_missing(recipe.track)
    if in_the_way or parts is None:
        left_out = recipe.training.weights_except if "training.weights_except" in changed else []  # not what it began without
        place = str((saved.path / "model.safetensors").resolve())
        recipe = recipe.replace(**{"training.weights": place, "training.weights_except": left_out})
        parts = assemble(recipe)
        said = f"only the weights were taken, because the recipe differs in {', '.join(in_the_way)}"
    else:
        _refuse_without_an_end(recipe, parts, saved)
        said = "the weights, the state of the optimizer and the position in the data are those of that step"
    record = {"run": parent.name, "path": str(parent.path.resolve()), "step": saved.step, "whole": not in_the_way}
    refuse_others(parts)
    with leading():
        run = Run.of_recipe(runs or parent.path.parent, recipe, parent=record) if writes() else None
    trainer = made(parts, recipe, run, control)
    trainer.note(f"a fork of {parent.name} at step {saved.step:,}: {said}", *saved.passed_over)
    if not in_the_way:
        try:
            _go_on(trainer, theirs, recipe, changed, saved)
        except BaseException:
            trainer.run = None
            if run is not None:
                files.remove(run.path)
            raise
    return trainer


def _checkpoint(parent: Run, step: int | str) -> Saved:
    there = [number for number, _ in parent.checkpoints.list()]
    if isinstance(step, int) and step not in there:
        several = f"there are those of steps {', '.join(map(str, there))}" if there else "it has none"
        raise CheckpointError(f"{parent.name} has no checkpoint of step {step}: {several}")
    return parent.checkpoints.read(step)


def _goes_on(key: str) -> bool:
    if key in _NOT:
        return False
    return key in _KEYS or key.partition(".")[0] in (*_SECTIONS, "optimizer")


def _refuse_without_an_end(recipe: Recipe, parts: Parts, saved: Saved) -> None:
    """A fork at the end of the plan has nothing to do."""
    planned = recipe.training.length(parts.train.length)
    if saved.state["epoch"] >= planned.epochs or (planned.steps is not None and saved.step >= planned.steps):
        field = "training.epochs" if recipe.training.max_steps is None else "training.max_steps"
        value = recipe.training.epochs if recipe.training.max_steps is None else recipe.training.max_steps
        raise RecipeError(
            [Problem(field, f"{field} is {value} and must be more: the checkpoint of step {saved.step} is there already")]
        )


def _go_on(trainer: Trainer, theirs: Recipe, recipe: Recipe, changed: list[str], saved: Saved) -> None:
    """Put the trainer where the checkpoint is; what the recipe changes holds from the next step on."""
    optimizer = trainer.parts.optimizer
    given = [dict(group) for group in optimizer.param_groups]  # as the new recipe has them
    trainer.begin_at(saved, except_for=tuple(changed))
    for key in changed:
        section, _, name = key.partition(".")
        if key == "optimizer.lr":
            _set_rate(trainer, theirs, recipe)
        elif section == "optimizer":
            for group, wanted in zip(optimizer.param_groups, given, strict=True):
                group[name] = wanted[name]
    trainer.save_beginning()


def _set_rate(trainer: Trainer, theirs: Recipe, recipe: Recipe) -> None:
    """The rate itself; where a schedule moves it, in proportion, so that it is where this recipe's own schedule would be."""
    value = recipe.to_dict()["optimizer"]["lr"]
    before = theirs.to_dict()["optimizer"]["lr"]
    times = trainer.parts.schedule is not None
    steering.apply(trainer, Change("optimizer.lr", value / before if times else value, times))
