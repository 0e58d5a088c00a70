"""Trainer: the doors to a training. What goes on behind them is in `training/`, from `fitting` down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.control import Control
from engine.distributed import first, leading, refuse_others, writes
from engine.errors import RunError
from engine.metrics import Metric
from engine.recipe import Checkpoint, Recipe, Track
from engine.run import Run
from engine.track.attach import refuse_missing
from engine.training.fitting import Fitting, Result

if TYPE_CHECKING:
    from engine.parts import Parts

__all__ = ["Result", "Trainer"]


class Trainer(Fitting):
    """Trains parts. Four ways to one: `Trainer(...)` with one's own objects, `from_recipe`, `resume`, `fork`.

    `on(EpochEnded, listener)` calls `listener(event)` in the training thread. `control` takes requests from any thread.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Callable[[Any, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        train: Any,
        validation: Any = None,
        scheduler: Any = None,
        epochs: int = 1,
        device: str = "auto",
        batch_size: int = 32,
        seed: int = 0,
        metrics: dict[str, Metric] | None = None,
        run_dir: str | Path | None = None,
        checkpoint: Checkpoint | None = None,
        control: Control | None = None,
        name: str | None = None,
        track: Track | None = None,
        **plan: Any,
    ) -> None:
        """Bring one's own objects; they are used as they are and nothing is reseeded.

        `loss(output, targets)` returns a mean over the batch. `train` and `validation` are DataLoaders (or other iterables
        of `(inputs, targets)`), Datasets, or `(inputs, targets)` tensors, which are batched by `batch_size` in an order
        that follows from `seed`. `scheduler` is torch's; it steps as torch's documentation steps its class. `plan` takes the
        other fields of `engine.recipe.Training` by name (precision, execution, accumulate, clip_norm, monitor, patience, …).
        With `run_dir` the run is written there, and a run that is already there is continued. `track` says who else is told.

        Raises RecipeError in one sentence: a value that can't be, a pair of unequal lengths, an optimizer of another model.
        """
        from engine.parts.own import own_parts, own_plan

        refuse_missing(track or Track())
        training = own_plan(epochs=epochs, device=device, **plan)
        parts = own_parts(model, loss, optimizer, train, validation, scheduler, metrics, training, batch_size, seed)
        refuse_others(parts)
        run, continued = None, False
        with leading():
            if run_dir is not None and writes():
                run, continued = Run.at(run_dir)
                if continued:
                    run.refuse_if_training()
        continued = first(continued)
        super().__init__(parts, training, checkpoint or Checkpoint(), name or type(model).__name__, run, control)
        self.tell_others(track or Track(), {"training": dataclasses.asdict(training)})
        if continued:
            self.restore()

    @classmethod
    def from_recipe(
        cls, recipe: Recipe | str | Path, *, runs: str | Path | None = "runs", control: Control | None = None
    ) -> Trainer:
        """Assemble a recipe, or that of a file. Its run directory is made below `runs`, none with None.

        Raises RecipeError, one sentence a mistake, before anything is written.
        """
        from engine.assemble import assemble

        if not isinstance(recipe, Recipe):
            recipe = Recipe.load(recipe)
        refuse_missing(recipe.track)
        parts = assemble(recipe)
        refuse_others(parts)
        run = None
        with leading():
            if runs is not None and writes():
                run = Run.of_recipe(runs, recipe)
        return cls._made(parts, recipe, run, control)

    @classmethod
    def resume(
        cls, run: str | Path, *, epochs: int | None = None, max_steps: int | None = None, control: Control | None = None
    ) -> Trainer:
        """Continue a run from its last whole checkpoint, from the start if it has none.

        More `epochs` or `max_steps` replace the length of the recipe, its budgets of steps and minutes included.

        Raises RunError, RecipeError or CheckpointError when it can't be continued.
        """
        from engine.assemble import assemble

        opened, recipe, begun = None, Recipe(), False
        longer = epochs is not None or max_steps is not None
        with leading():
            if writes():
                opened = Run.open(run)
                opened.refuse_if_training()
                opened.refuse_without_recipe()
                recipe = Recipe.load(opened.recipe_path)
                if longer:
                    length = {
                        "training.epochs": recipe.training.epochs if epochs is None else epochs,
                        "training.max_steps": max_steps,
                    }
                    recipe = recipe.replace(**length, **{"training.max_minutes": None})
                    try:
                        recipe.save(opened.recipe_path)
                    except OSError as error:
                        raise RunError(f"{opened.recipe_path} can't be written: {error.strerror}") from error
                begun = bool(opened.checkpoints.list())  # the weights to start from are not needed any more
        recipe, begun = first((recipe, begun))
        parts = assemble(recipe.replace(**{"training.weights": None}) if begun else recipe)
        refuse_others(parts)
        trainer = cls._made(parts, recipe, opened, control)
        trainer.restore(except_for=("training.epochs",) if longer else ())
        if longer:  # asked for: patience that had run out starts again
            trainer.best.waited = 0
        return trainer

    @classmethod
    def fork(
        cls,
        run: str | Path,
        recipe: Recipe | None = None,
        *,
        step: int | str = "last",
        runs: str | Path | None = None,
        control: Control | None = None,
        **changes: Any,
    ) -> Trainer:
        """A new run that begins where another one was at a checkpoint ("last", "best" or that of a step).

        recipe: its recipe; left out, that of the other run. `changes` are made to it, by dotted keys, as in `Recipe.replace`.
        runs: where its directory is made; left out, beside the other.

        Weights, state of the optimizer and position in the data are those of the checkpoint where the recipes are so alike
        that they mean the same in both, else the weights alone: a message of the run says which. The parent and the step are
        in its environment.json. Raises RunError, RecipeError or CheckpointError, before anything is written.
        """
        from engine.training.forking import fork

        return fork(cls._made, run, recipe, changes, step, runs, control)

    @classmethod
    def _made(cls, parts: Parts, recipe: Recipe, run: Run | None, control: Control | None) -> Trainer:
        trainer = cls.__new__(cls)
        Fitting.__init__(trainer, parts, recipe.training, recipe.checkpoint, recipe.name, run, control)
        trainer.tell_others(recipe.track, recipe.to_dict())
        return trainer
