"""The learning-rate finder: Leslie Smith's range test, on a copy of model and optimizer.

The rate grows exponentially from step to step until the smoothed loss has risen to several times its lowest value. Where the
loss falls fastest training learns most; somewhat beyond, it comes apart. L. N. Smith, "Cyclical Learning Rates for Training
Neural Networks", 2017; the smoothing and the stop are those that S. Gugger described for fastai.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from engine import execution
from engine.assemble import assemble_with_data, on_copies
from engine.errors import Problem, RecipeError
from engine.execution.generators import keep_random_state
from engine.loop import Loop, NonFiniteLoss, Window, windows
from engine.parts import Parts
from engine.recipe import Recipe

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 120
SMOOTHING = 0.9  # weight of the past in the smoothed loss
DIVERGED = 4.0  # times the lowest smoothed loss
FIRST = 10  # points at the beginning among which nothing is looked for
ENOUGH = 20  # points below which there is no suggestion

STEEPEST = "steepest descent: where the smoothed loss falls fastest with the logarithm of the rate"
TENTH = "a tenth of the rate with the lowest smoothed loss"


@dataclass(frozen=True, slots=True)
class Point:
    """One step of the test: the rate that it used, its loss and the smoothed one."""

    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A learning rate to begin with, and the rule that it comes from."""

    lr: float
    rule: str


@dataclass(frozen=True, slots=True)
class Range:
    """What the test showed. `ended` says in a few words why it stopped; no suggestion where the loss never fell."""

    points: tuple[Point, ...]
    ended: str
    suggestions: tuple[Suggestion, ...]


def find_lr(
    recipe: Recipe,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    each: Callable[[Point], None] = lambda point: None,
) -> Range:
    """The range test of a recipe; `each` is told every step. Raises RecipeError. The global random state is left as it was."""
    if not (0 < lowest < highest < math.inf and steps >= ENOUGH):
        message = f"the rates must grow, from above 0, in {ENOUGH} steps or more: {lowest:g} to {highest:g} in {steps}"
        raise RecipeError([Problem("optimizer.lr", message)])
    with keep_random_state():
        parts, _ = assemble_with_data(recipe)
        loop = _loop(parts, recipe)
        with execution.arithmetic(recipe.training, parts.threads):
            points, ended = _walk(loop, _endless(parts, recipe), lowest, highest, steps, each)
    return Range(tuple(points), ended, suggest(points))


def _loop(parts: Parts, recipe: Recipe) -> Loop:
    """A loop over copies; without a rate there is nothing to find."""
    copied = on_copies(parts, recipe)
    if not all("lr" in group and group["lr"] for group in copied.optimizer.param_groups[:1]):
        message = f"optimizer.name is {recipe.optimizer.name!r}, which has no learning rate above 0 to be looked for"
        raise RecipeError([Problem("optimizer.name", message)])
    loop = copied.loop(recipe.training)
    loop.check = parts.device.type == "cpu"
    return loop


def _endless(parts: Parts, recipe: Recipe) -> Iterator[Window]:
    for epoch in itertools.count(1):
        yield from windows(parts.train.epoch(epoch), recipe.training.accumulate)


def _walk(
    loop: Loop, batches: Iterator[Window], lowest: float, highest: float, steps: int, each: Callable[[Point], None]
) -> tuple[list[Point], str]:
    """Step after step with a rate that grows; the groups keep their ratio."""
    groups = loop.optimizer.param_groups
    ratios = [float(group["lr"]) / float(groups[0]["lr"]) if "lr" in group else 0.0 for group in groups]
    points: list[Point] = []
    average = 0.0
    if not loop.module.training:  # what is frozen, or was set to evaluation, stays so
        loop.module.train()
    for k in range(steps):
        rate = lowest * (highest / lowest) ** (k / (steps - 1))
        for group, ratio in zip(groups, ratios, strict=True):
            group["lr"] = rate * ratio
        window = next(batches)
        try:
            taken = loop.step_with_closure(window) if loop.closure else loop.step(window)
        except NonFiniteLoss:
            return points, f"the loss was not finite at {rate:.2g}"
        loss = taken.loss.item()
        if not math.isfinite(loss):
            return points, f"the loss was not finite at {rate:.2g}"
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        point = Point(rate, loss, average / (1 - SMOOTHING ** (k + 1)))
        points.append(point)
        each(point)
        if k >= FIRST and _diverged(points):
            return points, f"the loss diverged at {rate:.2g}"
    return points, f"all rates up to {highest:g} were tried"


def _diverged(points: Sequence[Point]) -> bool:
    """Whether the smoothed loss has risen far above its lowest value; below 0, by as many times the fall until there."""
    lowest, first = min(point.smoothed for point in points), points[0].smoothed
    limit = DIVERGED * lowest if lowest > 0 else lowest + DIVERGED * max(abs(first - lowest), abs(lowest))
    return points[-1].smoothed > limit


def suggest(points: Sequence[Point]) -> tuple[Suggestion, ...]:
    """Learning rates to begin with, the better first; none where the loss never fell, or too little was seen."""
    if len(points) < ENOUGH:
        return ()
    values = [point.smoothed for point in points]
    bottom = min(range(FIRST, len(points)), key=values.__getitem__)
    start = values[FIRST - 1]
    noise = _noise(points[: max(FIRST, bottom // 2)])
    if bottom <= FIRST + 2 or start - values[bottom] <= max(0.01 * abs(start), 0.5 * noise):
        return ()
    logs = [math.log10(point.lr) for point in points]
    # Centred differences: the slope at a point is that of the line through its neighbours, two to each side.
    slopes = {
        i: (values[i + 2] - values[i - 2]) / (logs[i + 2] - logs[i - 2])
        for i in range(FIRST, bottom - 1)
        if i + 2 < len(points)
    }
    steepest = min(slopes, key=slopes.__getitem__)
    found = [Suggestion(_rounded(points[steepest].lr), STEEPEST), Suggestion(_rounded(points[bottom].lr / 10), TENTH)]
    return tuple(found)


def _noise(points: Sequence[Point]) -> float:
    """The typical distance of a loss from the one before it."""
    jumps = sorted(abs(after.loss - before.loss) for before, after in itertools.pairwise(points))
    return jumps[len(jumps) // 2] if jumps else 0.0


def _rounded(rate: float) -> float:
    """To two digits: no test tells more."""
    return float(f"{rate:.1e}")
