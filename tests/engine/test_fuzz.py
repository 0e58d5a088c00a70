"""Mutated recipes, files and settings: each trains or is refused in single sentences; never another error, never a hang.

`make test` runs a fixed few hundred; `EPOCHAL_FUZZ=5000 pytest tests/engine/test_fuzz.py` runs so many new ones of each kind.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
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

from engine import Recipe, Trainer
from engine.errors import RecipeError
from engine.recipe_text import apply_settings, to_toml
from tests.engine.mutations import SECTIONS, fields_of, harmless, mutated, names, valid, values

WANTED = int(os.environ.get("EPOCHAL_FUZZ", "0"))
SECONDS = 100  # nothing this small takes so long: it hangs
STEPS = 12  # then a run is stopped: it does train


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
