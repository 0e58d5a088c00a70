"""The bounded memory of a run that screens and command lines read.

It is filled by events alone, so a run of this process and one followed through its journal look the same. One thread calls
`apply`; any thread may read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from engine.events import (
    CheckpointWritten,
    EpochEnded,
    Event,
    Message,
    Progress,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    Trained,
    Validated,
)

CAPACITY = 4096


class Series:
    """One curve: points of (step, mean, low, high). When full, neighbours merge in pairs; their extremes are kept.

    A point covers the steps after the point before it up to its own step. NaN stays NaN: it is a gap to be marked.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self._columns: tuple[list[int], list[float], list[float], list[float]] = ([], [], [], [])

    def append(self, step: int, mean: float, low: float | None = None, high: float | None = None) -> None:
        steps, means, lows, highs = self._columns
        if len(steps) >= self.capacity:
            steps, means, lows, highs = self._columns = _halved(self._columns)
        steps.append(step)
        means.append(mean)
        lows.append(mean if low is None else low)
        highs.append(mean if high is None else high)  # last: a reader trusts this length

    def columns(self) -> tuple[list[int], list[float], list[float], list[float]]:
        """Copies of steps, means, lows and highs, all of one length."""
        columns = self._columns
        length = len(columns[3])
        return columns[0][:length], columns[1][:length], columns[2][:length], columns[3][:length]

    def __len__(self) -> int:
        return len(self._columns[3])

    def __iter__(self) -> Iterator[tuple[int, float, float, float]]:
        return zip(*self.columns(), strict=True)


def _halved(
    columns: tuple[list[int], list[float], list[float], list[float]],
) -> tuple[list[int], list[float], list[float], list[float]]:
    steps, means, lows, highs = columns
    pairs = range(0, len(steps) - 1, 2)
    odd = len(steps) % 2
    start = [0, *steps]  # point i covers start[i] to steps[i]

    def merged(i: int) -> float:
        first, second = steps[i] - start[i], steps[i + 1] - steps[i]
        if first + second == 0:  # measured twice at one step
            return (means[i] + means[i + 1]) / 2
        return (means[i] * first + means[i + 1] * second) / (first + second)

    # min() and max() of a NaN and a number depend on their order: let NaN win, as it does in the mean.
    def extreme(values: list[float], i: int, pick: Callable[[float, float], float]) -> float:
        a, b = values[i], values[i + 1]
        return a + b if a != a or b != b else pick(a, b)

    return (
        [steps[i + 1] for i in pairs] + steps[len(steps) - odd :],
        [merged(i) for i in pairs] + means[len(means) - odd :],
        [extreme(lows, i, min) for i in pairs] + lows[len(lows) - odd :],
        [extreme(highs, i, max) for i in pairs] + highs[len(highs) - odd :],
    )


class History:
    """What is known of one run. `version` grows with every event: a reader that saw it has nothing to do."""

    def __init__(self) -> None:
        self.version = 0
        self.started: RunStarted | None = None
        self.progress: Progress | None = None
        self.ended: RunEnded | None = None
        self.paused = False
        self.epochs: list[EpochEnded] = []
        self.checkpoints: list[CheckpointWritten] = []
        self.messages: list[Message] = []
        self.series: dict[str, Series] = {}  # "train/loss" by points of steps, "val/…" by validations, "lr"

    @property
    def best(self) -> EpochEnded | None:
        """The best epoch so far."""
        return next((row for row in reversed(self.epochs) if row.best), None)

    @property
    def state(self) -> str:
        """ "starting", "running", "validating", "saving", "paused", "finished", "stopped" or "failed"."""
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
            case EpochEnded():
                self.epochs.append(event)
                self._measured(event.step, event.metrics)
            case Validated():
                self._measured(event.step, event.metrics)
            case CheckpointWritten():
                self.checkpoints.append(event)
            case RunStarted():
                self.started, self.ended, self.paused = event, None, False
            case RunPaused():
                self.paused = True
            case RunContinued():
                self.paused = False
            case Message():
                self.messages.append(event)
            case RunEnded():
                self.ended = event
        self.version += 1

    def curve(self, name: str) -> Series:
        """The series of that name, made when missing."""
        if name not in self.series:
            self.series = {**self.series, name: Series()}  # a new dict: readers may be walking the old one
        return self.series[name]

    def _trained(self, event: Trained) -> None:
        loss, rate = self.curve("train/loss"), self.curve("lr")
        for k, mean in enumerate(event.loss):
            step = min(event.first + (k + 1) * event.every - 1, event.step)
            loss.append(step, mean, event.low[k] if event.low else None, event.high[k] if event.high else None)
            rate.append(step, event.lr[k])

    def _measured(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name != "train/loss":  # its curve comes from the steps
                self.curve(name).append(step, value)
