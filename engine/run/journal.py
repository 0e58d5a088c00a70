"""The run's append-only file of events, one JSON object a line."""

from __future__ import annotations

import dataclasses
import json
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import plain
from engine.events import (
    CheckpointWritten,
    EpochEnded,
    Event,
    Logged,
    Message,
    Rewound,
    RunEnded,
    RunStarted,
    SettingChanged,
    Trained,
    Validated,
    to_dict,
)
from engine.run import files, strict_json
from engine.run.sound import event_from

LAST = 65536  # bytes that a journal's last line may have


class Journal:
    """Writes one journal; `Journal.read` reads any. The file is opened, or made, by the first `append`, and open no longer
    than this object is there."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._descriptor: int | None = None
        self._free: Callable[[], object] = lambda: None  # closes it
        self._end = 0
        self._torn = False  # whether there is more in the file than whole lines

    def append(self, event: Event) -> None:
        """Write one line, which a kill of this process can't take back. Events that are not for the journal are left out.

        OSError when the disk does not take it; the journal is then as it was before.
        """
        if not event.in_journal:
            return
        descriptor = self._open()
        line = _line(event)
        if self._torn:  # what a disk that did not take a line left of it
            files.truncate(descriptor, self._end)
            self._torn = False
        try:
            files.append(descriptor, line)
        except OSError:
            self._torn = True
            files.truncate(descriptor, self._end)
            self._torn = False
            raise
        self._end += len(line)

    def sync(self) -> None:
        """Return when all lines are on the disk, where a power failure can't take them back."""
        if self._descriptor is not None:
            files.sync(self.path)

    def close(self) -> None:
        """Sync and close. The next `append` opens it again."""
        if self._descriptor is not None:
            self.sync()
            self._free()
            self._descriptor = None

    def position(self) -> int:
        """Bytes in the journal, whole lines only."""
        return self._end if self._descriptor is not None else _whole(self.path)

    @staticmethod
    def read(path: Path) -> tuple[list[Event], list[str]]:
        """(events, problems): a torn last line is ignored, any other line that is no event is a problem of one sentence."""
        events, problems = [], []
        for number, (_, item) in enumerate(_lines(Path(path)), 1):
            if isinstance(item, Event):
                events.append(item)
            else:
                problems.append(f"{Path(path).name}, line {number}: {item}")
        return events, problems

    @staticmethod
    def end(path: Path) -> RunEnded | None:
        """How the run ended, by the journal's last line; None where that tells of something else."""
        with Path(path).open("rb") as file:
            file.seek(max(0, _whole(path) - LAST))
            line = file.read(LAST).rstrip(b"\n").rpartition(b"\n")[2]
        item = parse_line(line)
        return item if isinstance(item, RunEnded) else None

    def truncate_after(self, step: int, epochs: int, validates: bool = False) -> None:
        """Drop what a run that goes on from its checkpoint of `step` will say again, so that nothing is in it twice.

        epochs: how many had ended at that checkpoint; it may be from before the validation after an epoch's last step.
        validates: whether it is from before a validation after its step in the middle of an epoch.

        Points of `Trained` and `Logged` stay up to `step` (one that covers more goes), events about a step up to `step`,
        epochs up to `epochs`, every `RunStarted`, `SettingChanged` and `Rewound`, no `RunEnded`. Lines about no step stay
        where they stand before the checkpoint.
        """
        self.close()
        lines = list(_lines(self.path))
        checkpoint = _place_of_checkpoint([item for _, item in lines], step)
        kept = []
        for index, (line, item) in enumerate(lines):
            match item:
                case RunEnded():
                    continue
                case EpochEnded() if item.epoch > epochs:
                    continue
                case Validated() if validates and item.step == step:
                    continue
                case Trained() | Logged() if item.step > step:
                    cut = _cut(item, step) if isinstance(item, Trained) else _cut_logged(item, step)
                    if cut is not None:
                        kept.append(_line(cut))
                case RunStarted() | SettingChanged() | Rewound():  # what was decided is decided
                    kept.append(line)
                case Message() | str():  # a line that can't be read is not ours to lose
                    if index < checkpoint:
                        kept.append(line)
                case _:
                    if _step(item) <= step:
                        kept.append(line)
        files.write_atomically(self.path, b"".join(kept))

    def _open(self) -> int:
        if self._descriptor is None:
            self._end = _whole(self.path)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            self._free = weakref.finalize(self, os.close, self._descriptor)
            if os.fstat(self._descriptor).st_size > self._end:  # what a killed process left of its last line
                files.truncate(self._descriptor, self._end)
        return self._descriptor


def _line(event: Event) -> bytes:
    return strict_json.to_bytes(json.dumps(to_dict(event), allow_nan=False, ensure_ascii=False) + "\n")


def _whole(path: Path) -> int:
    """Bytes up to and with the last line break; 0 for a file that is not there."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(0, end - 65536)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
    except FileNotFoundError:
        pass
    return 0


def _lines(path: Path) -> Iterator[tuple[bytes, Event | str]]:
    """Each whole line with its event, or with what is wrong with it. A missing file has none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if line.endswith(b"\n"):
                yield line, parse_line(line)


def parse_line(line: bytes) -> Event | str:
    """The event of one line, or what is wrong with it."""
    try:
        return event_from(strict_json.parse(line))
    except (ValueError, RecursionError) as error:
        return plain(f"not an event ({error})")


def _step(item: Event | str) -> int:
    """The step that an event is about; 0 for what is about none."""
    return 0 if isinstance(item, (RunStarted, SettingChanged, Rewound, str)) else getattr(item, "step", 0)


def _place_of_checkpoint(items: list[Event | str], step: int) -> int:
    """Index of the line that tells of the checkpoint; where the process was killed before it, of the first later step."""
    place = None
    for index, item in enumerate(items):
        if _step(item) > step:
            return index if place is None else place
        if isinstance(item, CheckpointWritten) and item.step == step:
            place = index
    return len(items) if place is None else place


def _cut(event: Trained, step: int) -> Trained | None:
    """The points that end at `step` or before."""
    if event.step <= step:
        return event
    points = (step - event.first + 1) // event.every
    if points <= 0:
        return None
    return dataclasses.replace(
        event,
        step=event.first + points * event.every - 1,
        loss=event.loss[:points],
        low=event.low[:points],
        high=event.high[:points],
        lr=event.lr[:points],
        norm=event.norm[:points],
    )


def _cut_logged(event: Logged, step: int) -> Logged | None:
    """The points that end at `step` or before."""
    counts = {name: sum(each <= step for each in steps) for name, steps in event.steps.items()}

    def cut(columns: Mapping[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        return {name: values[: counts[name]] for name, values in columns.items() if counts[name]}

    steps, best = cut(event.steps), event.best if event.best and event.best["step"] <= step else {}
    if not steps and not best:
        return None
    values, low, high = cut(event.values), cut(event.low), cut(event.high)
    last = max((column[-1] for column in steps.values()), default=step)
    return dataclasses.replace(event, step=last, steps=steps, values=values, low=low, high=high, best=best)
