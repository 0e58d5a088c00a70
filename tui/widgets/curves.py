"""What a chart does to a curve before it is drawn: smooth it, and bring it down to the columns there are."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class View:
    """What a person chose to see; it outlives the chart that shows it."""

    metric: str = "loss"
    smoothing: float = 0.6
    log: dict[str, bool] = field(default_factory=dict)  # by metric, where it was chosen


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """The bias-corrected exponential average `a = weight * a + (1 - weight) * v`, divided by `1 - weight ** n`.

    `weight` is in [0, 1); 0 gives the values themselves. A value that is not finite stays a gap (NaN) and is not averaged in.
    """
    return Smoothed(weight).of(range(len(values)), values)


class Smoothed:
    """`smooth` of a curve that grows: only its new points are computed, unless earlier ones changed."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._begin()

    def _begin(self) -> None:
        self._settled: list[float] = []  # of all points but the last, which may still grow
        self._step: float | None = None  # of the last settled point
        self._average = self._mass = 0.0

    def of(self, steps: Sequence[float], values: Sequence[float]) -> list[float]:
        """The smoothed values; `steps` tell whether the points seen before are still the same."""
        seen = len(self._settled)
        if seen and (seen >= len(values) or steps[seen - 1] != self._step):
            self._begin()
            seen = 0
        for value in values[seen:-1]:
            self._settled.append(self._take(value))
        if self._settled:
            self._step = steps[len(self._settled) - 1]
        if not values:
            return []
        average, mass = self._average, self._mass
        last = self._take(values[-1])
        self._average, self._mass = average, mass
        return [*self._settled, last]

    def _take(self, value: float) -> float:
        if not math.isfinite(value):
            return math.nan
        self._average = self.weight * self._average + (1 - self.weight) * value
        self._mass = self.weight * self._mass + (1 - self.weight)
        return self._average / self._mass


@dataclass(slots=True)
class Columns:
    """A curve as at most one point a column: where it is, the mean of what it covers, and the extremes of that."""

    x: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)  # x of columns that cover a value which is not a finite number


def decimate(
    steps: Sequence[float],
    means: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    left: float,
    right: float,
    columns: int,
) -> Columns:
    """Bring a curve of ascending `steps` down to `columns` equal parts of [left, right]. No extreme is lost."""
    result = Columns()
    edges = [bisect_left(steps, left + (right - left) * c / columns) for c in range(columns)]
    for first, last in zip(edges, [*edges[1:], len(steps)], strict=True):
        if first == last:
            continue
        part, count = means[first:last], last - first
        x, mean = sum(steps[first:last]) / count, sum(part) / count
        low, high = min(lows[first:last]), max(highs[first:last])
        if not (math.isfinite(mean) and math.isfinite(low) and math.isfinite(high)):
            result.gaps.append(x)
            finite = [value for value in part if math.isfinite(value)]
            mean = math.fsum(value / len(finite) for value in finite) if finite else math.nan
            low = min(filter(math.isfinite, lows[first:last]), default=math.nan)
            high = max(filter(math.isfinite, highs[first:last]), default=math.nan)
        result.x.append(x)
        result.mean.append(mean)
        result.low.append(low)
        result.high.append(high)
    return result
