"""Processes that carry out a command of the engine: how they are called, and in which environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command(*arguments: str) -> list[str]:
    """`epochal` with these arguments, by this interpreter; never the package of that name in the working directory."""
    return [sys.executable, "-P", "-m", "engine", *arguments]


def child_environment() -> dict[str, str]:
    """The variables of a process that this one begins: imports find there what they find here, wherever it works."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
