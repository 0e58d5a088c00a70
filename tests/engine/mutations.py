"""Recipes for tests that try what nobody would write: valid ones on tiny data, and what hypothesis makes of them."""

from __future__ import annotations

import copy
import datetime
import math
from typing import Any

from hypothesis import strategies as st

from engine import catalog
from engine.catalog.fields import REQUIRED

SECTIONS = ("data", "model", "loss", "optimizer", "scheduler", "training", "checkpoint")


# What is mutated: valid recipes on tiny data.

DATA = {
    "classification": [
        {"name": "moons", "samples": 20},
        {"name": "spirals", "samples": 24, "arms": 3},
        {"name": "moons", "samples": 9, "validation": 0.0},
        {"name": "csv", "path": "table.csv", "target": "y"},
        {"name": "npz", "path": "arrays.npz"},
    ],
    "regression": [{"name": "line", "samples": 18}, {"name": "sine", "samples": 20}],
}
MODELS = [
    {"name": "linear"},
    {"name": "mlp", "hidden": [3], "dropout": 0.1},
    {"name": "mlp", "hidden": [], "batch_norm": True},
    {"name": "rnn", "hidden": 3},
    {"name": "transformer", "width": 4, "heads": 2, "layers": 1},
    {"name": "cnn", "channels": [2]},
]
NEEDED = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1},
}
TRAINING = [
    {},
    {"accumulate": 3, "clip_norm": 0.5},
    {"precision": "bf16"},
    {"precision": "float64", "patience": 1},
    {"metrics": ["f1"], "monitor": "val/f1"},
    {"threads": 1, "min_delta": 0.1},
]


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """A recipe with nothing wrong in it, but perhaps a model that does not suit the data."""
    task = draw(st.sampled_from(sorted(DATA)))
    losses = [entry.name for entry in catalog.entries("loss") if task in entry.tasks and not entry.refusal]
    scheduler = draw(st.sampled_from(("", *catalog.names("scheduler"))))
    values: dict[str, Any] = {
        "name": "fuzz",
        "seed": draw(st.integers(0, 3)),
        "data": {**draw(st.sampled_from(DATA[task])), "batch_size": draw(st.sampled_from([4, 8, 100]))},
        "model": dict(draw(st.sampled_from(MODELS))),
        "loss": {"name": draw(st.sampled_from(losses))},
        "optimizer": {"name": draw(st.sampled_from(catalog.names("optimizer"))), "lr": 0.01},
        "training": {"epochs": draw(st.integers(1, 2)), "device": "cpu", **draw(st.sampled_from(TRAINING))},
    }
    if scheduler:
        values["scheduler"] = {"name": scheduler, **NEEDED.get(scheduler, {})}
    return values


# How it is mutated.

WORDS = [
    "",
    " ",
    "auto",
    "none",
    "None",
    "true",
    "1e-3",
    "0x10",
    "cuda:99",
    "mps",
    "épochs",
    "损失",
    "a\nb",
    "\0",
    "\ud7ff",
    "€" * 500,
]
CODE = [
    ":",
    "a:",
    ":b",
    "a:b",
    ".py",
    "x.py:",
    "missing.py:Net",
    "no_such_module:Net",
    "../x.py:Net",
    "math:no_such",
    "a:b:c",
    "~:x",
]
INTEGERS = [0, 1, -1, 2, 3, 7, 100, 2**31, -(2**31), 2**63 - 1, 2**63, 2**64, -(2**64), 10**30, 10**400]
FLOATS = [math.nan, math.inf, -math.inf, 0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 5e-324, 1e-45, 1e-8, 1e8, 1e39, 1.7e308, -1.7e308]
DATES = [datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.time(3, 4)]


def plain_values() -> st.SearchStrategy[Any]:
    return st.one_of(
        st.sampled_from(INTEGERS),
        st.sampled_from(FLOATS),
        st.sampled_from(WORDS + CODE),
        st.booleans(),
        st.integers(-5, 50),
        st.floats(-2, 2),
        st.text(max_size=8),
        st.sampled_from(DATES),
    )


def values() -> st.SearchStrategy[Any]:
    nested = st.recursive(
        plain_values(),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
        max_leaves=6,
    )
    return st.one_of(plain_values(), nested)


