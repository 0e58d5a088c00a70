"""Whether an event that was read from a file can be what the trainer stated: anybody may have written that file."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from engine.events import Event, Logged, RanksMeasured, Sampled, Trained, from_dict

_LARGEST = 2**63


def event_from(values: object) -> Event:
    """The event of JSON values. ValueError, in one sentence, when they are none or one of them is of the wrong kind."""
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    event = from_dict(values)
    cls: Any = type(event)
    for name, kind in _kinds(cls):
        if not _fits(getattr(event, name), kind):
            shown = repr(values.get(name))
            raise ValueError(f"{name!r} is {shown[:80]}{'…' if len(shown) > 80 else ''}")
    if isinstance(event, Trained):
        points = len(event.loss)
        wrong = {len(event.low), len(event.high), len(event.norm)} - {0, points}
        if len(event.lr) != points or wrong or len(event.low) != len(event.high) or event.every < 1:
            raise ValueError("its points do not fit together")
    if isinstance(event, Logged):
        counts = {name: len(steps) for name, steps in event.steps.items()}
        every = [event.values, *({**event.values, **more} for more in (event.low, event.high))]
        if any({name: len(values) for name, values in of.items()} != counts for of in every):
            raise ValueError("its points do not fit together")
        if event.best and not math.isfinite(event.best.get("step", math.nan)):
            raise ValueError("its best is of no step")
    if isinstance(event, RanksMeasured):
        lengths = {len(column) for column in (event.rates, event.waits, event.memories, event.hosts)}
        if len(lengths) > 1 or not event.waits:
            raise ValueError("its ranks do not fit together")
    if isinstance(event, Sampled):
        columns = (event.kinds, event.sizes, event.gradient, event.weight, event.ratio, event.silent)
        if any(len(column) != len(event.layers) for column in columns):
            raise ValueError("its layers do not fit together")
    return event


@functools.cache
def _kinds(cls: Any) -> tuple[tuple[str, Any], ...]:
    kinds = get_type_hints(cls)
    return tuple((field.name, kinds[field.name]) for field in dataclasses.fields(cls))


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if kind in (int, float):  # a bool is no number here, and no count needs more digits than this
        return (type(value) is int and abs(value) < _LARGEST) or (kind is float and type(value) is float)
    return kind is Any or isinstance(value, kind)
