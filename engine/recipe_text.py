"""Recipes as text: TOML files, and single settings such as `optimizer.lr=1e-3`."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import Problem, RecipeError, nearest


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values by dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= {f"{key}.{inner}": each for inner, each in value.items()} if isinstance(value, Mapping) else {key: value}
    return result


def table_in(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The section of that name; empty where there is none, or something else stands there."""
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, value in the first, value in the second) of all that two recipes do not share; None is not there."""
    one, other = flat(first), flat(second)
    return [(key, one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]


def read_toml(path: Path | str) -> dict[str, Any]:
    """A recipe file's values, unchecked. RecipeError when the file can't be read or is not TOML."""
    path = Path(path)
    if path.suffix.lower() in (".csv", ".tsv", ".parquet", ".npz") and path.is_file():
        told = f"{path} holds data and is no recipe: epochal train --data {shlex.quote(str(path))}"
        raise RecipeError([Problem("", told + ("" if path.suffix == ".npz" else " --set data.target=COLUMN"))])
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin a file with a mark
        repr(values)  # a sentence must be able to show them: 0xfff… may be longer than Python's limit for digits
        return values
    except (FileNotFoundError, IsADirectoryError):
        raise RecipeError([Problem("", absent(path))]) from None
    except OSError as error:
        raise RecipeError([Problem("", f"{path} can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise RecipeError([Problem("", f"{path} is no TOML file: it is not text in UTF-8")]) from None
    except RecursionError:
        raise RecipeError([Problem("", f"{path} is no recipe: its values are nested too deeply")]) from None
    except ValueError as error:  # mostly TOMLDecodeError, whose text ends in (at line 3, column 7)
        raise RecipeError([Problem("", f"{path} is no TOML file: {error}{_line_of(path, error)}")]) from None


def named_values(path: Path | str) -> dict[str, Any]:
    """As `read_toml`; a recipe without a name is called like its file."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem)[:100].lstrip(".")
    return {**({"name": stem} if stem else {}), **read_toml(path)}


def absent(path: Path | str) -> str:
    """The sentence on a recipe's file that is none, with what may be meant."""
    path = Path(path)
    if path.is_dir():
        inside = path / "recipe.toml"
        return f"{path} is a directory, not a recipe's file" + (f"; there is {inside}" if inside.is_file() else "")
    meant = nearest(path.stem, [file.stem for file in path.parent.glob("*.toml")])
    return f"there is no file {str(path)!r}" + (f"{meant[:-1]}.toml'" if meant else "")


def _line_of(path: Path, error: ValueError) -> str:
    """The line that a TOMLDecodeError names, and the mistake that is made most."""
    place = re.search(r"\(at line (\d+), column \d+\)$", str(error))
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    if place is None or int(place[1]) > len(lines):
        return ""
    line = lines[int(place[1]) - 1].strip()
    bare = re.fullmatch(r"([\w.-]+\s*=\s*)([A-Za-z][^\s\"'#]*)\s*(#.*)?", line)
    return f": {line[:80]}" + (f'; text stands in quotes: {bare[1]}"{bare[2]}"' if bare else "")


def to_toml(values: Mapping[str, Any]) -> str:
    """The values as TOML in their own order, lists on one line. None is left out."""
    lines = [_line(key, value) for key, value in values.items() if value is not None and not isinstance(value, Mapping)]
    for key, table in values.items():
        if isinstance(table, Mapping):
            space = table.get("space") if key == "search" else None  # a line for each of its fields, in a table of their own
            own = {inner: value for inner, value in table.items() if value is not None and value is not space}
            lines += ["", f"[{key}]", *(_line(inner, value) for inner, value in own.items())]
            if isinstance(space, Mapping):
                lines += ["", "[search.space]", *(_line(inner, value) for inner, value in space.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    from engine.catalog.fields import inline, inline_key

    return inline_key(key) + inline(value)


def parse_setting(setting: str) -> tuple[str, Any]:
    """`optimizer.lr=1e-3` as its key and its value, read as TOML where it is that, else as text. RecipeError without an `=`."""
    from engine.catalog.fields import toml_value

    key, text = _split(setting)
    return key, toml_value(text)


def apply_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """The values with `--set` settings put in, in their order. Nothing is checked but that each one names a place.

    `scheduler=none` takes the section away, `training.patience=none` an optional field; `optimizer=SGD` is short for
    `optimizer.name=SGD`. A new name keeps only the arguments that it knows.
    """
    from engine.catalog import sections
    from engine.catalog.check import with_defaults

    result = dict(values)
    for setting in settings:
        key, value = parse_setting(setting)
        _, text = _split(setting)
        section, _, inner = key.rpartition(".")
        field = next((group.find(inner) for group in sections(with_defaults(result)) if group.key == section), None)
        if text.lower() == "none" and (key == "scheduler" or (field is not None and field.optional)):
            value = None
        elif field is not None and (field.kind == "text" or isinstance(value, str)):
            value = value if isinstance(value, str) and value != text else field.read(text)
        result = with_value(result, key, value)
    return result


def with_value(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The values with one dotted key set; None takes it away. A new name keeps only the arguments that it knows."""
    from engine.catalog import KINDS

    if key in KINDS and isinstance(value, str):
        key = f"{key}.name"
    section, dot, inner = key.partition(".")
    result = dict(values)
    if not dot:
        result[section] = value
    else:
        given = result.get(section)
        table = {**given} if isinstance(given, Mapping) else {}
        if section == "search" and inner.startswith("space.") and isinstance(table.setdefault("space", {}), Mapping):
            inner, value = "space", {**table["space"], inner.removeprefix("space."): value}
            value = {name: each for name, each in value.items() if each is not None}
        if inner == "name" and section in KINDS and isinstance(value, str):
            table = _known_to(section, value, table)
        table[inner] = value
        result[section] = {name: each for name, each in table.items() if each is not None}
    return {name: each for name, each in result.items() if each is not None}


def _known_to(kind: str, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Name first, then those of the old arguments that the new name has fields for."""
    from engine.catalog import find
    from engine.catalog.entries import LOADING

    try:
        entry = find(kind, name)
    except RecipeError:  # the check of the whole says so
        return {**table, "name": name}
    known = {field.key for field in (*entry.fields, *(LOADING if kind == "data" else ()))}
    return {"name": name, **{key: value for key, value in table.items() if key in known}}


def _split(setting: str) -> tuple[str, str]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError([Problem("", f"{setting!r} is no setting; write key=value, for example optimizer.lr=1e-3")])
    return key.strip(), text.strip()
