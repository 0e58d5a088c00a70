"""Weights to start from: someone's file, or an earlier run. Nothing that is read can execute."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.errors import Problem, RecipeError
from engine.parts import state_dicts
from engine.parts.patterns import fits, unfit

FIELD, LEFT_OUT = "training.weights", "training.weights_except"
WITHIN = "network."  # where a model of torchvision or timm is in ours: their own files do not say so
FEW = 3  # layers that a sentence proposes to leave out
_INSIDE = ("state_dict", "model_state_dict", "model")  # where others' files keep the weights among other things
_WRAPPERS = ("module.", "_orig_mod.")  # what data-parallel and compiled models put in front of every name


def load_weights(model: nn.Module, path: str, left_out: Sequence[str] = ()) -> str:
    """Load a `.safetensors` file, a `.pt` that holds nothing but tensors, a checkpoint's directory, or a run's (its best).

    What of model and file has a name that a pattern of `left_out` fits stays as the model has it. Returns a sentence that names
    the file. RecipeError, and nothing is loaded, when it can't be read or does not fit.
    """
    file = weights_file(path)
    current = model.state_dict()
    held = _plain(_read(file), current)
    names = {**current, **held}
    for pattern in left_out:
        if not any(fits(name, [pattern]) for name in names):
            raise _problem(f"it has {pattern!r}, which {unfit(pattern, names)}", LEFT_OUT)
    taken = {name: tensor for name, tensor in held.items() if not fits(name, left_out)}
    kept = {name: tensor for name, tensor in current.items() if fits(name, left_out)}
    if not taken:
        raise _problem(f"{list(left_out)} leaves nothing of {file}", LEFT_OUT)
    if differing := state_dicts.differences(current, {**kept, **taken}):
        says = "; ".join([*differing.values()][:5])
        raise _problem(f"{file} does not fit the model: {says}{_proposed(differing, left_out, taken)}")
    model.load_state_dict({**kept, **taken})
    return f"the weights to start from are those of {file}{', without ' * bool(kept)}{', '.join(kept)}"


def _proposed(differing: Mapping[str, str], left_out: Sequence[str], held: Mapping[str, Tensor]) -> str:
    """How to leave out what differs, where it is a few layers and not all."""
    layers = dict.fromkeys(f"{layer}.*" if layer else name for name in differing for layer in [name.rpartition(".")[0]])
    patterns = [*left_out, *layers]
    some = len(layers) <= FEW and not all(fits(name, patterns) for name in held)
    return f"; {LEFT_OUT} = {json.dumps(patterns)} leaves out what differs" if some else ""


def weights_file(path: str) -> Path:
    """The file itself, of a directory that holds a run or a checkpoint."""
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


def _plain(tensors: Mapping[str, Any], current: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names as the model itself has them."""
    plain = dict(tensors)
    for wrapper in _WRAPPERS:
        if plain and all(name.startswith(wrapper) for name in plain):
            plain = {name.removeprefix(wrapper): tensor for name, tensor in plain.items()}
    of_library = all(name.startswith(WITHIN) for name in current) and not any(name.startswith(WITHIN) for name in plain)
    return {f"{WITHIN}{name}": tensor for name, tensor in plain.items()} if of_library else plain


def _problem(message: str, field: str = FIELD) -> RecipeError:
    return RecipeError([Problem(field, f"{field}: {message}")])
