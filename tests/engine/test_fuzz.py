"""Mutated recipes, files and settings: each trains or is refused in single sentences; never another error, never a hang.

`make test` runs a fixed few hundred; `EPOCHAL_FUZZ=5000 pytest tests/engine/test_fuzz.py` runs so many new ones of each kind.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import faulthandler
import io
import math
import os
import re
import signal
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine import Recipe, Trainer, catalog
from engine.catalog.fields import REQUIRED
from engine.errors import RecipeError
from engine.settings import apply_settings, to_toml

WANTED = int(os.environ.get("EPOCHAL_FUZZ", "0"))
SECONDS = 100  # nothing this small takes so long: it hangs
STEPS = 12  # then a run is stopped: it does train
SECTIONS = ("data", "model", "loss", "optimizer", "scheduler", "training", "checkpoint")


def examples(usual: int) -> Any:
    return settings(
        max_examples=WANTED or usual,
        derandomize=not WANTED,  # the same examples each time, unless asked for new ones
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )


class Hang(BaseException):
    """Raised inside what takes too long."""


@contextlib.contextmanager
def watchdog(seconds: int = SECONDS) -> Iterator[None]:
    """Hang is raised after so long; where Python never gets to raise it, the process ends with all its stacks shown."""

    def bark(*_: Any) -> None:
        raise Hang(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


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


# What must hold.


@pytest.fixture(autouse=True, scope="module")
def _somewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import numpy

    before, place = Path.cwd(), tmp_path_factory.mktemp("fuzz")
    random = numpy.random.default_rng(0)
    os.chdir(place)
    Path("table.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 5},{'uv'[i % 2]}\n" for i in range(20)))
    numpy.savez("arrays.npz", inputs=random.normal(size=(20, 1, 4, 4)), targets=numpy.arange(20) % 3)
    yield
    os.chdir(before)


def own_code(recipe: dict[str, Any]) -> bool:
    tables = [recipe.get(section) for section in SECTIONS]
    return any(isinstance(table, dict) and ":" in str(table.get("name")) for table in tables)


def assert_sentences(error: RecipeError, recipe: dict[str, Any]) -> None:
    """Single lines, each about a place that there is in the recipe or that a recipe has."""
    assert error.problems
    for problem in error.problems:
        message = problem.message
        assert message.strip() and len(message.splitlines()) == 1 and message.isprintable(), f"no single line: {message!r}"
        section, _, key = problem.field.partition(".")
        assert section in recipe or section in ("name", "seed", *SECTIONS), f"about nowhere, {problem.field!r}: {message}"
        given = recipe.get(section)
        if key and isinstance(given, dict):
            known = [field.key for field in fields_of(section, recipe)]
            key = key.partition("[")[0]  # optimizer.groups[0].lr
            assert key == "name" or key in given or key in known, f"about nowhere, {problem.field!r}: {message}"
        words = {section, problem.field, *key.split("."), str(given)}
        assert any(word and word in message for word in words) or re.search(r"\b(data|model|loss)", message), (
            f"names no field, {problem.field!r}: {message}"
        )


def trained(values: dict[str, Any]) -> str:
    """ "refused", or how the run of a recipe ended; it is stopped after a few steps."""
    with watchdog(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            recipe = Recipe.from_dict(values)
            trainer = Trainer.from_recipe(recipe, runs=None)
        except RecipeError as error:
            assert_sentences(error, values)
            return "refused"
        taken = iter(range(STEPS))
        for optimizer in vars(trainer.parts.optimizer).get("optimizers", [trainer.parts.optimizer]):
            optimizer.register_step_post_hook(lambda *_: trainer.control.stop() if next(taken, None) is None else None)
        result = trainer.fit()
        assert result.state in ("finished", "stopped", "failed") and len(result.reason.splitlines()) == 1
        if result.state == "failed":
            assert "loss" in result.reason or "gradient" in result.reason  # not finite: named, and not a bug
        if all(map(is_plain, values.values())):
            assert Recipe.from_dict(tomllib.loads(recipe.to_toml())).to_dict() == recipe.to_dict()
        return result.state


def is_plain(value: Any) -> bool:
    """Whether a value equals itself: NaN does not."""
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if isinstance(value, list) else value == value


@examples(250)
@given(mutated())
def test_a_mutated_recipe_trains_or_is_refused(recipe: dict[str, Any]) -> None:
    if not own_code(recipe) or not any(name in str(recipe) for name in ("math:",)):
        trained(recipe)


@examples(30)
@given(valid())
def test_a_recipe_that_nobody_touched_trains_unless_the_model_does_not_suit(recipe: dict[str, Any]) -> None:
    if trained(recipe) == "refused":
        with pytest.raises(RecipeError) as raised:
            Trainer.from_recipe(Recipe.from_dict(recipe), runs=None)
        assert {problem.field.partition(".")[0] for problem in raised.value.problems} <= {
            "model",
            "data",
            "training",
            "scheduler",
            "optimizer",
        }


# Files.

PIECES = [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"[",
    b"]",
    b"=",
    b'"',
    b"'''",
    b"\r",
    b"\n[data]\n",
    b"1e999",
    b"nan",
    b"{",
    b"9" * 5000,
    b" 0x" + b"f" * 5000,
]
PIECES += [b"[" * 3000, b"{a=" * 3000, b"name.", b"#", b"\\u12", b"1979-05-27", b"[[model]]\n", "损".encode()]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    text = to_toml(draw(valid())).encode()
    for _ in range(draw(st.integers(1, 5))):
        first = draw(st.integers(0, len(text)))
        last = min(len(text), first + draw(st.integers(0, 30)))
        text = (
            text[:first] + draw(st.sampled_from(PIECES) | st.binary(max_size=6) | st.just(text[first:last] * 2)) + text[last:]
        )
    return text


@examples(150)
@given(damaged())
def test_a_damaged_file_is_a_recipe_or_refused(text: bytes) -> None:
    path = Path("damaged.toml")
    path.write_bytes(text)
    with watchdog():
        try:
            Recipe.load(path)
        except RecipeError as error:
            assert error.problems
            for sentence in str(error).splitlines():
                assert sentence.strip() and sentence.isprintable()
            assert len(str(error).splitlines()) == len(error.problems)
        except (ImportError, OSError):  # own code that the damage named
            assert ":" in text.decode(errors="replace")


# Settings on the command line.

KEYS = ["optimizer.lr", "optimizer", "optimizer.name", "scheduler", "scheduler.name", "data.samples", "model.hidden", "model"]
KEYS += [
    "training.epochs",
    "training.patience",
    "data",
    "loss",
    "seed",
    "name",
    "",
    ".",
    "a.b.c",
    "optimizer.",
    ".lr",
    "x",
    "training",
]
TEXTS = [
    "1e-3",
    "none",
    "SGD",
    "Adam",
    "StepLR",
    "[1,2",
    "[]",
    "{}",
    "{a=1}",
    "",
    "=",
    "nan",
    "inf",
    '"x"',
    "''",
    "2026-01-02",
    "1\n2",
]


@st.composite
def setting(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(KEYS) | st.text(max_size=10))
    text = draw(st.sampled_from(TEXTS) | st.text(max_size=10) | names() | values().map(str))
    return draw(st.sampled_from([f"{key}={text}", f"{key}={text}", f"{key}={text}", key, f" {key} = {text} "]))


@examples(100)
@given(valid(), st.lists(setting(), min_size=1, max_size=3))
def test_settings_make_a_recipe_or_are_refused(recipe: dict[str, Any], given: list[str]) -> None:
    try:
        with watchdog():
            changed = apply_settings(recipe, given)
    except RecipeError as error:
        assert (len(str(error).splitlines()) == len(error.problems) and str(error).isprintable()) or "\n" in str(error)
        return
    trained(harmless(changed))


@examples(20)
@given(valid(), st.lists(setting(), min_size=1, max_size=2))
def test_the_command_says_so_without_a_traceback(recipe: dict[str, Any], given: list[str]) -> None:
    from engine.cli import main

    Path("set.toml").write_text(to_toml(recipe), encoding="utf-8")
    with contextlib.suppress(RecipeError):
        changed = apply_settings(recipe, given)
        if harmless(changed) != changed:
            return
    out, err = io.StringIO(), io.StringIO()
    with watchdog(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["check", "set.toml", *(part for text in given for part in ("--set", text))])
    assert status in (0, 2)
    assert "Traceback" not in err.getvalue()
    assert status == 0 or all(line.startswith(("epochal: ", "usage: ", " ")) for line in err.getvalue().splitlines())
