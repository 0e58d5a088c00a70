"""Runs that other tools wrote: folders of TensorBoard's event files, and CSV files of metrics. They are only looked at."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events import Event, Message, Progress, RunEnded, RunStarted
from engine.history import History
from engine.track import csv_files, event_files
from engine.track.book import Book
from engine.track.event_files import Scalars

if TYPE_CHECKING:
    from engine.run import RunSummary

DEEP = 4  # levels of folders that are looked through
MANY = 2000  # folders
GROWS = 60.0  # seconds after which a file that nobody wrote to is taken as done
AT_ONCE = 512  # rows of one event
STATE = "recorded"
MONITOR = "val/loss"
_TABLE = "metrics.csv"  # as Lightning has it in a folder of its own


def is_foreign(path: Path) -> bool:
    """Whether it is a folder that has event files in it, or a table of metrics, or is such a table itself."""
    if path.is_dir():
        return any(_events(path)) or csv_files.is_metrics(path / _TABLE)
    return path.suffix == ".csv" and csv_files.is_metrics(path)


def find(root: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Those below `root`, and it itself; folders that `ours` says are runs of our own are not looked into."""
    folders = [(root, 0)]
    for count, (folder, deep) in enumerate(folders):
        if count == MANY:
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue
        names = [entry.name for entry in entries]
        if any("tfevents" in name for name in names) or (_TABLE in names and csv_files.is_metrics(folder / _TABLE)):
            yield folder
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if deep < DEEP and not ours(path):
                    folders.append((path, deep + 1))
            elif entry.name.endswith(".csv") and entry.name != _TABLE and csv_files.is_metrics(path):
                yield path


