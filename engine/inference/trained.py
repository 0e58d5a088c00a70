"""A trained model, ready to be used: out of a run's checkpoint, or of a .safetensors file with the recipe inside."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from engine import execution
from engine.assemble import build_model, cast, load_data
from engine.catalog.check import with_defaults
from engine.data.ahead import to_device
from engine.data.prepare import Prepared
from engine.data.preprocessing import Preprocessing
from engine.errors import CheckpointError, Problem, RecipeError, RunError, named
from engine.execution.generators import keep_random_state
from engine.parts import state_dicts
from engine.recipe import Component, Recipe
from engine.recipe_text import read_toml
from engine.run import Run, Saved, runs_root

_AVERAGE = "module."  # before each name of the averaged weights


@dataclass(kw_only=True)
class TrainedModel:
    """The model in evaluation mode, on `device`, and what it was trained as.

    name: of the run or the file; step: of the checkpoint; averaged: whether the weights are the average that was validated.
    """

    model: nn.Module
    values: Mapping[str, Any]  # of the recipe
    preprocessing: Preprocessing
    device: torch.device
    name: str
    step: int
    averaged: bool
    fingerprint: str  # of the training data
    run: Run | None = None

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe, checked: own code that it names is loaded."""
        return Recipe.from_dict(self.values)

    @property
    def precision(self) -> str:
        """The run's arithmetic."""
        return _precision(self.values)

    def section(self, name: str) -> Mapping[str, Any]:
        """A table of the recipe as it stands there, unchecked, with its name."""
        found: Mapping[str, Any] = with_defaults(self.values)[name]
        return found

    def class_names(self, count: int) -> tuple[str, ...]:
        """Of so many outputs; numbers for those that have none."""
        names = self.preprocessing.classes
        return names[:count] + tuple(str(i) for i in range(len(names), count))

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and inputs."""
        return execution.weights_type(self.precision)

    def training_data(self) -> Prepared:
        """The recipe's data, read again. CheckpointError where they are others by now."""
        with keep_random_state():
            data, _ = load_data(self.recipe)
        if self.fingerprint and data.fingerprint != self.fingerprint:
            raise CheckpointError(f"the data of {self.name}'s recipe are not those that it was trained on")
        return data

    def context(self) -> Callable[[], AbstractContextManager[Any]]:
        """What surrounds a call of the model."""
        return execution.precision_context(self.precision, self.device)

    @torch.no_grad()
    def __call__(self, inputs: Any) -> Any:
        """The model's output for a batch that is preprocessed."""
        with self.context()():
            return self.model(self.placed(inputs))

    def placed(self, value: Any) -> Any:
        """A batch where the model is, its numbers of the weights' type."""
        return cast(to_device(value, self.device), self.dtype)


def load_model(
    run: str | Path | Run,
    step: str | int | None = None,
    *,
    device: str | torch.device = "cpu",
    model: nn.Module | None = None,
    runs: str | Path | None = None,
) -> nn.Module:
    """A run's model in evaluation mode with the weights of a checkpoint: "best", "last", or that of a step.

    run: as for `Run.open`; or a .safetensors file with the recipe inside, as `export_model` writes it. step: left out, the best
    where there is one, else the last. Where the run validates an average of its weights, these are the average.
    model: of a run that trained objects made in Python, one like its model, into which the weights are loaded.

    The training data are not read where the run keeps what was measured on them. The global random state is left as it was.
    RunError, CheckpointError or RecipeError in one sentence.
    """
    where = execution.find_device(str(device))
    if model is not None:
        if not isinstance(model, nn.Module):
            raise RunError(f"model is {named(model)}; it must be an nn.Module like the run's model")
        opened = run if isinstance(run, Run) else Run.open(run, runs_root(runs))
        weights, _ = _weights(_checkpoint(opened, step))
        state_dicts.load_model(model, weights)
        return model.to(where).eval()
    return load_trained(run, step, device=where, runs=runs).model


def load_trained(
    run: str | Path | Run,
    step: str | int | None = None,
    *,
    device: str | torch.device = "auto",
    runs: str | Path | None = None,
) -> TrainedModel:
    """As `load_model`, with what is known of it."""
    where = execution.find_device(str(device))
    if isinstance(run, str | Path) and is_weights_file(run):
        return _of_file(Path(run), step, where)
    opened = run if isinstance(run, Run) else Run.open(run, runs_root(runs))
    opened.refuse_if_foreign()
    if not opened.recipe_path.exists():
        raise RunError(
            f"{opened.name} has no recipe: it trained objects made in Python; load_model(run, model=…) takes one like its model"
        )
    values = read_toml(opened.recipe_path)
    saved = _checkpoint(opened, step)
    preprocessing = Preprocessing.kept(opened.path) or _measured(opened, values, saved)
    weights, averaged = _weights(saved)
    return TrainedModel(
        model=_filled(values, preprocessing, weights, where),
        values=values,
        preprocessing=preprocessing,
        device=where,
        name=opened.name,
        step=saved.step,
        averaged=averaged,
        fingerprint=saved.state["fingerprint"],
        run=opened,
    )


