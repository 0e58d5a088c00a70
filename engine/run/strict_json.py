"""JSON that keeps what plain JSON loses, and is still JSON to every reader.

A float that is no number is `{"__float__": "nan"}` (or "inf", "-inf"); a dictionary with keys other than text (or with
one of the two reserved keys) is `{"__items__": [[key, value], …]}`. Floats come back bit for bit, tuples as lists.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from engine.errors import RunError, plain

T = TypeVar("T")

_FLOAT, _ITEMS = "__float__", "__items__"


def encode(value: Any, *, indent: int | None = None) -> bytes:
    """UTF-8 JSON of numbers, text, bool, None, lists, tuples and dictionaries. TypeError for anything else."""
    return to_bytes(json.dumps(_packed(value), allow_nan=False, ensure_ascii=False, indent=indent))


def decode(data: bytes) -> Any:
    """What `encode` was given. ValueError for anything that is not strict JSON."""
    return _unpacked(parse(data))


def kept(path: Path, make: Callable[[Any], T], remedy: str) -> T | None:
    """What `make` makes of a file that `encode` wrote; None where there is none. RunError where it can't be read."""
    try:
        return make(decode(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({plain(str(error))[:200]}): {remedy}") from error


def to_bytes(text: str) -> bytes:
    """JSON text as UTF-8. Half a surrogate pair, as in a file name that is not UTF-8, becomes its JSON escape."""
    return text.encode("utf-8", "backslashreplace")


def parse(data: bytes) -> Any:
    """Plain strict JSON: ValueError for NaN and Infinity as for everything else JSON does not know."""
    return json.loads(data.decode("utf-8"), parse_constant=_refuse)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _packed(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(float(value))}
    if isinstance(value, (list, tuple)):
        return [_packed(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) and key not in (_FLOAT, _ITEMS) for key in value):
            return {key: _packed(item) for key, item in value.items()}
        return {_ITEMS: [[_packed(key), _packed(item)] for key, item in value.items()]}
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_FLOAT}:
            return float(value[_FLOAT])
        if value.keys() == {_ITEMS}:
            return {_unpacked(key): _unpacked(item) for key, item in value[_ITEMS]}
        return {key: _unpacked(item) for key, item in value.items()}
    return value
