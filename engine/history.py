"""The bounded memory of a run that screens and command lines read.

It is filled by events alone, so a run of this process and one followed through its journal look the same. One thread calls
`apply`; any thread may read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from engine.changes import EXECUTIONS
from engine.events import (
    CheckpointFailed,
    CheckpointWritten,
    EpochEnded,
    Event,
    Logged,
    Message,
    Progress,
    RanksMeasured,
    Rewound,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    Sampled,
    SettingChanged,
    Trained,
    Validated,
)

CAPACITY = 4096
SAMPLES = 16  # the newest so many are held
ROWS = 20_000  # epochs, checkpoints and messages that are kept one by one; of more the older ones are thinned out


Point = tuple[int, float, float, float]


class Series:
    """One curve: points of (step, mean, low, high), each of equally many appended ones. When full, neighbours merge in pairs.

    Extremes are kept. A point covers the steps after the point before it up to its own step. NaN stays NaN: it is a gap to be
    marked.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._points: list[Point] = []
        self._each = 1  # appended points that one point holds
        self._in_last = 1  # those that the last one holds so far

    def append(self, step: int, mean: float, low: float | None = None, high: float | None = None) -> None:
        """One more point; `low` and `high` are the extremes of what it covers, left out where it is one value."""
        points = self._points
        point = (step, mean, mean if low is None else low, mean if high is None else high)
        if len(points) >= self.capacity and self._in_last == self._each:
            self._in_last = 2 * self._each if len(points) % 2 == 0 else self._each
            self._each *= 2
            points = self._points = _halved(points)
        if points and self._in_last < self._each:
            points[-1] = _merged(points[-2][0] if len(points) > 1 else 0, points[-1], point)
            self._in_last += 1
        else:
            points.append(point)
            self._in_last = 1

    def extend(self, points: Sequence[Point]) -> None:
        """Append these."""
        room = self.capacity - len(self._points) if self._each == 1 else 0
        self._points.extend(points[:room])
        for step, mean, low, high in points[room:]:
            self.append(step, mean, low, high)

    @property
    def each(self) -> tuple[int, int]:
        """How many appended points one point holds, and how many the last one does so far."""
        return self._each, self._in_last

    @property
    def newest(self) -> tuple[int, Point] | None:
        """How many points there are, and the last: both are as before only where nothing was appended."""
        points = self._points
        return (len(points), points[-1]) if points else None

    def columns(self) -> tuple[list[int], list[float], list[float], list[float]]:
        """Copies of steps, means, lows and highs, all of one length."""
        points = self._points.copy()
        return [p[0] for p in points], [p[1] for p in points], [p[2] for p in points], [p[3] for p in points]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self._points.copy())


def _halved(points: list[Point]) -> list[Point]:
    starts = [0, *(point[0] for point in points)]  # point i covers the steps after starts[i]
    pairs = [_merged(starts[i], points[i], points[i + 1]) for i in range(0, len(points) - 1, 2)]
    return pairs + points[len(pairs) * 2 :]


def _merged(start: int, a: Point, b: Point) -> Point:
    """Two neighbours as one; `a` covers the steps after `start`."""
    first, second = max(1, a[0] - start), max(1, b[0] - a[0])  # measured twice at one step: as if it were the next
    mean = (a[1] * first + b[1] * second) / (first + second)
    return b[0], mean, _extreme(min, a[2], b[2]), _extreme(max, a[3], b[3])


def _extreme(pick: Callable[[float, float], float], a: float, b: float) -> float:
    """min() and max() of a NaN and a number depend on their order: here NaN wins, as it does in a mean."""
    return a + b if math.isnan(a) or math.isnan(b) else pick(a, b)


Row = TypeVar("Row")


def _with(rows: list[Row], row: Row) -> list[Row]:
    """The rows and one more. When they are full, every other one of the older half goes, the first never."""
    if len(rows) >= ROWS:
        half = len(rows) // 2
        rows = rows[:half:2] + rows[half:]  # a new list: readers may be walking the old one
    rows.append(row)
    return rows


