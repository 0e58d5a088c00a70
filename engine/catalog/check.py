"""A recipe's values against the catalog: the sections of a form, and every mistake as one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.catalog import own
from engine.catalog.entries import LOADING, TASKS, Entry, find, names
from engine.catalog.fields import REQUIRED, Field, Section, kind_of, shown
from engine.catalog.signature import fields_of_options
from engine.errors import Problem, RecipeError, nearest
from engine.recipe import Checkpoint, Recipe, Training

COMPONENTS = {"data": "Data", "model": "Model", "loss": "Loss", "optimizer": "Optimizer", "scheduler": "Scheduler"}
PLANS = {"training": ("Training", fields_of_options(Training)), "checkpoint": ("Checkpoints", fields_of_options(Checkpoint))}
OWN = fields_of_options(Recipe)  # the recipe's own name and seed


def sections(values: Mapping[str, Any], light: bool = False) -> tuple[Section, ...]:
    """The groups of a form, each with the fields of what is named there now.

    Never fails: what is misspelt, or is own code that can't be loaded, has no fields (`problems` says why). `light` keeps torch
    unloaded: what needs it then has no names, and the fields of its present values.
    """
    groups = [Section(key="", title="Recipe", fields=OWN)]
    for kind, title in COMPONENTS.items():
        given = _table(values, kind)
        name = given.get("name")
        if light and (kind != "data" or own.is_own(str(name))):
            fields = tuple(_guess(key, value) for key, value in given.items() if key not in ("name", *_LOADING_KEYS))
        else:
            fields = _fields(kind, name)
        fields += LOADING if kind == "data" else ()
        known = () if light and kind != "data" else names(kind)
        groups.append(Section(key=kind, title=title, names=known, optional=kind == "scheduler", fields=fields))
    groups += [Section(key=key, title=title, fields=fields) for key, (title, fields) in PLANS.items()]
    return tuple(groups)


def problems(values: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Every mistake in a recipe's values. A missing section is as in the default recipe; None means left out.

    Errors that own code raises while it is loaded come through.
    """
    values = with_defaults(values)
    found = list(_unknown("", values, ["name", "seed", *COMPONENTS, *PLANS], "part of a recipe"))
    found += _of_fields("", values, OWN)
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
            found += _of_fields(key, given, fields)
            found += _unknown(key, given, [field.key for field in fields], f"field of {key}")
        else:
            try:
                chosen[key] = _chosen(key, given.get("name"))
            except RecipeError as error:
                found += error.problems
                found += _of_fields(key, given, LOADING) if key == "data" else ()
            else:
                wrong = list(_of_component(chosen[key], given))
                found += wrong
                if not wrong:
                    sound[key] = chosen[key]
    return (*found, *_across(chosen), *_trials(sound, values))


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with a name in each component that is not optional: that of the default recipe where none is given."""
    filled = dict(values)
    for kind in ("data", "model", "loss", "optimizer"):
        given = values.get(kind) if values.get(kind) is not None else {}
        filled[kind] = {"name": getattr(_DEFAULT, kind).name, **given} if isinstance(given, Mapping) else given
    return filled


_DEFAULT = Recipe()
_LOADING_KEYS = tuple(field.key for field in LOADING)


def _table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    given = values.get(key)
    return given if isinstance(given, Mapping) else {}


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


def _chosen(kind: str, name: Any) -> Entry:
    key = f"{kind}.name"
    if name is None:
        raise RecipeError([Problem(key, f"{key} is missing; it must be one of {', '.join(names(kind))}, or own code")])
    if not isinstance(name, str):
        raise RecipeError([Problem(key, f"{key} is {shown(name)}; it must be text")])
    entry = find(kind, name)
    if entry.refusal:
        raise RecipeError([Problem(key, f"{key} can't be {name!r}: {entry.refusal}")])
    return entry


def _of_component(entry: Entry, given: Mapping[str, Any]) -> Iterator[Problem]:
    fields = entry.fields + (LOADING if entry.kind == "data" else ())
    yield from _of_fields(entry.kind, given, fields)
    if not entry.open:
        yield from _unknown(entry.kind, given, ["name", *(field.key for field in fields)], f"field of {entry.name}")


def _of_fields(section: str, given: Mapping[str, Any], fields: tuple[Field, ...]) -> Iterator[Problem]:
    for field in fields:
        value = given.get(field.key)
        if value is None and field.default is not REQUIRED:
            continue
        problem = field.problem(section, value)
        if problem is not None:
            yield problem


def _unknown(section: str, given: Mapping[str, Any], known: Sequence[str], what: str) -> Iterator[Problem]:
    for key in given:
        if key not in known:
            dotted = f"{section}.{key}" if section else str(key)
            hint = nearest(str(key), known) or f"; there are {', '.join(known)}"
            yield Problem(dotted, f"{dotted} is no {what}{hint}")


def _across(chosen: Mapping[str, Entry]) -> Iterator[Problem]:
    """What no section can know alone: whether the loss fits what the data are for."""
    data, loss = chosen.get("data"), chosen.get("loss")
    task = getattr(data.target, "task", None) if data else None
    if data and loss and task and loss.tasks and task not in loss.tasks:
        fitting = ", ".join(name for name in names("loss") if task in TASKS.get(name, ()))
        message = (
            f"loss.name is {loss.name!r}, which is for {' and '.join(loss.tasks)}, but data.name {data.name!r} is for {task}"
        )
        yield Problem("loss.name", f"{message}; there are {fitting}")


def _trials(chosen: Mapping[str, Entry], values: Mapping[str, Any]) -> Iterator[Problem]:
    """Build torch's own optimizer, loss and scheduler once for what their constructors say of the values."""
    import torch

    def arguments(entry: Entry) -> dict[str, Any]:
        given = _table(values, entry.kind)
        return {field.key: field.clean(given[field.key]) for field in entry.fields if given.get(field.key) is not None}

    optimizer: Any = None
    for entry in (chosen.get("loss"), chosen.get("optimizer"), chosen.get("scheduler")):
        if entry is None or own.is_own(entry.name) or (entry.kind == "scheduler" and optimizer is None):
            continue
        live: tuple[Any, ...] = ()
        given = arguments(entry)
        if entry.kind == "optimizer":
            live = ([torch.nn.Parameter(torch.zeros(2, 2))],)
        if entry.kind == "scheduler":
            live = (optimizer,)
            stand_in = {"epochs": 1000, "total_steps": 1000, "lr": 0.1}  # of the real ones only assembling knows
            given = {**{key: stand_in[source] for key, source in entry.derived.items()}, **given}
        error, part = _trial(entry, given, live)
        if error is not None:
            yield _blamed(entry, given, live, error)
        elif entry.kind == "optimizer":
            optimizer = part


def _trial(entry: Entry, arguments: Mapping[str, Any], live: tuple[Any, ...]) -> tuple[Exception | None, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when it is built to be used
        try:
            return None, entry.build(arguments, *live)
        except Exception as error:  # torch's constructors raise what they like; given plain values it is about the values
            return error, None


def _blamed(entry: Entry, arguments: Mapping[str, Any], live: tuple[Any, ...], error: Exception) -> Problem:
    """The problem at the one argument without which it works, or at the name."""
    says = f"{entry.name} says: {' '.join(str(error).split())}"
    for key, value in arguments.items():
        others = {other: given for other, given in arguments.items() if other != key}
        if _trial(entry, others, live)[0] is None:
            return Problem(f"{entry.kind}.{key}", f"{entry.kind}.{key} is {shown(value)}; {says}")
    return Problem(f"{entry.kind}.name", f"{entry.kind}.name is {entry.name!r}; {says}")
