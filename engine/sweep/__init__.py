"""Sweep: several values for some fields of a recipe, as checked recipes that name what differs; and what came of each.

What trains them is in `sweeping`, which is imported when there is something to train.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from engine.errors import EpochalError, Problem, RecipeError, named, plain
from engine.recipe import Recipe, rate_taken
from engine.recipe_text import apply_settings

if TYPE_CHECKING:
    from engine.recipe import Recipe
    from engine.run import Run

LIMIT = 1000  # members of one sweep

_NUMBER = r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})(?:\s*x\s*(\d+))?")
_OPENING, _CLOSING = "[{(", "]})"


@dataclass(frozen=True, slots=True)
class Axis:
    """A field and the values that it takes in turn, as a person would type each."""

    field: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Axis:
        """`optimizer.lr=1e-4,1e-3`, `model.hidden=[64],[64, 32]`, `optimizer.lr=1e-4..1e-1x16` (so many on a logarithmic
        scale, both ends among them) or `seed=0..7` (whole numbers). RecipeError, in one sentence, for anything else."""
        field, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not field or not values:
            raise _wrong("", f"{text!r} is no field with values; write FIELD=VALUE,VALUE,…, such as optimizer.lr=1e-4,1e-3")
        return cls(field, tuple(each for part in split(values) for each in _spread(field, part)))


@dataclass(frozen=True, slots=True)
class Member:
    """One recipe of a sweep, and the values by which it differs from the others, as they were typed."""

    recipe: Recipe
    differs: Mapping[str, str]

    @property
    def label(self) -> str:
        """ "lr=1e-3 seed=0"."""
        return " ".join(f"{short}={value}" for short, value in zip(shortened(self.differs), self.differs.values(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one member. `state` is "finished", "stopped", "failed" or "left out" (the sweep ended before it)."""

    member: Member
    state: str
    reason: str = ""
    best: dict[str, float] = field(default_factory=dict)  # the best epoch's row, empty when none ended
    monitor: str = ""
    mode: str = "min"
    seconds: float = 0.0
    run: Run | None = None

    @property
    def value(self) -> float:
        """The best of the monitored metric; NaN when there is none."""
        return self.best.get(self.monitor, math.nan)


def count(axes: Sequence[Axis]) -> int:
    """How many members the axes have together."""
    return math.prod(len(axis.values) for axis in axes)


def expand(values: Mapping[str, Any], axes: Sequence[Axis | str]) -> list[Member]:
    """A checked recipe for each combination, the last field changing fastest. `values` are those of a recipe's file or form.

    RecipeError with every mistake there is, before anything is trained.
    """

    if not isinstance(values, Mapping):
        raise EpochalError(f"expand() takes a recipe's values as a dict, such as Recipe().to_dict(); not {named(values)}")
    if isinstance(axes, str) or not isinstance(axes, Sequence) or not all(isinstance(axis, Axis | str) for axis in axes):
        raise EpochalError(f'expand() takes a list of texts such as "seed=0,1"; not {named(axes)}')
    parsed = [Axis.parse(axis) if isinstance(axis, str) else axis for axis in axes]
    _refuse(parsed)
    values = {key: value for key, value in values.items() if key != "search"}
    members: list[Member] = []
    known: dict[str, Member] = {}
    problems: dict[str, Problem] = {}  # by their sentences: what all members have in common is said once
    for chosen in product(*(axis.values for axis in parsed)):
        differs = {axis.field: value for axis, value in zip(parsed, chosen, strict=True)}
        try:
            recipe = Recipe.from_dict(apply_settings(values, [f"{field}={value}" for field, value in differs.items()]))
        except RecipeError as error:
            problems |= {problem.message: problem for problem in error.problems}
            continue
        if "optimizer.lr" in differs and (taken := rate_taken(recipe.to_dict(complete=False))):
            words = f"{taken}; sweep that, or leave it out"
            problems[words] = Problem("optimizer.lr", f"optimizer.lr makes no difference: {words}")
        if recipe.training.processes > 1:
            words = f"training.processes is {recipe.training.processes} and must be 1 in a sweep: a run of it is one process"
            problems[words] = Problem("training.processes", words)
        member = Member(recipe.replace(name=_named(recipe.name, differs)), differs)
        twin = known.setdefault(repr({**recipe.to_dict(complete=False), "name": ""}), member)
        if twin is not member:
            problem = _wrong("", f"{member.label} and {twin.label} are the same recipe: leave one of them out").problems[0]
            problems[problem.message] = problem
        members.append(member)
    if problems:
        raise RecipeError(list(problems.values()))
    return members


