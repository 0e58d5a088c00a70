"""Weights to start from: someone's file, or an earlier run. Nothing that is read can execute."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import CheckpointError, Problem, RecipeError
from engine.training import state_dicts

FIELD = "training.weights"
_INSIDE = ("state_dict", "model_state_dict", "model")  # where others' files keep the weights among other things
_WRAPPERS = ("module.", "_orig_mod.")  # what data-parallel and compiled models put in front of every name


def load_weights(model: nn.Module, path: str) -> str:
    """Load a `.safetensors` file, a `.pt` that holds nothing but tensors, a checkpoint's directory, or a run's (its best).

    Returns a sentence that names the file. RecipeError, and nothing is loaded, when it can't be read or does not fit.
    """
    file = _file(path)
    try:
        state_dicts.load_model(model, _plain(_read(file)))
    except CheckpointError as error:
        raise _problem(f"{file} does not fit the model: {str(error).partition(': ')[2]}") from None
    return f"the weights to start from are those of {file}"


def _file(path: str) -> Path:
    place = Path(path)
    if not place.is_dir():
        return place
    checkpoint = next(
        (place / "checkpoints" / name for name in ("best", "last") if (place / "checkpoints" / name).exists()), place
    )
    return checkpoint.resolve() / "model.safetensors"


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise _problem(f"there is no file {file}") from None
    except OSError as error:
        raise _problem(f"{file} can't be read: {error.strerror}") from None
    except pickle.UnpicklingError:
        raise _problem(f"{file} holds more than tensors: it is not read, because it could run anything") from None
    except Exception as error:  # what the readers of two formats raise for rubbish has no end
        raise _problem(f"{file} is no file of weights: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    inside = next((loaded[key] for key in _INSIDE if isinstance(loaded, dict) and isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(inside, dict) or not all(isinstance(value, Tensor) for value in inside.values()):
        raise _problem(f"{file} holds no weights by name: a state dict is wanted, not {type(inside).__name__}")
    return inside


def _plain(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """The names as the model itself has them."""
    plain = dict(tensors)
    for wrapper in _WRAPPERS:
        if plain and all(name.startswith(wrapper) for name in plain):
            plain = {name.removeprefix(wrapper): tensor for name, tensor in plain.items()}
    return plain


def _problem(message: str) -> RecipeError:
    return RecipeError([Problem(FIELD, f"{FIELD}: {message}")])
