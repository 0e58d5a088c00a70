"""Events: the same fact in memory, as a dictionary and as a line of JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import typing
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events
from engine.events import KINDS, EpochEnded, Event, Message, RunEnded, RunPaused, Trained, from_dict, to_dict

numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0])
texts = st.text(max_size=8) | st.sampled_from(["", "NaN", "Infinity", "-Infinity", "größer", "\n"])
by_type: dict[Any, st.SearchStrategy[Any]] = {
    float: numbers,
    int: st.integers(),
    bool: st.booleans(),
    str: texts,
    type(None): st.none(),
    tuple[float, ...]: st.lists(numbers, max_size=4).map(tuple),
    tuple[int, ...]: st.lists(st.integers(), max_size=4).map(tuple),
    tuple[str, ...]: st.lists(texts, max_size=3).map(tuple),
    Mapping[str, float]: st.dictionaries(texts, numbers, max_size=3),
    Mapping[str, tuple[float, ...]]: st.dictionaries(texts, st.lists(numbers, max_size=3).map(tuple), max_size=3),
    Mapping[str, tuple[int, ...]]: st.dictionaries(texts, st.lists(st.integers(), max_size=3).map(tuple), max_size=3),
}


def any_event(cls: type[Event]) -> st.SearchStrategy[Event]:
    """Events of this class with any values that its annotations allow."""
    hints = typing.get_type_hints(cls)
    fields = {}
    for field in dataclasses.fields(cls):
        kinds = typing.get_args(hints[field.name]) if hints[field.name] not in by_type else (hints[field.name],)
        fields[field.name] = st.one_of(*(by_type[kind] for kind in kinds))
    return st.builds(cls, **fields)


def exactly(value: Any) -> Any:
    """A form in which only identical values are equal: NaN is itself, -0.0 is not 0.0, a list is not a tuple."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("d", value)
    if isinstance(value, tuple):
        return tuple(exactly(item) for item in value)
    if isinstance(value, Mapping):
        return {key: exactly(item) for key, item in value.items()}
    return (type(value), value)


def facts(event: Event) -> dict[str, Any]:
    return {field.name: exactly(getattr(event, field.name)) for field in dataclasses.fields(event)}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_every_event_comes_back_exactly_through_strict_json(kind: str, data: st.DataObject) -> None:
    event = data.draw(any_event(KINDS[kind]))
    values = json.loads(json.dumps(to_dict(event), allow_nan=False))
    assert values["event"] == kind
    back = from_dict(values)
    assert type(back) is type(event)
    assert facts(back) == facts(event)


def test_every_kind_of_event_is_known_by_a_name_of_its_own() -> None:
    defined = {cls for cls in vars(events).values() if isinstance(cls, type) and issubclass(cls, Event)} - {Event}
    assert set(KINDS.values()) == defined
    assert KINDS["epoch_ended"] is EpochEnded and KINDS["trained"] is Trained


def test_events_are_facts_that_nobody_changes() -> None:
    event = RunPaused(step=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.step = 4  # type: ignore[misc]


def test_a_field_of_a_later_version_is_passed_over() -> None:
    assert from_dict({"event": "run_paused", "time": 1.0, "step": 3, "mood": "fine"}) == RunPaused(time=1.0, step=3)


def test_a_sentence_that_is_a_word_for_a_number_stays_a_sentence() -> None:
    assert from_dict(to_dict(Message(text="NaN"))).text == "NaN"  # type: ignore[attr-defined]
    ended = RunEnded(state="failed", reason="Infinity", epoch=1, step=1, seconds=math.inf, best={"val/loss": math.nan})
    back = from_dict(to_dict(ended))
    assert isinstance(back, RunEnded)
    assert back.reason == "Infinity" and back.seconds == math.inf and math.isnan(back.best["val/loss"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "unknown event None"),
        ({"event": "unheard_of"}, "unknown event 'unheard_of'"),
        ({"event": ["trained"]}, r"unknown event \['trained'\]"),
        ({"event": "event"}, "unknown event 'event'"),
        ({"event": "run_paused"}, "event 'run_paused' is incomplete: .*step"),
    ],
)
def test_anything_else_is_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        from_dict(values)
    assert "\n" not in str(caught.value)