def names() -> st.SearchStrategy[str]:
    """Every name of the catalog, those that are refused among them."""
    every = [entry.name for kind in catalog.KINDS for entry in catalog.entries(kind)]
    return st.sampled_from([*every, *CODE])


def misspelt(key: str, draw: st.DrawFn) -> str:
    place = draw(st.integers(0, len(key)))
    return draw(st.sampled_from([key[:place] + key[place + 1 :], key[:place] + "x" + key[place:], key.upper(), f"{key} ", ""]))


def fields_of(section: str, given: Any) -> list[Any]:
    return [field for group in catalog.sections(given) if group.key == section for field in group.fields]


def typed(field: Any) -> st.SearchStrategy[Any]:
    """Values of the field's kind, most of them absurd."""
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(-2, 9) | st.sampled_from(INTEGERS),
        "number": st.floats(-2, 2) | st.sampled_from(FLOATS),
        "boolean": st.booleans(),
        "text": st.sampled_from([*field.choices, *WORDS]),
        "any": values(),
        "table": st.dictionaries(st.sampled_from(["name", "length", "pattern", "lr", *WORDS]), values(), max_size=3),
    }
    return st.lists(kinds[field.item], max_size=4) if field.kind == "list" else kinds[field.kind]


def _mutate(draw: st.DrawFn, recipe: dict[str, Any]) -> None:
    tables = [key for key, value in recipe.items() if isinstance(value, dict)]
    kind = draw(
        st.sampled_from(
            [*["typed"] * 6, *["edge"] * 3, "field", "value", "name", "key", "remove", "extra", "move", "swap", "top"]
        )
    )
    if kind == "top" or not tables:
        key = draw(st.sampled_from(["name", "seed", *SECTIONS, "optimiser", ""]))
        recipe[key] = draw(values())
        return
    table = recipe[section := draw(st.sampled_from(tables))]
    known = fields_of(section, recipe)
    if kind in ("typed", "field", "edge") and known:
        field = draw(st.sampled_from(known))
        if kind == "typed":
            table[field.key] = draw(typed(field))
            return
        near = [field.minimum, field.maximum, field.default, *field.choices]
        near = [value for value in near if value is not None and value is not REQUIRED]
        if kind == "edge":
            near += [value - 1 for value in near if isinstance(value, (int, float))] + [0, 1, 0.5, 1.0, -1.0, 1e-30, 1e30, []]
            table[field.key] = draw(st.sampled_from(near) | st.lists(st.sampled_from(near), max_size=3))
        else:
            table[field.key] = draw(values())
    elif kind == "name":
        table["name"] = draw(names())
    elif kind == "swap":
        other = draw(st.sampled_from(tables))
        recipe[section], recipe[other] = recipe[other], recipe[section]
    elif kind == "extra" or not table:
        every = [field.key for group in catalog.sections(recipe) for field in group.fields]
        table[draw(st.sampled_from(every) | st.text(max_size=6))] = draw(values())
    else:
        key = draw(st.sampled_from(sorted(table)))
        if kind == "remove":
            del table[key]
        elif kind == "key":
            table[misspelt(key, draw)] = table.pop(key)
        elif kind == "move":
            recipe[draw(st.sampled_from(tables))][key] = table.pop(key)
        else:
            table[key] = draw(values())


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    recipe = copy.deepcopy(draw(valid()))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, 3, 4]))):
        _mutate(draw, recipe)
    return harmless(recipe)


HEAVY = {"compiled": "eager"}  # minutes of a C++ compiler
SIZE = 64


def harmless(value: Any, key: str = "") -> Any:
    """The same with sizes that fit this machine or no machine: what lies between would only fill the memory."""
    if isinstance(value, dict):
        return {name: harmless(each, str(name)) for name, each in value.items()}
    if isinstance(value, list):
        return [harmless(each, key) for each in value]
    if key == "threads" and isinstance(value, (int, float)) and value > 2:
        return 2  # the process would keep them
    if isinstance(value, (int, float)) and not isinstance(value, bool) and SIZE < abs(value) < 1e14 and key not in UNSIZED:
        return SIZE if isinstance(value, int) else float(SIZE)
    if isinstance(value, str):
        return HEAVY.get(value, value)
    return value


UNSIZED = {"epochs", "seed", "split_seed", "lr", "keep", "every", "patience", "accumulate", "batch_size", "weight_decay"}
