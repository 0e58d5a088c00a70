"""Field: one thing a recipe can set, with its kind, default, limits and help. What forms, checks and files share."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal

from engine.errors import Problem, nearest

Kind = Literal["integer", "number", "boolean", "text", "list", "table", "any"]

_ONE = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "text": "text",
    "table": "a table",
    "any": "a value",
}
_MANY = {
    "integer": "integers",
    "number": "numbers",
    "boolean": "true or false",
    "text": "texts",
    "table": "tables",
    "any": "values",
}


class _Required:
    """The default of a field that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting of a recipe.

    `key` is its name inside its section, torch's own argument name where there is one. `default` is REQUIRED when there is
    none. `choices` closes the set of values (of items, in a list). `optional` fields may be left out (their default is None);
    `derived` then says in a few words what the engine uses instead ("the length of the run"). `item` is the kind of a list's
    items, or of a table's values, and `length` how many items there must be; a table is written as in a file, { key = value }.
    `words` may stand instead of a list ("balanced"); "none" among them means left out. `minimum` and `maximum` are inclusive.
    `pattern` is what a whole text must match, and `pattern_words` says the same to a person. `make` is what a constructor gets
    for the recipe's plain value.
    """

    key: str
    kind: Kind
    default: Any = REQUIRED
    item: Kind = "any"
    length: int | None = None
    choices: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pattern: str = ""
    pattern_words: str = ""
    optional: bool = False
    derived: str = ""
    help: str = ""
    make: Literal["", "tuple", "tensor", "path"] = ""

    @property
    def expects(self) -> str:
        """What a value must be, to follow "it must be"."""
        if self.pattern_words:
            return self.pattern_words
        if self.kind == "list":
            length = "" if self.length is None else f"{self.length} "
            among = f", each one of {', '.join(map(str, self.choices))}" if self.choices else ""
            instead = f"{', '.join(self.words)} or " if self.words else ""
            return f"{instead}a list of {length}{_MANY[self.item]}{among}"
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        words = _ONE[self.kind]
        low, high = (str(limit).removesuffix(".0") for limit in (self.minimum, self.maximum))
        if self.minimum is not None and self.maximum is not None:
            return f"{words} from {low} to {high}"
        if self.minimum is not None:
            return f"{words} of at least {low}"
        return f"{words} of at most {high}" if self.maximum is not None else words

    def clean(self, value: Any) -> Any:
        """`value` in its one plain form: 1 is 1.0 as a number, 1e3 is 1000 as an integer, a tuple is a list.

        What does not fit is returned as it is, for `problem` to name.
        """
        return _clean(self.kind, value, self.item)

    def problem(self, section: str, value: Any) -> Problem | None:
        """What is wrong with `value` in this field of `section` ("" for the recipe's own). A value of None means left out."""
        key = f"{section}.{self.key}" if section else self.key
        if value is None:
            meaning = f": {self.help}" if self.help else ""
            return None if self.optional else Problem(key, f"{key} is missing; it must be {self.expects}{meaning}")
        value = self.clean(value)
        if self._fits(value):
            return None
        hint, guess = "", value
        if isinstance(value, list) and self.choices:
            guess = next((item for item in value if item not in self.choices), None)
        if isinstance(guess, str):  # fp32 means float32, not tf32: a guess has the same first letter
            hint = nearest(guess, (str(choice) for choice in (*self.choices, *self.words) if str(choice)[:1] == guess[:1]))
        wanted = self.expects
        if self.kind == "number" and isinstance(value, float) and not math.isfinite(value):
            wanted = wanted.replace("a number", "a finite number")
        if self.kind == "integer" and _is("integer", value) and not _in_64_bits(value):
            wanted = wanted.replace("an integer", "an integer of at most 64 bits")
        return Problem(key, f"{key} is {shown(value)}; it must be {wanted}{hint}")

    def _fits(self, value: Any) -> bool:
        if isinstance(value, str) and value in self.words:
            return True
        if self.kind == "list":
            whole = isinstance(value, list) and (self.length is None or len(value) == self.length)
            return whole and all(
                _is(self.item, item) and _in_64_bits(item) and (not self.choices or item in self.choices) for item in value
            )
        if self.kind == "table":
            return isinstance(value, Mapping) and all(_is(self.item, each) for each in value.values())
        if self.choices:
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if not _is(self.kind, value) or not _in_64_bits(value):
            return False
        if self.kind == "number" and not math.isfinite(value) and value != self.default:
            return False
        if self.pattern and not re.fullmatch(self.pattern, value):
            return False
        return not ((self.minimum is not None and value < self.minimum) or (self.maximum is not None and value > self.maximum))

    def read(self, text: str) -> Any:
        """The value a person typed. Empty means None where the field is optional, and an empty list or text elsewhere.

        Never raises: text that is no such value comes back as it is, for `problem` to name.
        """
        text = text.strip()
        if not text and self.optional:
            return None
        if self.kind != "list" or text in self.words:
            return _read("text" if text in self.words else self.kind, text)
        if text.startswith("["):
            return self.clean(toml_value(text))
        if self.item == "table":
            return toml_value(f"[{text}]") if text else []
        return [_read(self.item, item.strip()) for item in text.split(",")] if text else []

    def show(self, value: Any) -> str:
        """The text for a form: `read(show(value)) == value` for every value that fits."""
        if value is None or value is REQUIRED:
            return ""
        value = self.clean(value)
        if isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(item, Mapping) for item in value)):
            return inline(value)
        if self.kind != "list" or not isinstance(value, list):
            text = _show(value)
            return text if self.kind != "any" or self.read(text) == value else json.dumps(value, ensure_ascii=False)
        text = ", ".join(map(_show, value))
        return text if self.read(text) == value else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One group of a form: what can be named there and the fields that go with the present choice."""

    key: str  # "optimizer"; "" for the recipe's own name and seed
    title: str
    names: tuple[str, ...] = ()  # what `name` may be; empty where the section has no name. Own code is allowed beside them
    unfit: Mapping[str, str] = field(default_factory=dict)  # names that can't be chosen here -> the sentence why
    optional: bool = False  # the whole section may be absent (scheduler)
    fields: tuple[Field, ...] = ()

    def find(self, key: str) -> Field | None:
        """The field of that key."""
        return next((field for field in self.fields if field.key == key), None)


def shown(value: Any) -> str:
    """A value inside a sentence: text in quotes, true and false as in a file."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def toml_value(text: str) -> Any:
    """`text` read as a TOML value, or the text itself where it is none."""
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        return text
    return values["value"] if set(values) == {"value"} else text


