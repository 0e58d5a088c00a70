"""What every source is declared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from engine.data.samples import Task, wrong
from engine.errors import nearest

Function = TypeVar("Function", bound=Callable[..., Any])


def source(task: Task | None) -> Callable[[Function], Function]:
    """Mark a function as a data source for `task`; None when the data decide."""

    def mark(function: Function) -> Function:
        cast(Any, function).task = task
        return function

    return mark


def existing(path: str) -> Path:
    """The file at `path`, seen from the working directory. RecipeError when there is none."""
    file = Path(path).expanduser()
    if file.is_file():
        return file
    if file.is_dir():
        raise wrong("data.path", f"data.path = {path!r} is a directory, not a file")
    beside = [item.name for item in file.parent.iterdir() if item.is_file()] if file.parent.is_dir() else []
    raise wrong("data.path", f"data.path = {path!r} does not exist{nearest(file.name, beside)}")


def at_least(minimum: float, **arguments: float) -> None:
    """RecipeError when one of the arguments is below `minimum`."""
    for name, value in arguments.items():
        if not value >= minimum:
            raise wrong(f"data.{name}", f"data.{name} = {value} is too small: at least {minimum} is allowed")
