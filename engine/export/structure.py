"""What a model takes and gives: one tensor, or tuples, lists and dicts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from engine.errors import EpochalError


def tensors(value: Any, name: str) -> dict[str, Tensor]:
    """The tensors by name, in the order in which torch goes through them: `name` alone, numbered, or by the keys of a dict.

    EpochalError for what is none of these.
    """
    if isinstance(value, Tensor):
        return {name: value}
    found: dict[str, Tensor] = {}
    for part, item in _parts(value, name):
        for inner, tensor in tensors(item, part).items():
            found[f"{inner}_{len(found) + 1}" if inner in found else inner] = tensor
    return found


def spelt(value: Any, name: str) -> str:
    """As it is written in Python, with each tensor by its name: "{'ids': ids, 'mask': mask}"."""
    names = iter(tensors(value, name))

    def text(value: Any) -> str:
        if isinstance(value, Tensor):
            return next(names)
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{key!r}: {text(item)}" for key, item in value.items()) + "}"
        inner = ", ".join(map(text, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"

    return text(value)


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    top = name in ("input", "output")
    if isinstance(value, Mapping):
        yield from ((str(key) if top else f"{name}_{key}", item) for key, item in value.items())
    elif type(value) in (tuple, list):
        yield from ((f"{name}_{i}", item) for i, item in enumerate(value, 1))
    else:
        verb = "takes" if name.startswith("input") else "puts out"
        raise EpochalError(
            f"the model {verb} a {type(value).__name__}: only tensors, and tuples, lists and dicts of them, can be exported so"
        )