def is_weights_file(path: str | Path) -> bool:
    """Whether a path names an exported file and not a run."""
    path = Path(path)
    return path.suffix == ".safetensors" and not path.is_dir()


def _checkpoint(run: Run, step: str | int | None) -> Saved:
    """The checkpoint that was asked for, without the optimizer. CheckpointError says which there are."""
    there = [number for number, _ in run.checkpoints.list()]
    if not there:
        raise CheckpointError(f"{run.name} has no checkpoint yet")
    best = run.checkpoints.directory / "best"
    if step is None:
        step = "best" if best.exists() else "last"
    if isinstance(step, str) and step.isdecimal():
        step = int(step)
    if not isinstance(step, str | int):
        raise CheckpointError(f'the step is {named(step)}; it must be "best", "last" or the number of one')
    known = isinstance(step, int) and step in there
    if not known and step != "last" and not (step == "best" and best.exists()):
        known_steps = ", ".join([*(["best"] if best.exists() else []), "last", *map(str, there)])
        wanted = f"of step {step}" if isinstance(step, int) else f"{step!r}"
        raise CheckpointError(f"{run.name} has no checkpoint {wanted}; there are {known_steps}")
    return run.checkpoints.read(step, only=("model", "average"))


def _weights(saved: Saved) -> tuple[dict[str, Tensor], bool]:
    """The weights that are validated, and whether those are the average."""
    if "average" not in saved.tensors:
        return saved.tensors["model"], False
    tensors = saved.tensors["average"]
    return {name.removeprefix(_AVERAGE): value for name, value in tensors.items() if name.startswith(_AVERAGE)}, True


def _filled(
    values: Mapping[str, Any], preprocessing: Preprocessing, weights: Mapping[str, Tensor], device: torch.device
) -> nn.Module:
    """The recipe's model with these weights. Nothing else of the recipe is looked at: other own code need not be here."""
    arguments = dict(with_defaults(values)["model"])
    name = arguments.pop("name")
    if "pretrained" in arguments:  # nothing is downloaded that is overwritten at once
        arguments["pretrained"] = False
    with keep_random_state():
        torch.manual_seed(values.get("seed", 0))
        model = build_model(Component(name, arguments), preprocessing)
    model.to(device, execution.weights_type(_precision(values)))
    state_dicts.load_model(model, weights)
    return model.eval()


def _precision(values: Mapping[str, Any]) -> str:
    return str(values.get("training", {}).get("precision", "float32"))


def _measured(run: Run, values: Mapping[str, Any], saved: Saved) -> Preprocessing:
    """Of a run that does not keep it: measured again on its data."""
    with keep_random_state():
        data, _ = load_data(Recipe.from_dict(values))
    if data.fingerprint != saved.state["fingerprint"]:
        raise CheckpointError(f"the training data are not those of {run.name} any more, and it does not keep what was measured")
    return Preprocessing.of(data)


def _of_file(path: Path, step: str | int | None, device: torch.device) -> TrainedModel:
    """An exported file. CheckpointError for one without a recipe inside."""
    if step is not None:
        raise CheckpointError(f"{path} holds the weights of one checkpoint: there is no {step!r} in it")
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if "recipe" not in metadata:
            raise CheckpointError(f"{path} has no recipe inside: epochal export RUN {path.name} writes one that has")
        values = tomllib.loads(metadata["recipe"])
        preprocessing = Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
        known = json.loads(metadata["epochal"])
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no exported model: {error}") from error
    tensors |= {alias: tensors[name] for alias, name in known["aliases"].items()}
    try:
        model = _filled(values, preprocessing, tensors, device)
    except RecipeError as error:
        raise RecipeError([Problem(problem.field, f"{path}: {problem.message}") for problem in error.problems]) from error
    return TrainedModel(
        model=model,
        values=values,
        preprocessing=preprocessing,
        device=device,
        name=path.name,
        step=known["step"],
        averaged=known["averaged"],
        fingerprint=known["fingerprint"],
    )