def ranked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """The best of the monitored metric first, those without one last, the rest in their order."""

    def place(outcome: Outcome) -> tuple[bool, float]:
        value = outcome.value
        return math.isnan(value), 0.0 if math.isnan(value) else -value if outcome.mode == "max" else value

    return sorted(outcomes, key=place)


def split(text: str) -> list[str]:
    """The parts between commas that no bracket and no quotation mark encloses."""
    parts, depth, quoted = [""], 0, ""
    for character in text:
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "\"'":
            quoted = character
        else:
            depth += (character in _OPENING) - (character in _CLOSING)
        if character == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def shortened(fields: Mapping[str, Any]) -> list[str]:
    """The fields without their sections where that leaves no doubt: "lr" for "optimizer.lr"."""
    lasts = [field.rpartition(".")[2] for field in fields]
    return [field if lasts.count(last) > 1 or last == "name" else last for field, last in zip(fields, lasts, strict=True)]


def _refuse(axes: Sequence[Axis]) -> None:
    if not axes:
        raise _wrong("", "a sweep needs a field with values, such as optimizer.lr=1e-4,1e-3")
    fields = [axis.field for axis in axes]
    for axis in axes:
        if fields.count(axis.field) > 1:
            raise _wrong(axis.field, f"{axis.field} is given twice: write all of its values behind one =")
        if axis.field == "name":
            raise _wrong("name", "name can't be swept: it is made from what differs")
        if "" in axis.values:
            raise _wrong(axis.field, f"{axis.field} has an empty value between two commas")
    if count(axes) > LIMIT:
        raise _wrong("", f"these values make {count(axes):,} runs; at most {LIMIT:,} are allowed")


def _spread(field: str, part: str) -> Iterator[str]:
    """What a value stands for: itself, or each of a range."""
    match = _RANGE.fullmatch(part)
    if match is None:
        yield part
        return
    low, high, points = float(match[1]), float(match[2]), match[3]
    if points is None:
        if low != int(low) or high != int(high) or low > high:
            raise _wrong(field, f"{field} = {part} needs whole numbers that rise, or how many values: {part}x8")
        if high - low >= LIMIT:
            raise _wrong(field, f"{field} = {part} is more than {LIMIT:,} values")
        yield from map(str, range(int(low), int(high) + 1))
        return
    if low <= 0 or high <= 0 or not 2 <= int(points) <= LIMIT:
        raise _wrong(field, f"{field} = {part} is spread on a logarithmic scale: both ends above 0, and 2 to {LIMIT:,} values")
    whole = all(re.fullmatch(r"\d+", end) for end in (match[1], match[2]))
    seen = set()
    for i in range(int(points)):
        value = math.exp(math.log(low) + (math.log(high) - math.log(low)) * i / (int(points) - 1))
        text = str(round(value)) if whole else f"{value:.4g}"
        if text not in seen:  # whole numbers may fall together
            seen.add(text)
            yield text


def _named(name: str, differs: Mapping[str, str]) -> str:
    """The recipe's name with what differs behind it, within what a run's directory can show of it."""
    suffix = "".join(
        f"-{short.replace('.', '-')}{value}" for short, value in zip(shortened(differs), differs.values(), strict=True)
    )
    suffix = re.sub(r"[^A-Za-z0-9_.]+", "-", suffix).rstrip("-")
    return f"{name[: max(12, 50 - len(suffix))]}{suffix}"[:100]


def _wrong(field: str, message: str) -> RecipeError:
    return RecipeError([Problem(field, plain(message))])
