"""Metrics in CSV files: Lightning's, Keras's and anybody's with a column of steps or epochs. Holes are left out."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from engine.track.event_files import Scalars

STEPS = ("step", "global_step", "trainer/global_step", "iteration", "iter", "steps")
TIMES = ("time", "timestamp", "wall_time")
HEAD = 1 << 16  # bytes in which the first two lines must stand


def is_metrics(path: Path) -> bool:
    """Whether the file has a column of steps or of epochs, and another one with numbers."""
    try:
        with path.open("rb") as file:
            first, second = file.readline(HEAD), file.readline(HEAD)
    except OSError:
        return False
    names, values = _cells(first, _separator(first)), _cells(second, _separator(first))
    if not any(name.lower() in (*STEPS, "epoch") for name in names):
        return False
    others = [value for name, value in zip(names, values, strict=False) if name.lower() not in (*STEPS, "epoch")]
    return not second or any(_number(value) is not None for value in others)


class Reader:
    """Reads the whole lines that have come since the last time; from the beginning where the file was written anew.

    `problem` stays empty: a line that can't be read has no values.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self.offset = 0
        self._head = b""
        self._rows = 0

    def changed(self) -> bool:
        """Whether what was read is not in the file any more, as when a column was added."""
        with self.path.open("rb") as file:
            return bool(self._head) and (file.read(len(self._head)) != self._head or file.seek(0, 2) < self.offset)

    def read(self, most: int = 1 << 24) -> Iterator[Scalars]:
        """At most so many bytes; OSError where the file can't be read. Steps are counted where there is no column of them."""
        with self.path.open("rb") as file:
            if not self._head:
                head = file.readline(HEAD)
                if not head.endswith(b"\n"):
                    return
                self._head, self.offset = head, len(head)
            file.seek(self.offset)
            data = file.read(most)
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        separator = _separator(self._head)
        names = _cells(self._head, separator)
        names = [f"train/{name}" if f"val_{name}" in names else name for name in names]  # as Keras names them
        for line in data[:whole].splitlines():
            self._rows += 1
            if found := _row(names, _cells(line, separator), self._rows):
                yield found


def _row(names: list[str], cells: list[str], number: int) -> Scalars | None:
    step, time, values = number, 0.0, {}
    for name, cell in zip(names, cells, strict=False):
        value = _number(cell)
        if value is None:
            continue
        if name.lower() in STEPS and math.isfinite(value):
            step = int(value)
        elif name.lower() in TIMES and 1e8 < value < 1e11:
            time = value
        else:
            values["epoch" if name.lower() == "epoch" else name] = value
    return Scalars(time, step, values) if values.keys() - {"epoch"} else None


def _separator(head: bytes) -> str:
    return max((",", ";", "\t"), key=lambda separator: head.count(separator.encode()))


def _cells(line: bytes, separator: str) -> list[str]:
    text = line.decode("utf-8-sig", "replace").strip("\r\n")
    try:
        return [cell.strip() for cell in next(csv.reader([text], delimiter=separator), [])]
    except csv.Error:  # a line break inside, a cell without end: no line of metrics
        return []


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
