"""Book: values as they are logged, kept as points of events; no more of them than a chart can use, however long a run is."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from engine.events import EpochEnded, Event, Logged
from engine.history import Point
from engine.track.names import canonical
from engine.training.best import gains

if TYPE_CHECKING:
    from engine.track.again import Earlier

POINTS = 10_000  # of one metric, roughly: from then on each stands for twice as many values, and again when those are as many


class Book:
    """`add` takes what was logged, `take` gives the events of what came since the last time.

    The row of an epoch has the mean of each "train/…" and the last value of all others; an epoch ends with the first value of
    another one, or with `close`. `monitor` decides which row is best; where no epochs are told, which of its values.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min", most: int = POINTS) -> None:
        self.step = 0
        self.epoch = 0  # under way; 0 where none was told
        self.epochs = 0  # that ended
        self.first = 0  # step before the epoch under way
        self.length: int | None = None  # steps of the epoch before it
        self.best: dict[str, float] = {}
        self._monitor, self._mode, self._most = monitor, mode, most
        self._columns: dict[str, _Column] = {}  # by its name
        self._known: dict[str, _Column] = {}  # by every name that is logged
        self._monitored: tuple[str, ...] = ()  # names that stand for the monitored metric
        self._rows: list[Event] = []  # of epochs that ended
        self._fresh_best = False
        self._told = False  # whether epochs are
        self._shift = 0
        self._began: float | None = None  # when the epoch did
        self._now = 0.0
        self._open: EpochEnded | None = None  # the row of an earlier process, whose epoch may go on

    def go_on(self, earlier: Earlier) -> None:
        """Where a run of an earlier process stood."""
        self._open = earlier.open
        self.step, self.epoch, self.best = earlier.step, earlier.epoch, dict(earlier.best)
        self.epochs = len(earlier.rows) - (self._open is not None)
        self.first = earlier.rows[self.epochs - 1].step if self.epochs else 0
        self._told, self._shift = earlier.epoch > 0, 1 - earlier.epoch_from
        self._fresh_best = bool(self.best) and not self._told  # it may have been told with what was dropped
        for name, values in earlier.part.items():
            self._column(name).count(values)

    def add(self, step: int, epoch: float | None, values: Mapping[str, float], seconds: float) -> None:
        """`seconds` are those of a clock that stands while the run does. A broken epoch ("0.4 of them are done") is the one
        under way."""
        if "epoch" in values:
            epoch = values["epoch"] if epoch is None else epoch
            values = {name: value for name, value in values.items() if name != "epoch"}
        if epoch is not None:
            self._turn(epoch, seconds)
        if self._began is None:
            self._began = seconds
        self._open = None  # it goes on
        self.step, self._now = step, seconds
        known = self._known
        for name, value in values.items():
            column = known.get(name) or self._column(name)
            column.steps.append(step)
            column.values.append(value)
        if not self._told:
            for name in self._monitored:
                if name in values:
                    row = {canonical(each): value for each, value in values.items()}
                    self._fresh_best |= self._judge({"epoch": 0, "step": step, **row}, values[name])

    def last(self, name: str) -> float | None:
        """The newest value of a metric."""
        column = self._columns.get(name)
        return None if column is None else column.values[-1] if column.values else column.last

    def settle(self) -> None:
        """Make points of what was added: to be called now and then, so that little waits."""
        for column in self._columns.values():
            column.settle()

    def close(self) -> None:
        """The run is over: its last points, however few values they cover, and the epoch under way as it is."""
        self.settle()
        for column in self._columns.values():
            column.close()
        if self._told:
            self._end_epoch(self._now)

    def take(self, now: Callable[[], float] = clock.time) -> list[Event]:
        """What came since the last call: at most one event of points, then the epochs that ended."""
        self.settle()
        rows, self._rows = self._rows, []
        taken = {name: column.take() for name, column in self._columns.items() if column.points}
        best, self._fresh_best = self.best if self._fresh_best else {}, False
        if not taken and not best:
            return rows
        many = [name for name, points in taken.items() if any(low < high for _, _, low, high in points)]
        points = Logged(
            time=now(),
            epoch=self.epoch,
            step=self.step,
            steps={name: tuple(point[0] for point in points) for name, points in taken.items()},
            values={name: tuple(point[1] for point in points) for name, points in taken.items()},
            low={name: tuple(point[2] for point in taken[name]) for name in many},
            high={name: tuple(point[3] for point in taken[name]) for name in many},
            best=best,
            epoch_from=1 - self._shift,
        )
        return [points, *rows]

    def _column(self, name: str) -> _Column:
        metric = canonical(name)
        column = self._known[name] = self._columns.setdefault(metric, _Column(self._most))
        if metric == self._monitor:
            self._monitored = (*self._monitored, name)
        return column

    def _turn(self, epoch: float, seconds: float) -> None:
        """The epoch that values are of."""
        if not self._told:
            self._shift = int(epoch == 0)  # some count from 0
        number = self.epoch if not math.isfinite(epoch) else math.ceil(epoch) + self._shift
        if self._told and number == self.epoch:
            return
        if self._told:
            self._end_epoch(seconds)
            self.first, self.length = self.step, self.step - self.first
        self._told, self.epoch = True, number

    def _end_epoch(self, seconds: float) -> None:
        self.settle()
        rows = {name: row for name, column in self._columns.items() if (row := column.take_row()) is not None}
        rate = self.last("lr")
        metrics = {name: mean if name.startswith("train/") else last for name, (mean, last) in rows.items() if name != "lr"}
        if self._open is not None:  # it had ended before
            self._rows.append(self._open)
            self._open, self._began = None, seconds
            self.epochs += 1
            return
        if not metrics:
            return
        best = self._monitor in metrics and self._judge({"epoch": self.epoch, **metrics}, metrics[self._monitor])
        took = 0.0 if self._began is None else max(0.0, seconds - self._began)
        self._rows.append(
            EpochEnded(
                epoch=self.epoch,
                step=self.step,
                metrics=metrics,
                lr=math.nan if rate is None else rate,
                seconds=took,
                best=best,
            )
        )
        self.epochs += 1
        self._began = seconds

    def _judge(self, row: dict[str, float], value: float) -> bool:
        better = gains(value, self.best.get(self._monitor, math.nan), self._mode)
        if better:
            self.best = row
        return better


