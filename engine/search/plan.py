"""[search]: what of a recipe is searched, over which values, and how. Checked without Optuna."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any

from engine import catalog
from engine.catalog import extras
from engine.catalog.check import with_defaults
from engine.catalog.fields import Field, inline, shown
from engine.catalog.signature import fields_of_options
from engine.errors import EpochalError, Problem, RecipeError, nearest, plain
from engine.recipe import option, rate_taken
from engine.recipe_text import with_value

USUAL_TRIALS = 50
Made = tuple[str, dict[str, Any]]  # what Optuna calls a sampler or pruner, and its arguments


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both of them among these. `whole` ones are integers."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def points(self) -> list[float] | None:
        """All of its values, None where there is no end of them."""
        step = self.step or (1 if self.whole and not self.log else None)
        if step is None:
            return [*range(int(self.low), int(self.high) + 1)] if self.whole else None
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        return [self.low + step * i for i in range(count)]


@dataclass(frozen=True, slots=True)
class Choices:
    """These values. Optuna is given what is no number, text or truth as the text that a file has of it."""

    values: tuple[Any, ...]

    @property
    def points(self) -> list[Any]:
        """Their names."""
        return [named(value) for value in self.values]

    def of(self, name: Any) -> Any:
        """The value of that name."""
        return next(value for value in self.values if named(value) == name)


def named(value: Any) -> Any:
    """What Optuna calls a value."""
    return value if isinstance(value, str | int | float | bool) else inline(value)


Axis = Range | Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The [search] of a recipe, checked."""

    trials: int | None = option(
        None, f"how many are trained; left out: {USUAL_TRIALS}, or with minutes as many as there is time for", minimum=1
    )
    minutes: float | None = option(None, "begin no other trial after so long, counted from each start", minimum=0.0)
    metric: str | None = option(None, "what makes a trial good: val/loss, val/accuracy; left out: training.monitor")
    direction: str | None = option(
        None, "left out: what the metric means", choices=("minimize", "maximize"), derived="what the metric means"
    )
    workers: int = option(1, "processes that train trials at the same time", minimum=1, maximum=256)
    batch: int | None = option(
        None,
        "trials asked for at once, which train as one population where they differ in numbers alone; left out: 1, or with a "
        "sampler that does not learn from the trials before as many as fit",
        minimum=1,
    )
    sampler: Made = ("tpe", {})
    pruner: Made = ("median", {})
    space: Mapping[str, Axis] = field(default_factory=dict)
    only: Mapping[str, frozenset[Any]] = field(default_factory=dict)  # of a field that only some names of its part know

    @property
    def names_first(self) -> list[str]:
        """The fields, names of parts first: on them depends which of the others there are."""
        return sorted(self.space, key=lambda key: not key.endswith(".name"))

    def applies(self, key: str, chosen: Mapping[str, Any]) -> bool:
        """Whether the field is there, once the names are chosen."""
        part = f"{key.partition('.')[0]}.name"
        return key not in self.only or chosen.get(part) in self.only[key]

    @property
    def size(self) -> int | None:
        """How many recipes the space has, None where there is no end of them."""
        count = 0
        fields = [key for key in self.space if key.endswith(".name")]
        for chosen in product(*(self.space[key].points or [] for key in fields)):
            names, one = dict(zip(fields, chosen, strict=True)), 1
            for key, axis in self.space.items():
                if key not in names and self.applies(key, names):
                    if axis.points is None:
                        return None
                    one *= len(axis.points)
            count += one
        return count

    @property
    def exhaustive(self) -> bool:
        """Whether the sampler takes each recipe of the space once."""
        return self.sampler[0] in ("grid", "bruteforce")

    @property
    def limit(self) -> int | None:
        """After how many trials it is over; None: when the time is."""
        usual = None if self.minutes is not None or self.exhaustive else USUAL_TRIALS
        found = [n for n in (self.trials or usual, self.size if self.exhaustive else None) if n is not None]
        return min(found, default=None)

    def values_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's parameters as a recipe has them, the names first."""
        values = {}
        for key in self.names_first:
            if key in params:
                axis = self.space[key]
                values[key] = axis.of(params[key]) if isinstance(axis, Choices) else params[key]
        return values


_SAMPLER = Field(
    key="sampler", kind="any", default="tpe", help="of Optuna: tpe, random, grid, cmaes, qmc, gp …, or { name = …, … }"
)
_PRUNER = Field(
    key="pruner", kind="any", default="median", help="of Optuna: median, hyperband, successive_halving, none … or a table"
)
_SPACE = Field(
    key="space",
    kind="table",
    help='by field a list of values or { low = …, high = … }: "optimizer.lr" = { low = 1e-4, high = 1e-1, log = true }',
)
FIELDS = (*fields_of_options(Plan), _SAMPLER, _PRUNER, _SPACE)


