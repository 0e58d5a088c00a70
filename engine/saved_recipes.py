"""Recipes that a person keeps by name, in their configuration directory: plain recipe files, as `epochal train` takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import EpochalError, Problem, RecipeError, nearest
from engine.preferences import directory
from engine.recipe import Recipe
from engine.recipe_text import flat, read_toml, to_toml
from engine.run import files

_SWEPT = "# sweep "
_NAME = re.compile(r"\w[\w .-]{0,49}")


class SavedRecipes:
    """What is kept in $EPOCHAL_CONFIG/recipes, or the like of it."""

    def __init__(self) -> None:
        self.where = directory() / "recipes"

    def names(self) -> list[str]:
        """All of them, by name."""
        return sorted((path.stem for path in self.where.glob("*.toml") if _NAME.fullmatch(path.stem)), key=str.lower)

    def path(self, name: str) -> Path:
        """Its file. EpochalError for what can't be the name of one."""
        if not _NAME.fullmatch(name) or name.endswith((" ", ".")):
            raise EpochalError(f"{name!r} can't be a recipe's name: letters, digits, spaces, _, . and -, at most 50 of them")
        return self.where / f"{name}.toml"

    def save(self, name: str, values: Mapping[str, Any], several: Mapping[str, str] | None = None) -> None:
        """Keep these values under the name, in the place of what was kept under it. EpochalError.

        The fields that have `several` of them stand in comments: to everyone else the file is the recipe of the first.
        """
        path = self.path(name)
        try:
            self.where.mkdir(parents=True, exist_ok=True)
            axes = "".join(f"{_SWEPT}{key}={text}\n" for key, text in (several or {}).items())
            files.write_atomically(path, (axes + to_toml(values)).encode())
        except OSError as error:
            raise EpochalError(f"{path} can't be written: {error.strerror}") from error

    def load(self, name: str) -> dict[str, Any]:
        """The values as they were kept, unchecked. RecipeError."""
        path = self.path(name)
        if not path.is_file():
            raise RecipeError([Problem("", f"no recipe is kept as {name!r}{nearest(name, self.names())}")])
        return read_toml(path)

    def several(self, name: str) -> dict[str, str]:
        """The fields that were kept with several values, as `epochal sweep` takes them. EpochalError."""
        try:
            lines = self.path(name).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise EpochalError(f"{self.path(name)} can't be read: {error}") from error
        axes = [line.removeprefix(_SWEPT).partition("=") for line in lines if line.startswith(_SWEPT)]
        return {key.strip(): text.strip() for key, _, text in axes}

    def delete(self, name: str) -> None:
        """Keep it no longer. EpochalError."""
        path = self.path(name)
        try:
            files.remove(path)
        except OSError as error:
            raise EpochalError(f"{path} can't be deleted: {error.strerror}") from error


def in_which(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of these values is not as in the default recipe, by dotted keys."""

    usual = flat(Recipe().to_dict(complete=False))
    return {key: value for key, value in flat(values).items() if key != "name" and usual.get(key) != value}