class _Column:
    """One metric: what was logged of it and, of that, points of `every` values each and the row of the epoch under way."""

    __slots__ = ("_count", "_counted", "_most", "_seen", "_sum", "every", "last", "points", "steps", "values")

    def __init__(self, most: int) -> None:
        self.steps: list[int] = []  # of which no point was made yet
        self.values: list[float] = []
        self.points: list[Point] = []
        self.every = 1
        self.last = math.nan
        self._most, self._seen = most, 0  # values that points were made of
        self._sum, self._count, self._counted = 0.0, 0, 0  # of the row; how many of `values` are in it

    def settle(self) -> None:
        """Make points of all that fills one."""
        steps, values = self.steps, self.values
        if self._counted == len(values):
            return
        self._sum += sum(values[self._counted :])
        self._count += len(values) - self._counted
        self.last, at = values[-1], 0
        while count := min(len(values) - at, self._most * self.every - self._seen) // self.every:
            if self.every == 1:
                part = values[at : at + count]
                self.points += zip(steps[at : at + count], part, part, part, strict=True)
            else:
                self.points += (_point(steps, values, at + i * self.every, self.every) for i in range(count))
            at += count * self.every
            self._seen += count * self.every
            if self._seen >= self._most * self.every:
                self.every *= 2
        del steps[:at], values[:at]
        self._counted = len(values)

    def close(self) -> None:
        """A point of what does not fill one."""
        if self.values:
            self.points.append(_point(self.steps, self.values, 0, len(self.values)))
            self.steps, self.values, self._counted = [], [], 0

    def count(self, values: list[float]) -> None:
        """These are in the row under way, and in points already."""
        self._sum, self._count, self.last = sum(values), len(values), values[-1]

    def take(self) -> list[Point]:
        points, self.points = self.points, []
        return points

    def take_row(self) -> tuple[float, float] | None:
        """Mean and last of what was added since the last call; None of nothing."""
        count, total = self._count, self._sum
        self._sum, self._count = 0.0, 0
        return (total / count, self.last) if count else None


def _point(steps: list[int], values: list[float], at: int, count: int) -> Point:
    part = values[at : at + count]
    mean = sum(part) / count
    if math.isnan(mean):
        return steps[at + count - 1], mean, mean, mean
    return steps[at + count - 1], mean, min(part), max(part)
