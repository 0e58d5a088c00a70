"""The recipe that a command line means: a file, or the default one, with its settings."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Problem, RecipeError

if TYPE_CHECKING:
    from engine.recipe import Recipe


def read_recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe of `RECIPE.toml`, or the default one, after `--set` and its shortcuts. RecipeError names every mistake."""
    from engine.recipe import Recipe, apply_settings

    values = {} if arguments.recipe is None else _read_file(Path(arguments.recipe))
    settings = list(arguments.settings)
    if arguments.epochs is not None:
        settings.append(f"training.epochs={arguments.epochs}")
    if arguments.device is not None:
        settings.append(f"training.device={arguments.device}")
    if arguments.name is not None:
        settings.append(f"name={json.dumps(arguments.name)}")  # in quotes: a name of digits is still a name
    return Recipe.from_dict(apply_settings(values, settings))