def plan_of(values: Mapping[str, Any]) -> Plan:
    """The search of a recipe's values. RecipeError with every mistake there is, in the recipe itself as well."""

    if values.get("search") is None:
        example = '[search.space] and "optimizer.lr" = { low = 1e-4, high = 1e-1, log = true }'
        raise RecipeError([Problem("search", f"the recipe has no [search]; it must say what to search: {example}")])
    if found := catalog.problems(values):
        raise RecipeError(found)
    given = values["search"]
    base = without(values)
    if (values.get("training") or {}).get("processes", 1) != 1 or "training.processes" in given["space"]:
        words = "training.processes must be 1 in a search: a trial is one process; search.workers says how many train at a time"
        raise RecipeError([Problem("training.processes", words)])
    space, only = {}, {}
    for key, item in given["space"].items():
        names = _names_that_know(base, given["space"], key)
        if names is not None:
            only[key] = names
        space[key] = _axis(item, whole=_whole(base, given["space"], key, item))
    plain_fields = {each.key: each for each in FIELDS}
    options = {
        item.name: plain_fields[item.name].clean(given[item.name])
        for item in fields(Plan)
        if "help" in item.metadata and given.get(item.name) is not None
    }
    made: dict[str, Any] = {key: made_of(given[key]) for key in ("sampler", "pruner") if given.get(key) is not None}
    return Plan(**options, **made, space=space, only=only)


