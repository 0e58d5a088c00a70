"""Field: one thing a recipe can set, with its kind, default, limits and help. What forms, checks and files share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["integer", "number", "boolean", "text", "list", "any"]


class _Required:
    """The default of a field that has none."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One setting of a recipe.

    `key` is its name inside its section, torch's own argument name where there is one. `default` is REQUIRED when there is none.
    `choices` closes the set of values. `optional` fields may be left out (their default is None); `derived` then says in a few
    words what the engine uses instead ("epochs x steps per epoch"). `item` is the kind of a list's items.
    `minimum` and `maximum` are inclusive.
    """

    key: str
    kind: Kind
    default: Any = REQUIRED
    item: Kind = "any"
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    optional: bool = False
    derived: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One group of a form: what can be named there and the fields that go with the present choice."""

    key: str  # "optimizer"; "" for the recipe's own name and seed
    title: str
    names: tuple[str, ...] = ()  # what `name` may be; empty where the section has no name. Own code is allowed beside them
    optional: bool = False  # the whole section may be absent (scheduler)
    fields: tuple[Field, ...] = ()
