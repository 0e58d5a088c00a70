"""Patterns of parameters' names, as for files: `features.*`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from engine.errors import nearest


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of them fits the name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unfit(pattern: str, names: Collection[str]) -> str:
    """What a sentence says of a pattern that fits none of the names: the nearest name or module, or some of the names."""
    modules = sorted({f"{name[:i]}.*" for name in names for i, letter in enumerate(name) if letter == "."})
    several = f"; there are {', '.join(list(names)[:5])}{', …' if len(names) > 5 else ''}"
    return f"fits the name of no parameter{nearest(pattern, [*modules, *names]) or several}"
