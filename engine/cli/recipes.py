"""The recipe that a command line means: a file, or the default one, with its settings."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.recipe import Recipe


def read_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe of `RECIPE.toml`, or the default one, after `--set` and its shortcuts. RecipeError names every mistake.

    Settings go in before anything is checked, so that a file may leave to them what it must not do without.
    """
    from engine.recipe import Recipe

    return Recipe.from_dict(recipe_values(arguments))


def recipe_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of that recipe, unchecked."""
    from engine.settings import apply_settings, read_toml

    values: dict[str, Any] = {}
    if arguments.recipe is not None:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(arguments.recipe).stem)[:100].lstrip(".")  # as Recipe.load names it
        values = {**({"name": stem} if stem else {}), **read_toml(arguments.recipe)}
    named = [f"{kind}.name={name}" for kind, name in (("data", arguments.data), ("model", arguments.model)) if name is not None]
    shortcuts = {
        "training.epochs": arguments.epochs,
        "training.device": arguments.device,
        "training.processes": getattr(arguments, "processes", None),
        "name": arguments.name,
    }
    settings = [f"{key}={value}" for key, value in shortcuts.items() if value is not None]
    settings += ["track.tensorboard=true"] if arguments.tensorboard else []
    return apply_settings(values, [*named, *arguments.settings, *settings])
