"""What a chart does to a curve before it is drawn: smooth it, and bring it down to the columns there are."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

ACROSS = ("step", "epoch", "time")


@dataclass(slots=True)
class View:
    """What a person chose to see; it outlives the chart that shows it."""

    metric: str = "loss"
    smoothing: float = 0.6
    log: dict[str, bool] = field(default_factory=dict)  # by metric, where it was chosen
    across: str = "step"  # the x axis: one of ACROSS
    clip: bool = False  # whether the y axis leaves out what lies far off
    recent: bool = False  # the newest part alone


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """The bias-corrected exponential average `a = weight * a + (1 - weight) * v`, divided by `1 - weight ** n`.

    `weight` is in [0, 1); 0 gives the values themselves. A value that is not finite stays a gap (NaN) and is not averaged in.
    """
    return Smoothed(weight).of(range(len(values)), values)


class Smoothed:
    """`smooth` of a curve that grows: only its new points are computed, unless earlier ones changed.

    A point that stands for several is averaged in as that many equal ones: bringing a long curve down to fewer points leaves
    its smoothed line where it is.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self._begin(1)

    def _begin(self, each: int) -> None:
        self._each = each
        self._settled: list[float] = []  # of all points but the last, which may still grow
        self._step: float | None = None  # of the last settled point
        self._average = self._mass = 0.0

    def of(self, steps: Sequence[float], values: Sequence[float], each: tuple[int, int] = (1, 1)) -> list[float]:
        """The smoothed values; `steps` tell whether the points seen before are still the same.

        each: how many one point stands for, and how many the last one.
        """
        seen = len(self._settled)
        if each[0] != self._each or (seen and (seen >= len(values) or steps[seen - 1] != self._step)):
            self._begin(each[0])
            seen = 0
        for value in values[seen:-1]:
            self._settled.append(self._take(value, self._each))
        if self._settled:
            self._step = steps[len(self._settled) - 1]
        if not values:
            return []
        average, mass = self._average, self._mass
        last = self._take(values[-1], each[1])
        self._average, self._mass = average, mass
        return [*self._settled, last]

    def _take(self, value: float, count: int) -> float:
        if not math.isfinite(value):
            return math.nan
        weight = self.weight**count
        self._average = weight * self._average + (1 - weight) * value
        self._mass = weight * self._mass + (1 - weight)
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
    """Bring what a curve of ascending `steps` has in [left, right] down to `columns` equal parts. No extreme is lost."""
    result = Columns()
    edges = [bisect_left(steps, left + (right - left) * c / columns) for c in range(columns)]
    for first, last in zip(edges, [*edges[1:], bisect_right(steps, right)], strict=True):
        if first >= last:
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


def at_edges(steps: Sequence[float], values: Sequence[float], left: float, right: float) -> list[tuple[float, float]]:
    """Where a line through the points crosses `left` and `right`, if it does: what goes on outside is not cut off."""
    found = []
    for edge in (left, right):
        after = bisect_left(steps, edge)
        if 0 < after < len(steps) and steps[after] > edge:
            part = (edge - steps[after - 1]) / (steps[after] - steps[after - 1])
            value = values[after - 1] + part * (values[after] - values[after - 1])
            if math.isfinite(value):
                found.append((edge, value))
    return found


def inliers(values: Sequence[float]) -> tuple[float, float] | None:
    """Limits that leave out what lies far off: the middle nine tenths, and half as much on either side. None if all fit."""
    ordered = sorted(value for value in values if math.isfinite(value))
    if len(ordered) < 10:
        return None
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    spread = (high - low) / 2
    limits = max(ordered[0], low - spread), min(ordered[-1], high + spread)
    return limits if spread and limits != (ordered[0], ordered[-1]) else None