def inline(value: Any) -> str:
    """A value as it stands in a TOML file, all of it on one line. What is None in a table is left out."""
    import tomli_w

    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, Mapping):
        items = [inline_key(key) + inline(inner) for key, inner in value.items() if inner is not None]
        return f"{{{', '.join(items)}}}"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").removesuffix("\n")


def inline_key(key: str) -> str:
    """A key as it stands before its value, quoted where it must be."""
    import tomli_w

    return tomli_w.dumps({key: 0}).removesuffix("0\n")


def _in_64_bits(value: Any) -> bool:
    """Whether an integer is one that torch and TOML can hold; true of everything else."""
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def kind_of(value: Any) -> Kind:
    """The kind of a plain value."""
    kinds: tuple[Kind, ...] = ("boolean", "integer", "number", "text")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "list"
    return next((kind for kind in kinds if _is(kind, value)), "any")


def _is(kind: Kind, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, float)
    return kind == "any" or isinstance(value, {"text": str, "list": list, "table": Mapping}[kind])


def _clean(kind: Kind, value: Any, item: Kind = "any") -> Any:
    if kind in ("list", "any") and isinstance(value, (list, tuple)):
        return [_clean(item, each) for each in value]
    if kind == "text" and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind == "integer" and isinstance(value, Real) and not isinstance(value, bool):
        if isinstance(value, Integral):
            return int(value)
        return int(float(value)) if float(value).is_integer() else value
    if kind == "number" and isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def _read(kind: Kind, text: str) -> Any:
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind in ("any", "table"):
        return toml_value(text)
    if kind in ("integer", "number"):
        try:
            return int(text) if kind == "integer" else float(text)
        except ValueError:
            value = toml_value(text)  # 1e3 for an integer
            return _clean(kind, value) if isinstance(value, Real) else text
    return text


def _show(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return re.sub(r"e([-+]?)0+(?=\d)", r"e\1", repr(value))
    return json.dumps(value, ensure_ascii=False, default=str)
