"""What a run's directory tells of it besides its events: a tag, its parent, what of its recipe is not the default."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.errors import RunError, plain
from engine.recipe import KINDS, Loading, Recipe, differing_options
from engine.recipe_text import table_in

TAG = "tag.txt"
CONFIG = "config.json"  # of a loop of one's own, in place of a recipe
LONGEST_TAG = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """`parent` is the name of the run that this one was forked from, at `parent_step`.

    `differs` has the dotted keys of the recipe whose values are not the default's; of a search's trial its parameters first.
    """

    tag: str = ""  # a person's
    parent: str = ""
    parent_step: int = 0
    parent_path: str = ""
    differs: Mapping[str, Any] = field(default_factory=dict)
    recipe: bool = False  # whether there is one


def about(path: Path) -> About:
    """What is known; whatever can't be read is as if it were not there. Loads no torch, and reads what has not changed once."""
    environment = _read(path / "environment.json", _changed(path / "environment.json"))
    recipe = _read(path / "recipe.toml", _changed(path / "recipe.toml"))
    parent = environment.get("parent")
    parent = parent if isinstance(parent, dict) else {}
    step = parent.get("step")
    return About(
        tag=_tag(path / TAG),
        parent=plain(str(parent.get("run", ""))),
        parent_step=step if isinstance(step, int) else 0,
        parent_path=str(parent.get("path", "")),
        differs=_searched(environment, recipe)
        | (_differs(recipe, environment.get("differs")) if recipe else flat(config(path))),
        recipe=bool(recipe),
    )


def config(path: Path) -> dict[str, Any]:
    """What the program that logs a run told of it; empty where nothing was told."""
    return dict(_read(path / CONFIG, _changed(path / CONFIG)))


def as_config(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """As JSON values: what is none of them, a path or a class, as text. RunError for anything but a mapping."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise RunError(f"config is {plain(repr(values))[:80]}: it must be a mapping, as vars(arguments) is")
    plain_values: dict[str, Any] = json.loads(json.dumps({str(key): value for key, value in values.items()}, default=str))
    return plain_values


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return result


def _changed(path: Path) -> tuple[int, ...]:
    """What changes with a file's content, also within a moment; () where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


@lru_cache(maxsize=4096)
def _read(path: Path, changed: tuple[int, ...]) -> dict[str, Any]:
    if not changed:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _tag(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return plain(" ".join(file.read(4 * LONGEST_TAG).split()))[:LONGEST_TAG]
    except OSError:
        return ""


def _differs(values: Mapping[str, Any], recorded: Any) -> dict[str, Any]:
    """The plan is compared with its defaults; the arguments of a model or an optimizer, whose defaults only torch knows, were
    recorded when the run was made."""

    default, result = Recipe(), dict[str, Any]()
    options = {f"data.{item.name}" for item in dataclasses.fields(Loading)}
    for kind in KINDS:
        if isinstance(recorded, dict):
            result |= {key: value for key, value in recorded.items() if key.partition(".")[0] == kind and key not in options}
        else:
            named, usual = table_in(values, kind).get("name"), getattr(default, kind)
            if named is not None and (usual is None or named != usual.name):
                result[f"{kind}.name"] = named
    return result | differing_options(values)


def _searched(environment: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a search tried in this run: as the recipe has it, where a list is one and not Optuna's text of it."""
    given = flat(recipe)
    return {key: given.get(key, value) for key, value in table_in(table_in(environment, "search"), "params").items()}


def in_short(differs: Mapping[str, Any]) -> str:
    """In a few words: "cnn · lr 3e-4 · batch_size 64". Epochs, parent and checkpoints have places of their own."""
    words = []
    for key, value in differs.items():
        section, _, name = key.rpartition(".")
        if key not in ("training.epochs", "training.weights") and section != "checkpoint":
            words.append(str(value) if name == "name" else f"{name} {shown(value)}")
    return " · ".join(words)


def shown(value: Any) -> str:
    """A value as a person writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        mantissa, e, exponent = f"{value:.6g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if e else mantissa
    if isinstance(value, list):
        return ",".join(map(shown, value))
    return str(value)
