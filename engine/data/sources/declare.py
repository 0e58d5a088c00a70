"""What every source is declared with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
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


def existing(path: str, argument: str = "path", *, folder: bool = False) -> Path:
    """The file (or folder) at `path`, seen from the working directory. RecipeError that names `argument` when there is none."""
    field = f"data.{argument}"
    file = Path(path).expanduser()
    try:
        file.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # too long a name, a NUL in it, no permission
        raise wrong(field, f"{field} = {path!r} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if file.is_dir() if folder else file.is_file():
        return file
    if file.exists():
        is_, wanted = ("a file", "a directory") if folder else ("a directory", "a file")
        raise wrong(field, f"{field} = {path!r} is {is_}, not {wanted}")
    beside = [item.name for item in file.parent.iterdir() if item.is_dir() == folder] if file.parent.is_dir() else []
    raise wrong(field, f"{field} = {path!r} does not exist{nearest(file.name, beside)}")


def package(name: str, distribution: str) -> ModuleType:
    """The module of an optional package. RecipeError that says how to install it when it is not there, or can't be loaded."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:  # the latter two where it was built for another torch or system
        missing = isinstance(error, ModuleNotFoundError) and error.name in (name, name.split(".")[0])
        what = "is not installed" if missing else f"can't be loaded ({' '.join(str(error).split())})"
        message = f"data.name needs the package {distribution!r}, which {what}: pip install {distribution}"
        raise wrong("data.name", message) from error


def at_least(minimum: float, **arguments: float) -> None:
    """RecipeError when one of the arguments is below `minimum`."""
    for name, value in arguments.items():
        if not value >= minimum:
            raise wrong(f"data.{name}", f"data.{name} = {value} is too small: at least {minimum} is allowed")
