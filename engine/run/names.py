"""The name of a run's directory: the local time it was made at, and what a person calls it."""

from __future__ import annotations

import re
import time
from pathlib import Path

from engine.errors import RunError
from engine.run import files

_STAMP = re.compile(r"(\d{8}-\d{6})-(.+)")
_FORMAT = "%Y%m%d-%H%M%S"


def make_directory(root: Path, name: str) -> Path:
    """Make the directory of a run of this name that begins now. OSError where the disk does not take it."""
    name = f"{time.strftime(_FORMAT)}-{_slug(name)}"
    path, number = root / name, 1
    # Making a directory either succeeds or finds it there: two processes never get the same one.
    while True:
        try:
            files.make_directory(path)
        except FileExistsError:
            number += 1
            path = root / f"{name}-{number}"
        else:
            return path


def renamed(directory: str, name: str) -> str:
    """The directory's name with another one after the time. RunError where it would need other characters."""
    match = _STAMP.fullmatch(directory)
    name = name.strip()
    name = _STAMP.sub(r"\2", name) if match else name
    if not name or _slug(name) != name:
        raise RunError(f"{name!r} can't be a run's name: letters, digits, _, . and - (not first), at most 50 of them")
    return f"{match[1]}-{name}" if match else name


def started(path: Path) -> float:
    """When a run was made, in seconds since the epoch: from the directory's name, else its date."""
    match = _STAMP.fullmatch(path.name)
    try:
        return time.mktime(time.strptime(match[1], _FORMAT)) if match else path.stat().st_mtime
    except (ValueError, OverflowError):
        return path.stat().st_mtime


def is_stamped(directory: str) -> bool:
    """Whether it begins with a time."""
    return bool(_STAMP.fullmatch(directory))


def _slug(name: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]+", "-", name)[:50].strip("-.") or "run"