def _events(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*tfevents*") if path.is_file())


class Foreign:
    """One of them, read as it grows: to a screen it is as a `Follower` is. One thread polls; any thread may read.

    `tell` gets every event that goes into a history.
    """

    def __init__(self, path: Path, tell: Callable[[Event], None] = lambda event: None) -> None:
        self.path = path
        self.alive = False  # whether it grows
        self.modified = 0.0
        self._tell = tell
        self._restarts: dict[tuple[str, int], int] = {}  # by place, the step from which nothing before holds
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._begin()

    def _begin(self) -> None:
        self.history = History()
        self._book = Book(MONITOR)
        self._readers: dict[Path, event_files.Reader | csv_files.Reader] = {}
        self._places: dict[Path, int] = {}  # records read of each file
        self._told: set[str] = set()
        self._times: tuple[float, float] | None = None  # of the first and the last value
        self._sizes = {}

    def poll(self, seconds: float = float("inf")) -> bool:
        """Take in what is new, for so long; whether anything was. What can't be read is a warning in the history."""
        before = self.history, self.history.version
        until = time.monotonic() + seconds
        try:
            while self._read(until):
                pass
        except OSError as error:
            self._note(f"{self.path.name} can't be read: {error.strerror}")
        self._conclude()
        return before != (self.history, self.history.version)

    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            return [self.path]
        return sorted(_events(self.path)) or [self.path / _TABLE]

    def _read(self, until: float) -> bool:
        """Some rows of each file that has grown; whether there are more."""
        more = False
        for path in self._files():
            stat = path.stat()
            size = stat.st_size, stat.st_mtime_ns
            self.modified = max(self.modified, stat.st_mtime)
            if self._sizes.get(path) == size or time.monotonic() > until:
                continue
            reader = self._readers.get(path)
            if reader is None:
                kind = csv_files.Reader if path.suffix == ".csv" else event_files.Reader
                reader = self._readers[path] = kind(path)
            if isinstance(reader, csv_files.Reader) and reader.changed():
                self._begin()
                return True
            before, rows = reader.offset, list(reader.read(1 << 18))
            if self._undone(path, rows):
                self._begin()
                return True
            self._take(path, rows)
            if reader.problem:
                self._note(reader.problem)
            if reader.offset != before:
                more = True
            else:
                self._sizes[path] = size
        return more

    def _undone(self, path: Path, rows: Iterable[Scalars]) -> bool:
        """Whether a record takes back what was read before it: all is read again then, without that."""
        place = self._places.get(path, 0)
        found = False
        for i, row in enumerate(rows):
            key = path.name, place + i
            if row.restart and key not in self._restarts and row.step <= self._book.step and self.history.series:
                self._restarts[key], found = row.step, True
        return found

    def _take(self, path: Path, rows: list[Scalars]) -> None:
        if not rows:
            return
        place = self._places.get(path, 0)
        held: tuple[int, float, dict[str, float]] | None = None
        for i, row in enumerate(rows):
            here = path.name, place + i
            if not row.values or any(here < at and row.step >= step for at, step in self._restarts.items()):
                continue
            values = {"epoch" if name == "train/epoch" else name: value for name, value in row.values.items()}
            if held is not None and held[0] == row.step:  # values of one step may come one by one
                held[2].update(values)
                continue
            if held is not None:
                self._add(*held)
            held = row.step, row.time, values
            if i % AT_ONCE == AT_ONCE - 1:
                self._state()
        if held is not None:
            self._add(*held)
        self._places[path] = place + len(rows)
        self._state()

    def _add(self, step: int, at: float, values: dict[str, float]) -> None:
        at = at or self.modified
        self._times = (self._times[0] if self._times else at), at
        self._book.add(max(0, step), None, values, at)

    def _state(self) -> None:
        times = self._times or (self.modified, self.modified)
        if self.history.started is None or self.history.ended is not None:
            self._apply(self._started(times[0] if self.history.started is None else times[1]))
        for event in self._book.take(lambda: times[1]):
            self._apply(event)

    def _conclude(self) -> None:
        """Say where it is; and that it is at its end, once nobody has written to it for a while."""
        self.alive = time.time() - self.modified < GROWS
        book, (first, last) = self._book, self._times or (self.modified, self.modified)
        now = self.history.progress
        if self.history.ended is None and (now is None or now.step != book.step):
            self._state()
            lr = book.last("lr")
            self._apply(
                Progress(
                    time=last, phase="train", step=book.step, epoch=book.epoch, batch=0, batches=None,
                    loss=book.last("train/loss"), lr=float("nan") if lr is None else lr, steps_per_second=None,
                    samples_per_second=None, elapsed=last - first, left=None,
                )
            )  # fmt: skip
        if not self.alive and self.history.ended is None:
            book.close()
            self._state()
            reason = "read from CSV" if any(path.suffix == ".csv" for path in self._readers) else "read from event files"
            self._apply(
                RunEnded(
                    time=last, state=STATE, reason=f"{reason}: to be looked at only", epoch=book.epochs, step=book.step,
                    seconds=last - first, best=book.best,
                )
            )  # fmt: skip

    def _started(self, at: float) -> RunStarted:
        return RunStarted(
            time=at, name=self.path.stem if self.path.suffix == ".csv" else self.path.resolve().name, path=str(self.path),
            device="", device_name="", precision="", execution="", epochs=0, steps_per_epoch=None, total_steps=None,
            parameters=0, step=0, epoch=0, monitor=MONITOR, mode="min",
        )  # fmt: skip

    def _apply(self, event: Event) -> None:
        self.history.apply(event)
        self._tell(event)

    def _note(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._apply(Message(text=text, level="warning"))


_known: dict[Path, Foreign] = {}  # as far as they were read for a list
_reading = threading.Lock()


def summaries(paths: Iterable[Path], root: Path, seconds: float) -> list[RunSummary]:
    """A line of a list for each, as far as they could be read in so many seconds; what is missing comes the next time."""
    from engine.run.listing import RunSummary

    until = time.monotonic() + seconds
    result = []
    for path in paths:
        run = _known.setdefault(path, Foreign(path))
        if _reading.acquire(blocking=seconds > 1):  # one thread reads, and whoever is in a hurry takes what is there
            try:
                run.poll(max(0.0, until - time.monotonic()))
            finally:
                _reading.release()
        history, best = run.history, {}
        if history.best is not None:
            best = {"epoch": history.best.epoch, "step": history.best.step, **history.best.metrics}
        result.append(
            RunSummary(
                name=name_in(path, root), path=path, state=STATE, step=history.progress.step if history.progress else 0,
                epoch=len(history.epochs), epochs=0, best=best, monitor=MONITOR, mode="min",
                started=history.started.time if history.started else run.modified,
                seconds=history.progress.elapsed if history.progress else 0.0,
            )
        )  # fmt: skip
    return result


def extremes(path: Path) -> dict[str, list[tuple[float, int]]]:
    """By metric its least and its largest value, each with its epoch (0 where none are told), as far as it was read."""
    known = _known.get(path)
    if known is None:
        return {}
    found: dict[str, list[tuple[float, int]]] = {}
    history = known.history
    rows = [(row.epoch, row.metrics) for row in history.epochs]
    points = [(0, {name: mean}) for name, series in history.series.items() for _, mean, _, _ in series]
    for epoch, metrics in rows or points:
        for name, value in metrics.items():
            if math.isfinite(value):
                least, largest = found.setdefault(name, [(value, epoch), (value, epoch)])
                found[name] = [min(least, (value, epoch)), max(largest, (value, epoch), key=lambda pair: pair[0])]
    return found


def name_in(path: Path, root: Path) -> str:
    """What it is called in a list of `root`: its path from there."""
    return path.relative_to(root).as_posix() if path != root else path.resolve().name
