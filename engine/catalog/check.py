"""A recipe's values against the catalog: the sections of a form, and every mistake as one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engine.catalog import constructors, extras, own
from engine.catalog.entries import LOADING, Entry, find, fitting, names, unfit
from engine.catalog.fields import REQUIRED, Field, Section, kind_of, shown
from engine.catalog.signature import fields_of_options
from engine.catalog.tasks import loss_for, model_for, task_of
from engine.errors import Problem, RecipeError
from engine.recipe import Checkpoint, Recipe, Track, Training
from engine.recipe_text import table_in

COMPONENTS = {"data": "Data", "model": "Model", "loss": "Loss", "optimizer": "Optimizer", "scheduler": "Scheduler"}
PLANS = {
    "training": ("Training", fields_of_options(Training)),
    "checkpoint": ("Checkpoints", fields_of_options(Checkpoint)),
    "track": ("Tracking", fields_of_options(Track)),
}
OWN = fields_of_options(Recipe)  # the recipe's own name and seed


def sections(values: Mapping[str, Any], light: bool = False) -> tuple[Section, ...]:
    """The groups of a form, each with the fields of what is named there now.

    Never fails: what is misspelt, or is own code that can't be loaded, has no fields (`problems` says why). `light` keeps torch
    unloaded: what needs it then has no names, and the fields of its present values.
    """
    groups = [Section(key="", title="Recipe", fields=OWN)]
    for kind, title in COMPONENTS.items():
        given = table_in(values, kind)
        name = given.get("name")
        if light and (kind != "data" or own.is_own(str(name))):
            fields = tuple(_guess(key, value) for key, value in given.items() if key not in ("name", *_LOADING_KEYS))
        else:
            fields = _fields(kind, name)
        fields += LOADING if kind == "data" else ()
        task = task_of(table_in(values, "data")) if kind in ("model", "loss") else None
        able, unfit = ((), {}) if light and kind != "data" else fitting(kind, task)
        groups.append(Section(key=kind, title=title, names=able, unfit=unfit, optional=kind == "scheduler", fields=fields))
    groups += [Section(key=key, title=title, fields=fields) for key, (title, fields) in PLANS.items()]
    if values.get("search") is not None:
        from engine.search import plan

        groups.append(Section(key="search", title="Search", fields=plan.FIELDS))
    return tuple(groups)


def problems(values: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Every mistake in a recipe's values. A missing section is as in the default recipe; None means left out.

    Errors that own code raises while it is loaded come through.
    """
    values = with_defaults(values)
    found = list(extras.unknown("", values, ["name", "seed", *COMPONENTS, *PLANS, "search"], "part of a recipe"))
    found += extras.of_fields("", values, OWN)
    chosen: dict[str, Entry] = {}
    sound: dict[str, Entry] = {}
    for key in (*COMPONENTS, *PLANS):
        given = values.get(key)
        if given is None:
            continue
        if not isinstance(given, Mapping):
            example = f"[{key}] with name = …" if key in COMPONENTS else f"[{key}]"
            found.append(Problem(key, f"{key} is {shown(given)}; it must be a section: {example}"))
        elif key in PLANS:
            _, fields = PLANS[key]
            found += extras.of_fields(key, given, fields)
            found += extras.unknown(key, given, [field.key for field in fields], f"field of {key}")
        else:
            try:
                chosen[key] = _chosen(key, given.get("name"))
            except RecipeError as error:
                found += error.problems
                found += extras.of_fields(key, given, LOADING) if key == "data" else ()
            else:
                wrong = list(_of_component(chosen[key], given))
                found += wrong
                if not wrong:
                    sound[key] = chosen[key]
    found += [*_across(chosen, values), *constructors.problems(sound, values)]
    if values.get("search") is not None:
        from engine.search import plan

        found += plan.problems(values, sound=not found)
    return tuple(found)


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with a name in each component that is not optional: that of the default recipe where none is given.

    Model and loss follow what the data are for, and the recipe is called after data and model. A scheduler called "none" is
    "constant": before it may be a warm-up.
    """
    filled = dict(values)
    for kind in ("data", "model", "loss", "optimizer"):
        given = values.get(kind) if values.get(kind) is not None else {}
        task = task_of(table_in(filled, "data"))
        name = {"model": model_for(task), "loss": loss_for(task)}.get(kind) or getattr(_DEFAULT, kind).name
        filled[kind] = {"name": name, **given} if isinstance(given, Mapping) else given
    if table_in(values, "scheduler").get("name") == "none":
        filled["scheduler"] = {**values["scheduler"], "name": "constant"}
    if filled.get("name") is None:
        filled["name"] = _named_after(table_in(filled, "data").get("name"), table_in(filled, "model").get("name"))
    return filled


def _named_after(data: Any, model: Any) -> str:
    """ "digits-mlp"; own data are called like their file, an own model like its class."""
    where, _, _ = str(data).rpartition(":")
    stem = where.removesuffix(".py").replace("/", ".").rpartition(".")[2] if where else str(data)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{stem}-{str(model).rpartition(':')[2]}")
    return name.lstrip(".")[:100]


_DEFAULT = Recipe()
_LOADING_KEYS = tuple(field.key for field in LOADING)


def _guess(key: str, value: Any) -> Field:
    item = {kind_of(each) for each in value} if isinstance(value, list) else set()
    return Field(key=key, kind=kind_of(value), item=item.pop() if len(item) == 1 else "any", default=None, optional=True)


def _fields(kind: str, name: Any) -> tuple[Field, ...]:
    if not isinstance(name, str):
        return ()
    try:
        return find(kind, name).fields
    except RecipeError:
        return ()
    except Exception:
        if own.is_own(name):  # a person's code may raise anything: `problems` lets it through
            return ()
        raise


def _chosen(kind: str, name: Any, place: str = "") -> Entry:
    key = f"{place or kind}.name"
    if name is None:
        raise RecipeError([Problem(key, f"{key} is missing; it must be one of {', '.join(names(kind))}, or own code")])
    if not isinstance(name, str):
        raise RecipeError([Problem(key, f"{key} is {shown(name)}; it must be text")])
    try:
        entry = find(kind, name)
    except RecipeError as error:  # the entry's sentence, at the place of a table inside a list
        raise RecipeError([Problem(key, item.message.replace(f"{kind}.name", key, 1)) for item in error.problems]) from None
    if entry.refusal:
        raise RecipeError([Problem(key, f"{key} can't be {name!r}: {entry.refusal}")])
    return entry


def _of_component(entry: Entry, given: Mapping[str, Any]) -> Iterator[Problem]:
    fields = entry.fields + (LOADING if entry.kind == "data" else ())
    yield from extras.of_fields(entry.kind, given, fields)
    if entry.kind == "scheduler" and "warmup" in given and entry.unit == "step" and "warmup" not in entry.extras:
        yield Problem("scheduler.warmup", f"scheduler.warmup is not for {entry.name}, which warms up itself: see pct_start")
        given = {key: value for key, value in given.items() if not key.startswith("warmup")}
    if not entry.open:
        yield from extras.unknown(entry.kind, given, ["name", *(field.key for field in fields)], f"field of {entry.name}")
    if "groups" in entry.extras and isinstance(given.get("groups"), list):
        partner = find("optimizer", entry.partner) if entry.partner else None
        yield from extras.problems_of("optimizer.groups", given["groups"], extras.of_group(entry, partner), "field of a group")
    if entry.name == "chain" and isinstance(given.get("chain"), list):
        yield from _of_chain(given["chain"])


def _of_chain(chain: Sequence[Any]) -> Iterator[Problem]:
    if not chain:
        yield Problem("scheduler.chain", "scheduler.chain is empty; it must have a table for each scheduler")
    for i, table in enumerate(chain):
        place = f"scheduler.chain[{i}]"
        if not isinstance(table, Mapping):  # the field itself says so
            continue
        try:
            entry = _chosen("scheduler", table.get("name"), place)
        except RecipeError as error:
            yield from error.problems
            continue
        if entry.name == "chain":
            yield Problem(f"{place}.name", f"{place}.name is 'chain'; a chain can't be part of one")
            continue
        length = extras.LENGTH if i + 1 == len(chain) else replace(extras.LENGTH, default=REQUIRED, optional=False)
        fields = (length, *(field for field in entry.fields if field.key not in entry.extras))
        yield from extras.problems_of_table(
            place, {"name": entry.name, **table}, (_NAME, *fields), f"field of {entry.name} here"
        )


_NAME = Field(key="name", kind="text")


def _across(chosen: Mapping[str, Entry], values: Mapping[str, Any]) -> Iterator[Problem]:
    """What no section can know alone: whether model and loss fit what the data are for."""
    task = task_of(table_in(values, "data"))
    for kind in ("model", "loss"):
        if task and kind in chosen:
            yield from unfit(chosen[kind], task)
