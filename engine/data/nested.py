"""Samples of several tensors: in tuples, lists and dicts, one in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same with `change(leaf)` in the place of whatever is no tuple, list or dict; these keep their type."""
    if isinstance(value, Mapping):
        changed = {key: mapped(item, change) for key, item in value.items()}
        return changed if isinstance(value, dict) else type(value)(changed)  # type: ignore[call-arg]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(mapped(item, change) for item in value)
    return change(value)


def leaves(value: Any) -> Iterator[Any]:
    """Whatever is no tuple, list or dict, in order."""
    if isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(item)
    else:
        yield value
