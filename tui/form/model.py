"""What the form holds, without any screen: values, the groups they call for, what differs and what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from engine.catalog.fields import REQUIRED, Field, Section
from engine.errors import EpochalError, Problem
from engine.recipe import Recipe
from engine.sweep import Axis


class Sections(Protocol):
    """Gives the groups for these values; `light` ones lack the fields for which torch must be loaded."""

    def __call__(self, values: Mapping[str, Any], *, light: bool) -> Sequence[Section]: ...


# What a fresh form has in the groups that are chosen by name: the default recipe's choice.
USUAL: dict[str, str] = {kind: getattr(Recipe(), kind).name for kind in ("data", "model", "loss", "optimizer")}
NAMED = (*USUAL, "scheduler")


class FormModel:
    """A recipe being edited. `values` has the shape of a recipe file and holds what differs from the defaults; a text that
    is no value of its field is kept as it is, and `problem` names it.

    Several values of a number make a sweep: `several` has their text by dotted key, and `values` the first of them.
    """

    def __init__(self, values: Mapping[str, Any], sections: Sections) -> None:
        self.values: dict[str, Any] = copy.deepcopy(dict(values))
        for kind, name in USUAL.items():
            if isinstance(self.values.setdefault(kind, {}), dict):
                self.values[kind].setdefault("name", name)
        self.several: dict[str, str] = {}
        self.light = True
        self._sections = sections
        self.groups: tuple[Section, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        """Ask for the groups again: another name was chosen, or torch has come and `light` is over."""
        self.groups = tuple(self._sections(self.values, light=self.light))
        if not self.light:
            self.groups = tuple(self._with_unknown(group) for group in self.groups)
        else:  # without the catalog only the present name is known
            present = {kind: name for kind in NAMED if (name := self.name(kind))}
            self.groups = tuple(
                replace(group, names=(present[group.key],)) if not group.names and group.key in present else group
                for group in self.groups
            )

    def group(self, key: str) -> Section:
        """The group of that key."""
        return next(group for group in self.groups if group.key == key)

    def name(self, section: str) -> str | None:
        """What is chosen in this group; None for an optional group that is absent."""
        return self._of(section).get("name")

    def pick(self, section: str, name: str | None) -> None:
        """Choose another name. Of the values that differ from their default, those stay for which the new one has a
        field of the same key and kind."""
        self.several = {key: text for key, text in self.several.items() if key.rpartition(".")[0] != section}
        old = {field.key: field for field in self.group(section).fields if self.differs(section, field)}
        values = self._of(section)
        if name is None:
            self.values.pop(section, None)
            self.refresh()
            return
        self.values[section] = {"name": name}
        self.refresh()
        for field in self.group(section).fields:
            before = old.get(field.key)
            if before is not None and (field.kind, field.choices) == (before.kind, before.choices) and field.key in values:
                self.values[section][field.key] = values[field.key]

    def value(self, section: str, field: Field) -> Any:
        """The value, the default where none was given."""
        return self._of(section).get(field.key, field.default)

    def text(self, section: str, field: Field) -> str:
        """The value as a person types it."""
        if several := self.several.get(dotted(section, field.key)):
            return several
        return field.show(self.value(section, field))

    def write(self, section: str, field: Field, text: str) -> str:
        """Take what was typed; nothing at all means the default. Returns the sentence that says what is wrong, or ""."""
        if field.kind in ("integer", "number") and ("," in text or ".." in text):
            return self._write_several(section, field, text)
        return self.set(section, field, field.read(text) if text.strip() else None)

    def _write_several(self, section: str, field: Field, text: str) -> str:
        key = dotted(section, field.key)
        try:
            first = Axis.parse(f"{key}={text}").values[0]
        except EpochalError:
            first = text.replace("..", ",").partition(",")[0]
        self.set(section, field, field.read(first))
        self.several[key] = text
        return self.problem(section, field)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The fields that have several values. EpochalError where a text is no such thing: `problems` says so before."""
        return tuple(Axis.parse(f"{key}={text}") for key, text in self.several.items())

    def set(self, section: str, field: Field, value: Any) -> str:
        """Take a value, None for the default. Returns the sentence that says what is wrong, or ""."""
        self.several.pop(dotted(section, field.key), None)
        values = self.values if section == "" else self.values.setdefault(section, {})
        if value is None or _same(field, value):
            values.pop(field.key, None)
        else:
            values[field.key] = value
        return self.problem(section, field)

    def differs(self, section: str, field: Field) -> bool:
        """Whether the value is another than the default, or there are several."""
        return dotted(section, field.key) in self.several or not _same(field, self.value(section, field))

    def renamed(self, section: str) -> bool:
        """Whether another name than the usual is chosen."""
        return self.name(section) != USUAL.get(section)

    def problem(self, section: str, field: Field) -> str:
        """What is wrong with this field by itself, or ""."""
        if several := self.several.get(key := dotted(section, field.key)):
            return _wrong(section, field, f"{key}={several}")
        value = self.value(section, field)
        found = field.problem(section, None if value is REQUIRED else value)
        return found.message if found else ""

    def problems(self) -> dict[str, str]:
        """The sentence for each field that is wrong by itself."""
        found = {
            dotted(group.key, field.key): self.problem(group.key, field) for group in self.groups for field in group.fields
        }
        return {key: sentence for key, sentence in found.items() if sentence}

    def changes(self) -> int:
        """How many settings differ from the defaults."""
        fields = sum(self.differs(group.key, field) for group in self.groups for field in group.fields)
        return fields + sum(self.renamed(group.key) for group in self.groups if group.key in NAMED)

    def _with_unknown(self, group: Section) -> Section:
        """A file's misspelt settings are shown too, to be put right or emptied."""
        known = {"name", *(field.key for field in group.fields)}
        wrong = [key for key, value in self._of(group.key).items() if key not in known and not isinstance(value, dict)]
        help = "no setting of this part; empty it to remove it"
        unknown = [Field(key=key, kind="any", default=None, optional=True, help=help) for key in wrong]
        return replace(group, fields=(*group.fields, *unknown))

    def _of(self, section: str) -> dict[str, Any]:
        found = self.values if section == "" else self.values.get(section, {})
        return found if isinstance(found, dict) else {}


def dotted(section: str, key: str) -> str:
    """`optimizer.lr`; the recipe's own name and seed have no section."""
    return f"{section}.{key}" if section else key


def _wrong(section: str, field: Field, axis: str) -> str:
    """What is wrong with several values of a field, or ""."""
    try:
        values = Axis.parse(axis).values
        if "" in values:
            return f"{dotted(section, field.key)} has an empty value; it must have one between two commas"
    except EpochalError as error:
        return str(error)
    problems = (field.problem(section, field.read(value) if value else None) for value in values)
    return next((problem.message for problem in problems if problem), "")


def sentences(problems: Sequence[Problem]) -> dict[str, str]:
    """The first sentence for each key."""
    found: dict[str, str] = {}
    for problem in problems:
        found.setdefault(problem.field, problem.message)
    return found


def _same(field: Field, value: Any) -> bool:
    """Whether it is the default; True and 1 are not the same."""
    value, default = field.clean(value), field.clean(field.default)
    return type(value) is type(default) and bool(value == default)