class History:
    """What is known of one run. `version` grows with every event: a reader that saw it has nothing to do."""

    def __init__(self) -> None:
        self.version = 0
        self.started: RunStarted | None = None
        self.progress: Progress | None = None
        self.ended: RunEnded | None = None
        self.paused = False
        self.best: EpochEnded | Validated | None = None  # where the run was best, at an epoch's end or on the way
        self.epochs: list[EpochEnded] = []
        self.checkpoints: list[CheckpointWritten] = []
        self.failed_save: CheckpointFailed | None = None  # the last checkpoint asked for, if the disk did not take it
        self.settings: list[SettingChanged] = []
        self.rewinds: list[Rewound] = []
        self.holds: list[RunPaused | RunContinued | RunStarted] = []  # and starts of later processes
        self.messages: list[Message] = []
        self.ranks: RanksMeasured | None = None  # how the processes that train together are doing
        self.samples: tuple[Sampled, ...] = ()  # the newest steps that were looked at closely
        # Step by step the seconds of training so far, pauses left out; the `high` is that after the step.
        self.clock = Series()
        self._ticked: float | None = None  # when the clock was read last; None while it stands
        self._seconds = 0.0
        self._by_step = {"train/loss"}  # curves that come from the steps, not from the epochs' rows
        self.series: dict[str, Series] = {}  # "train/loss" by points of steps, "val/…" by validations, "lr"

    @property
    def state(self) -> str:
        """ "starting", "running", "validating", "saving", "paused", "finished", "stopped", "failed", or, for a run of another
        process that is gone, "died"."""
        if self.ended is not None:
            return self.ended.state
        if self.paused:
            return "paused"
        if self.started is None or self.progress is None:
            return "starting"
        return {"validate": "validating", "save": "saving"}.get(self.progress.phase, "running")

    def apply(self, event: Event) -> None:
        """Take in one event."""
        match event:
            case Progress():
                self.progress = event
            case Trained():
                self._trained(event)
            case Logged():
                self._logged(event)
            case Sampled():
                self.samples = (*self.samples[1 - SAMPLES :], event)
            case RanksMeasured():
                self.ranks = event
            case EpochEnded():
                self.epochs = _with(self.epochs, event)
                self._judged(event)
                self._measured(event.step, event.metrics)
            case Validated():
                self._judged(event)
                self._measured(event.step, event.metrics)
            case CheckpointWritten():
                self.checkpoints = _with(self.checkpoints, event)
                self.failed_save = None
            case CheckpointFailed():
                self.failed_save = event
            case SettingChanged():
                self.settings.append(event)
                self._planned(event)
            case Rewound():
                self.rewinds.append(event)
            case RunStarted():
                self.started, self.ended, self.paused = event, None, False
                self._ticked, self.ranks = event.time, None
                if event.step:
                    self.holds.append(event)
            case RunPaused():
                self.paused = True
                self._tick(event.time)
                self._ticked = None
                self.holds.append(event)
            case RunContinued():
                self.paused = False
                self._ticked = event.time
                self.holds.append(event)
            case Message():
                self.messages = _with(self.messages, event)
            case RunEnded():
                self.ended = event
        self.version += 1

    def _tick(self, now: float) -> None:
        if self._ticked is not None:
            self._seconds += max(0.0, now - self._ticked)
            self._ticked = now

    def _planned(self, event: SettingChanged) -> None:
        """The run is longer, shorter or quicker than it was when it began."""
        if event.field == "training.execution" and self.started is not None:
            self.started = dataclasses.replace(self.started, execution=EXECUTIONS[int(event.value or 0)])
        if event.field == "training.epochs" and event.value is not None and self.started is not None:
            epochs, each = int(event.value), self.started.steps_per_epoch
            self.started = dataclasses.replace(self.started, epochs=epochs, total_steps=None if each is None else each * epochs)

    def become(self, other: History) -> None:
        """Hold what `other` holds. Whoever reads this object sees the change as any other."""
        version = self.version + 1
        self.__dict__.update(other.__dict__)
        self.version = version

    def _judged(self, event: EpochEnded | Validated) -> None:
        if event.best:  # a later best is a better one
            self.best = event

    def curve(self, name: str) -> Series:
        """The series of that name, made when missing."""
        if name not in self.series:
            self.series = {**self.series, name: Series()}  # a new dict: readers may be walking the old one
        return self.series[name]

    def _trained(self, event: Trained) -> None:
        loss, rate = self.curve("train/loss"), self.curve("lr")
        self._tick(event.time)
        self.clock.append(event.step, self._seconds)
        steps = event.steps
        loss.extend(list(zip(steps, event.loss, event.low or event.loss, event.high or event.loss, strict=True)))
        rate.extend(list(zip(steps, event.lr, event.lr, event.lr, strict=True)))
        if event.norm:
            self.curve("gradient norm").extend(list(zip(steps, event.norm, event.norm, event.norm, strict=True)))

    def _logged(self, event: Logged) -> None:
        self._tick(event.time)
        self.clock.append(event.step, self._seconds)
        self._by_step |= event.steps.keys()
        for name, steps in event.steps.items():
            means = event.values[name]
            lows, highs = event.low.get(name, means), event.high.get(name, means)
            self.curve(name).extend(list(zip(steps, means, lows, highs, strict=True)))
        if event.best:
            metrics = {name: value for name, value in event.best.items() if name not in ("epoch", "step")}
            step = int(event.best.get("step", event.step))
            self.best = Validated(time=event.time, epoch=event.epoch, step=step, metrics=metrics, best=True)

    def _measured(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name not in self._by_step:
                self.curve(name).append(step, value)
