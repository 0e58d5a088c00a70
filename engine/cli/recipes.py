"""The recipe that a command line means: a file, or the default one, with its settings."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.recipe import Recipe


DATA_FILES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".npz": "npz", ".safetensors": "safetensors", ".txt": "text"}


def data_settings(data: str) -> list[str]:
    """What `--data` is short for: a name of the catalog, one's own code, a file, or a folder of pictures (with a / in it)."""
    path = Path(data)
    kind = DATA_FILES.get(path.suffix.lower()) or ("images" if _is_folder(data) else None)
    if kind is None:
        return [f"data.name={data}"]
    tabs = ['data.delimiter="\\t"'] if path.suffix.lower() == ".tsv" else []
    return [f"data.name={kind}", f"data.path={json.dumps(data, ensure_ascii=False)}", *tabs]


def _is_folder(data: str) -> bool:
    return data.endswith("/") or ("/" in data and Path(data).expanduser().is_dir())


def read_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe of `RECIPE.toml`, or the default one, after `--set` and its shortcuts. RecipeError names every mistake.

    Settings go in before anything is checked, so that a file may leave to them what it must not do without.
    """
    from engine.recipe import Recipe

    return Recipe.from_dict(recipe_values(arguments))


def recipe_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of that recipe, unchecked."""
    from engine.recipe_text import apply_settings, named_values

    values = {} if arguments.recipe is None else named_values(arguments.recipe)
    named = [] if arguments.data is None else data_settings(arguments.data)
    named += [] if arguments.model is None else [f"model.name={arguments.model}"]
    shortcuts = {
        "training.epochs": arguments.epochs,
        "training.device": arguments.device,
        "training.processes": getattr(arguments, "processes", None),
        "name": arguments.name,
    }
    settings = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    settings += ["track.tensorboard=true"] if arguments.tensorboard else []
    return apply_settings(values, [*named, *arguments.settings, *settings])
