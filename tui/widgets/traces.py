"""The curves of one run or several, as a chart draws them: where each point lies along the axis, and the smoothed line."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from engine.history import History, Series
from engine.track.names import SPLITS, group
from tui.widgets.curves import Smoothed, View

LETTERS = "-abcde"  # a run beside the first is told from the others by its letter as well


@dataclass(frozen=True, slots=True)
class Trace:
    """One curve with all its points; `name` is "train", "val" or the metric's, `smoothed` empty where it is not smoothed."""

    run: str
    name: str
    role: str
    steps: Sequence[int]
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    smoothed: Sequence[float] = ()
    letter: str = ""  # of a run beside the first

    def covering(self, step: float) -> int | None:
        """The point that stands for `step`: a value of training covers the steps since the one before, others hold until the
        next."""
        at = bisect_left(self.steps, step) if self.name == "train" else bisect_right(self.steps, step) - 1
        return at if 0 <= at < len(self.steps) else None


class Across:
    """Where a run's steps lie on an x axis that counts steps, epochs or seconds of training. `kind` is "step" where the run
    can't tell the other."""

    def __init__(self, history: History, kind: str) -> None:
        steps, values = [0.0], [0.0]
        if kind == "epoch":
            places = [(float(epoch.step), float(epoch.epoch)) for epoch in history.epochs]
        else:
            places = [(float(point[0]), point[3]) for point in history.clock] if kind == "time" else []
        for step, value in places:
            while len(steps) > 1 and step <= steps[-1]:  # taken once more after a rewind: the last time counts
                del steps[-1], values[-1]
            steps.append(step)
            values.append(value)
        each = history.started.steps_per_epoch if history.started and kind == "epoch" else None
        self.kind = kind if len(steps) > 1 or each else "step"
        self._slope = 1 / each if each else values[-1] / steps[-1] if steps[-1] else 1.0
        self._steps, self._values = steps, values

    def __call__(self, step: float) -> float:
        """Where a step is."""
        return step if self.kind == "step" else _between(self._steps, self._values, step, self._slope)

    def each(self, steps: Sequence[float]) -> Sequence[float]:
        """Where all of these are; they ascend."""
        if self.kind == "step":
            return steps
        xs, ys, slope, last = self._steps, self._values, self._slope, len(self._steps)
        found, after = [], 0
        for step in steps:
            while after < last and xs[after] < step:
                after += 1
            found.append(_at(xs, ys, after, step, slope))
        return found

    def back(self, x: float) -> float:
        """The step that is there."""
        return x if self.kind == "step" else _between(self._values, self._steps, x, 1 / self._slope if self._slope else 0.0)


def _between(xs: Sequence[float], ys: Sequence[float], x: float, slope: float) -> float:
    return _at(xs, ys, bisect_left(xs, x), x, slope)


def _at(xs: Sequence[float], ys: Sequence[float], after: int, x: float, slope: float) -> float:
    """The value at `x`, which is before `xs[after]` and not before the one before that."""
    if after == 0:
        return ys[0] + (x - xs[0]) * slope
    if after == len(xs):
        return ys[-1] + (x - xs[-1]) * slope
    before, width = after - 1, xs[after] - xs[after - 1]
    return ys[before] + (x - xs[before]) / width * (ys[after] - ys[before])


class Traces:
    """The curves of some runs, kept until something new comes in. Each is smoothed once, on all of its points, and so is the
    same in every part of the axis."""

    def __init__(self) -> None:
        self._smoothed: dict[tuple[str, str], tuple[Series, Smoothed]] = {}
        self._across: dict[tuple[str, str], tuple[object, Across]] = {}
        self._traces: dict[tuple[str, str], tuple[object, Trace]] = {}

    def of(self, runs: Sequence[tuple[str, History]], metric: str, view: View) -> list[Trace]:
        """The first run's training and validation, one curve of each other run: validation if it has that."""
        found = []
        for number_of, (run, history) in enumerate(runs):
            across = self.across(run, history, view.across)
            series = curves_of(history, metric)
            if number_of:
                last = list(series)[-1:]
                series = {name: series[name] for name in last}
            for name, curve in series.items():
                role = f"run{(number_of - 1) % 5 + 1}" if number_of else name if name in ("train", "val") else "strong"
                letter = LETTERS[(number_of - 1) % 5 + 1] if number_of else ""
                state = role, letter, across, view.smoothing, curve, curve.each, curve.newest
                if self._traces.get((run, name), ((), None))[0] != state:
                    self._traces[run, name] = state, self._trace(run, name, role, letter, curve, across, view.smoothing)
                found.append(self._traces[run, name][1])
        return found

    def across(self, run: str, history: History, kind: str) -> Across:
        """Where the steps of a run lie on an axis that counts `kind`."""
        state: tuple[object, ...] = (history,)
        if kind == "epoch":
            state = history, history.started, len(history.epochs), history.epochs[-1:]
        elif kind == "time":
            state = history, history.clock, history.clock.newest
        if self._across.get((run, kind), ((), None))[0] != state:
            self._across[run, kind] = state, Across(history, kind)
        return self._across[run, kind][1]

    def _trace(self, run: str, name: str, role: str, letter: str, curve: Series, across: Across, weight: float) -> Trace:
        each = curve.each
        steps, mean, low, high = curve.columns()
        smoothed: list[float] = []
        if weight and name == "train":
            source, smoother = self._smoothed.get((run, name), (None, Smoothed(weight)))
            if source is not curve or smoother.weight != weight:  # of another metric, or of a run started over
                smoother = Smoothed(weight)
            self._smoothed[run, name] = curve, smoother
            smoothed = smoother.of(steps, mean, each)
        if steps != sorted(steps):  # after a rewind
            order = sorted(range(len(steps)), key=steps.__getitem__)
            steps = [steps[i] for i in order]
            mean, low, high = ([values[i] for i in order] for values in (mean, low, high))
            smoothed = [smoothed[i] for i in order] if smoothed else []
        return Trace(run, name, role, steps, across.each(steps), mean, low, high, smoothed, letter)


def curves_of(history: History, metric: str) -> dict[str, Series]:
    """The curves of a metric by name, those without points left out: "test", "train" and "val", or the metric's own."""
    split, series = metric.partition("/")[0], history.series
    if group(metric) != metric:
        found = {split: series.get(metric)}
    else:
        found = {metric: series.get(metric), **{split: series.get(f"{split}/{metric}") for split in SPLITS}}
    return {name: curve for name, curve in found.items() if curve is not None and len(curve)}


def metrics_of(history: History) -> list[str]:
    """What can be shown: the loss first, the learning rate last."""
    names = dict.fromkeys(["loss", *(group(name) for name in history.series if name != "lr")])
    return [*names, "lr"]
