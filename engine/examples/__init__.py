"""Recipes to begin with, one for each kind of task: a folder each, with the data or the code that it names.

The first line of a recipe says what it is, the second is the command that trains it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EpochalError, nearest

__all__ = ["Example", "examples", "find_example"]

_ORDER = ("regression", "table", "images", "text", "own-code", "sweep")


@dataclass(frozen=True, slots=True)
class Example:
    """A folder with a recipe that has its name."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def recipe(self) -> Path:
        """Its recipe's file."""
        return self.folder / f"{self.name}.toml"

    @property
    def about(self) -> str:
        """What it is, in a line."""
        return self._head()[0]

    @property
    def command(self) -> str:
        """What trains it, in its folder."""
        return self._head()[1]

    @property
    def several(self) -> Mapping[str, str]:
        """Of a sweep: the fields that take several values, with their text."""
        words = (word.partition("=") for word in shlex.split(self.command))
        return {field: text for field, equals, text in words if equals}

    @property
    def files(self) -> list[Path]:
        """The recipe, then what it names."""
        return sorted((path for path in self.folder.iterdir() if path.is_file()), key=lambda path: path != self.recipe)

    def values(self) -> dict[str, Any]:
        """The recipe's values, its files where they are."""
        from engine.recipe_text import read_toml

        return {
            key: {name: self._placed(value) for name, value in table.items()} if isinstance(table, dict) else table
            for key, table in read_toml(self.recipe).items()
        }

    def copy(self, directory: Path) -> list[Path]:
        """Write its files into this directory, which may be there already; the new files. EpochalError where one is there."""
        copies = [directory / path.name for path in self.files]
        if there := [path for path in copies if path.exists()]:
            raise EpochalError(f"{there[0]} is there already: name another directory, epochal examples {self.name} DIR")
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for path, copy in zip(self.files, copies, strict=True):
                copy.write_bytes(path.read_bytes())
        except OSError as error:
            raise EpochalError(f"{error.filename or directory} can't be written: {error.strerror}") from error
        return copies

    def _head(self) -> list[str]:
        lines = self.recipe.read_text(encoding="utf-8").splitlines()[:2]
        return [line.removeprefix("# ") for line in lines]

    def _placed(self, value: Any) -> Any:
        named = value.partition(":")[0] if isinstance(value, str) else ""
        return f"{self.folder / value}" if named and (self.folder / named).is_file() else value


def examples() -> list[Example]:
    """All of them, the simplest first."""
    return [Example(Path(__file__).parent / name) for name in _ORDER]


def find_example(name: str) -> Example:
    """The one of that name. EpochalError with the nearest one."""
    for example in examples():
        if example.name == name:
            return example
    raise EpochalError(f"{name!r} is no example; there are {', '.join(_ORDER)}{nearest(name, _ORDER)}")
