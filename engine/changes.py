"""What of a plan can be changed while it is carried out: the learning rate and a few limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import Problem, RecipeError, nearest

EXECUTIONS = ("eager", "compiled", "captured")  # as the values of a change of "training.execution"


@dataclass(frozen=True, slots=True)
class Change:
    """`field` becomes `value`, or `value` times what it is. None takes a limit away."""

    field: str
    value: float | None
    times: bool = False

    def __str__(self) -> str:
        """As it is written: "optimizer.lr=x0.5"."""
        return f"{self.field}={'none' if self.value is None else ('x' if self.times else '') + f'{self.value:g}'}"

    def of(self, before: float | None) -> float | None:
        """The new value. RecipeError where there is nothing to multiply, or the field does not allow the result."""
        value = self.value
        if self.times:
            if before is None or value is None:
                raise RecipeError([Problem(self.field, f"{self.field} has no value that could be multiplied")])
            value = before * value
        return FIELDS[self.field].checked(self.field, value)


@dataclass(frozen=True, slots=True)
class Changeable:
    """What a field allows."""

    help: str
    least: float = 0.0
    whole: bool = False
    optional: bool = False

    @property
    def top(self) -> float:
        """The largest value."""
        return 1e9 if self.whole else 3.4028235e38  # what single precision holds

    def checked(self, field: str, value: float | None) -> float | None:
        """The value as it is used. RecipeError, in one sentence, when it is not allowed."""
        if value is None and self.optional:
            return None
        if (
            value is None
            or not math.isfinite(value)
            or not self.least <= value <= self.top
            or (self.whole and value != int(value))
        ):
            kind = "a whole number" if self.whole else "a number"
            none = " or none" if self.optional else ""
            over = value is not None and value > self.top
            limits = f"from {self.least:g} to {self.top:g}" if over else f"of {self.least:g} or more"
            raise RecipeError([Problem(field, f"{field} = {value} is not allowed: {kind} {limits}{none}")])
        return int(value) if self.whole else float(value)


FIELDS: dict[str, Changeable] = {
    "optimizer.lr": Changeable("learning rate of the first group; the others, and the rest of the schedule, in proportion"),
    "optimizer.weight_decay": Changeable("weight decay of every group that has one"),
    "training.clip_norm": Changeable("largest norm of all gradients together", optional=True),
    "training.clip_value": Changeable("largest size of each single gradient", optional=True),
    "training.epochs": Changeable("epochs in all; the schedule keeps the length that it was made for", least=1, whole=True),
    "training.patience": Changeable("validations without a new best before the run ends", least=1, whole=True, optional=True),
    "training.validate_every": Changeable("epochs between validations", least=1, whole=True),
    "checkpoint.every": Changeable("epochs between checkpoints", least=1, whole=True),
}


def parse_change(text: str) -> Change:
    """`optimizer.lr=3e-4`, `lr=x0.5`, `training.patience=none`; the section may be left out. RecipeError otherwise."""
    name, equals, value = (part.strip() for part in text.partition("="))
    field = next((field for field in FIELDS if name in (field, field.partition(".")[2])), None)
    if not equals or not value:
        raise RecipeError([Problem(name, f"{text!r} is no change: write FIELD=VALUE, such as lr=3e-4 or lr=x0.5")])
    if field is None:
        allowed = ", ".join(FIELDS)
        known = [*FIELDS, *(field.partition(".")[2] for field in FIELDS)]
        message = f"{name} can't be changed while a run is under way: {allowed}{nearest(name, known)}"
        raise RecipeError([Problem(name, message)])
    times = value[0] in "x×*"
    if value.lower() == "none":
        return Change(field, FIELDS[field].checked(field, None))
    try:
        number = float(value[1:] if times else value)
    except ValueError:
        raise RecipeError([Problem(field, f"{field} = {value!r} is no number; a factor is written x0.5")]) from None
    if times and not (math.isfinite(number) and number > 0):
        raise RecipeError([Problem(field, f"{field} = {value!r}: a factor is a number above 0")])
    return Change(field, number if times else FIELDS[field].checked(field, number), times)


def change_from(values: Mapping[str, Any]) -> Change:
    """The change of a line of JSON values: "field", "value" and, for a factor, "times". RecipeError otherwise."""
    field, value, times = values.get("field"), values.get("value"), values.get("times", False)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(field, str) or not (value is None or number) or not isinstance(times, bool):
        raise RecipeError([Problem("", f"no change: {dict(values)!r}")])
    if value is None:
        return parse_change(f"{field}=none")
    return parse_change(f"{field}={'x' if times else ''}{value!r}")