def without(values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe itself."""
    return {key: value for key, value in values.items() if key != "search"}


def made_of(given: Any) -> Made:
    """`"tpe"` or `{ name = "tpe", multivariate = true }`: the name as Optuna's classes have it, and the arguments."""
    table = {"name": given} if isinstance(given, str) else dict(given)
    name = str(table.pop("name")).lower().replace("_", "").replace("-", "")
    return name, table


def problems(values: Mapping[str, Any], *, sound: bool) -> Iterator[Problem]:
    """Every mistake in [search]; what its values are for the recipe is looked at where that is sound without them."""

    given = values["search"]
    if not isinstance(given, Mapping):
        yield Problem("search", f"search is {shown(given)}; it must be a section: [search] with a [search.space]")
        return
    yield from extras.unknown("search", given, [each.key for each in FIELDS], "field of search")
    for each in FIELDS:
        value = given.get(each.key)
        if each is not _SPACE and value is not None and (problem := each.problem("search", value)):
            yield problem
    for each in (_SAMPLER, _PRUNER):
        value = given.get(each.key)
        table = isinstance(value, Mapping) and isinstance(value.get("name"), str)
        if value is not None and not isinstance(value, str) and not table:
            words = f"search.{each.key} is {shown(value)}; it must be a name of Optuna's, or a table with a name"
            yield Problem(f"search.{each.key}", words)
    space = given.get("space")
    if not isinstance(space, Mapping) or not space:
        said = "missing or empty" if not space else shown(space)
        example = '[search.space] with "optimizer.lr" = { low = 1e-4, high = 1e-1, log = true }'
        yield Problem("search.space", f"search.space is {said}; it must name the fields to be searched: {example}")
        return
    yield from _of_space(without(values), space, sound)


def _of_space(base: Mapping[str, Any], space: Mapping[str, Any], sound: bool) -> Iterator[Problem]:
    broken = False
    for key, given in space.items():
        if sentence := _shape(f"search.space {key!r}", given):
            broken = True
            yield Problem("search.space", sentence)
    if broken or not sound:
        return
    searched = any(key.startswith("scheduler") for key in space)
    if "optimizer.lr" in space and not searched and (taken := rate_taken(base)):
        words = f"{taken}; search that, or leave it out"
        yield Problem("search.space", f"search.space 'optimizer.lr' makes no difference: {words}")
    said: set[str] = set()
    for key, given in space.items():
        for sentence in _in_recipe(base, space, key, given):
            if sentence not in said:
                said.add(sentence)
                yield Problem("search.space", sentence)


def _shape(what: str, given: Any) -> str:
    """What is wrong with a range or list by itself."""
    if isinstance(given, list):
        if not given:
            return f"{what} is an empty list; it must have values to choose from"
        texts = [inline(value) for value in given]
        twice = next((text for text in texts if texts.count(text) > 1), None)
        return f"{what} has {twice} twice" if twice else ""
    if not isinstance(given, Mapping):
        return f"{what} is {shown(given)}; it must be a list of values, or {{ low = …, high = … }}"
    known = ("low", "high", "step", "log")
    for key in given:
        if key not in known:
            return f"{what} has {key!r}; a range has {', '.join(known)}{nearest(str(key), known)}"
    for key in ("low", "high"):
        if not _number(given.get(key)):
            value = "missing" if given.get(key) is None else shown(given[key])
            return f"{what}: {key} is {value}; it must be a finite number"
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    if low >= high:
        return f"{what}: low is {low} and high is {high}; low must be less than high"
    if not isinstance(log, bool):
        return f"{what}: log is {shown(log)}; it must be true or false"
    if log and low <= 0:
        return f"{what}: low is {low}; on a logarithmic scale it must be above 0"
    if step is not None and (not _number(step) or not 0 < step <= high - low):
        return f"{what}: step is {shown(step)}; it must be a number above 0, of at most high - low"
    return f"{what} has step and log; a logarithmic scale has no step" if log and step is not None else ""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_recipe(base: Mapping[str, Any], space: Mapping[str, Any], key: str, given: Any) -> Iterator[str]:
    """What is wrong with the values of one field as a part of the recipe."""

    contexts = [context for context in _contexts(base, space, key) if _field(context, key) is not None]
    if not contexts:
        yield _unknown(base, key)
        return
    for context in contexts:
        known = _field(context, key)
        if isinstance(given, Mapping) and known is not None and known.kind not in ("integer", "number", "any"):
            yield f"search.space {key!r} is a range; {key} must be {known.expects}, so list the values to choose from"
            return
        name = context.get(key.partition(".")[0], {}).get("name") if key.endswith(".name") else None
        for value in [given["low"], given["high"]] if isinstance(given, Mapping) else given if name is None else [name]:
            try:
                found = catalog.problems(context if name is not None else with_value(context, key, value))
            except EpochalError as error:
                found = (Problem(key, str(error)),)
            if found:
                yield f"search.space {key!r}: {found[0].message}"
        step = given.get("step") if isinstance(given, Mapping) else None
        if step is not None and known is not None and known.kind == "integer" and step != int(step):
            yield f"search.space {key!r}: step is {step}; {key} is an integer, so it must be one too"


def _contexts(base: Mapping[str, Any], space: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The recipe with each name that its part may have, and a value for each other field of that part."""
    part = key.partition(".")[0]
    names = space.get(f"{part}.name")
    made = [with_value(base, f"{part}.name", name) for name in names] if isinstance(names, list) else [dict(base)]
    contexts = []
    for one in made:
        context = one
        for other, given in space.items():
            if other.partition(".")[0] == part and other != key and not other.endswith(".name") and _field(context, other):
                context = with_value(context, other, given["low"] if isinstance(given, Mapping) else given[0])
        contexts.append(context)
    return contexts


def _field(values: Mapping[str, Any], key: str) -> Field | None:
    """The field of that dotted key, as long as these values have it; None where there is none."""

    section, _, inner = key.rpartition(".")
    values = with_defaults(without(values))
    group = next((group for group in catalog.sections(values) if group.key == section), None)
    if group is None or key == "name":
        return None
    if inner == "name" and group.names:
        return Field(key="name", kind="text", default=None, optional=True)
    if (found := group.find(inner)) is not None:
        return found
    table = values.get(section)
    if section in catalog.KINDS and isinstance(table, Mapping):
        try:
            entry = catalog.find(section, table["name"])
        except (RecipeError, KeyError):
            return None
        if entry.open:
            return Field(key=inner, kind="any", default=None, optional=True)
    return None


def _unknown(base: Mapping[str, Any], key: str) -> str:

    if key == "name":
        return "search.space 'name' can't be searched: each trial's run is called after the recipe and its number"
    groups = catalog.sections(with_defaults(base))
    known = [f"{group.key}.{each.key}" if group.key else each.key for group in groups for each in group.fields]
    known += [f"{group.key}.name" for group in groups if group.names]
    return plain(f"search.space {key!r} is no field of the recipe{nearest(key, known)}")


def _names_that_know(base: Mapping[str, Any], space: Mapping[str, Any], key: str) -> frozenset[Any] | None:
    """Of the names that the part may have, those with this field; None where all have it, or there is but one."""
    part, _, inner = key.partition(".")
    names: Sequence[Any] | None = space.get(f"{part}.name") if inner != "name" else None
    if names is None:
        return None
    able = frozenset(name for name in names if _field(with_value(base, f"{part}.name", name), key) is not None)
    return None if len(able) == len(names) else able


def _whole(base: Mapping[str, Any], space: Mapping[str, Any], key: str, given: Any) -> bool:
    """Whether a range is one of integers."""
    if not isinstance(given, Mapping):
        return False
    kinds = {each.kind for context in _contexts(base, space, key) if (each := _field(context, key)) is not None}
    return kinds == {"integer"} or (kinds == {"any"} and all(type(given[end]) is int for end in ("low", "high")))


def _axis(given: Any, *, whole: bool) -> Axis:
    if isinstance(given, list):
        return Choices(tuple(given))
    number = int if whole else float
    step = given.get("step")
    return Range(
        number(given["low"]), number(given["high"]), None if step is None else number(step), given.get("log", False), whole
    )
