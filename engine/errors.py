"""What goes wrong because of a person's choice: one sentence each, never a traceback.

A program's own bug is any other exception and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any


class EpochalError(Exception):
    """Something a person can put right. Its text is one sentence meant for them."""

    status = 2  # of the command that it ends


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a recipe.

    `field` is the dotted key (`optimizer.lr`); `message` is the whole sentence: it names the field, the value,
    what is allowed and, for a misspelt name, the nearest valid one.
    """

    field: str
    message: str

    def __post_init__(self) -> None:
        # A key or a library's own text may hold line breaks and worse.
        object.__setattr__(self, "message", plain(self.message))


class RecipeError(EpochalError):
    """One or more mistakes in a recipe, found before the first step."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(problem.message for problem in problems))
        self.problems = tuple(problems)


class RunError(EpochalError):
    """A run directory that can't be used as asked."""


class CheckpointError(EpochalError):
    """A checkpoint that is damaged or does not fit; the text names the file and what is wrong with it."""


def plain(text: str) -> str:
    """The text as one line that no terminal obeys: what can't be printed is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def named(value: Any) -> str:
    """A value as a sentence names it: on one line, and short."""
    text = " ".join(repr(value).split())
    return plain(text if len(text) <= 80 else f"{text[:79]}…")


def as_path(value: Any, what: str) -> Path:
    """The path that somebody gave for `what`. EpochalError where it is none."""
    if isinstance(value, str | PathLike):
        return Path(value)
    raise EpochalError(f"{what} is {named(value)}; it must be a path, as text or a pathlib.Path")


def refuse_below(least: int, **values: Any) -> None:
    """EpochalError for a value that is no whole number of at least so much."""
    for name, value in values.items():
        if not isinstance(value, Integral) or value < least:
            raise EpochalError(f"{name} is {named(value)}; it must be a whole number from {least} on")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`"; the nearest is 'Adam'"` for a misspelt `name`, or an empty string when nothing is close."""
    options = list(allowed)
    folded = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    close = close or [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)]
    return f"; the nearest is {close[0]!r}" if close else ""
