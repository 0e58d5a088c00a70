"""Cells to draw curves on, in braille dots or in characters: dot for dot as plotext draws them, in a tenth of the time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

from tui.widgets.rows import Row

BITS = (0x40, 0x80, 0x04, 0x20, 0x02, 0x10, 0x01, 0x08)  # of a braille cell: the left and the right dot of each line, upwards
HALF = 0.5 + 5e-9  # what lies a rounding error short of the next dot is there

Spot = tuple[int, int]  # a dot's place, rightwards and upwards


class Canvas:
    """The part of some lines of text that curves are drawn on. Positions in it run from 0 to 1, rightwards and upwards.

    What is drawn takes each cell that it touches from what was there; within one stroke the dots of a cell add up.
    """

    def __init__(self, lines: Sequence[Sequence[str]], columns: range, rows: range, *, braille: bool) -> None:
        self._characters = [list(line) for line in lines]  # from the top
        self._roles = [["faint"] * len(line) for line in lines]
        self._columns, self._rows = columns, rows  # the part: its rows from the bottom
        self._wide, self._high = (2, 4) if braille else (1, 1)  # dots of a cell
        self._last = len(columns) * self._wide - 1, len(rows) * self._high - 1

    def line(self, xs: Sequence[float], ys: Sequence[float], character: str, role: str) -> None:
        """Straight from each point to the next, in dots, or without braille in `character`."""
        spots = self._spots(xs, ys)
        passed = spots[-1:]
        for (x, y), (next_x, next_y) in pairwise(spots):
            if count := max(abs(next_x - x), abs(next_y - y)):
                right, up = (next_x - x) / count, (next_y - y) / count
                passed += [(int(x + k * right), int(y + k * up)) for k in range(count)]
        self._stroke(passed, character, role)

    def dots(self, xs: Sequence[float], ys: Sequence[float], character: str, role: str) -> None:
        """The points alone."""
        self._stroke(self._spots(xs, ys), character, role)

    def mark(self, x: float, y: float, character: str, role: str) -> None:
        """A character in the cell that holds the point's dot: it stands on its line."""
        ((right, up),) = self._spots([x], [y])
        self._put(right // self._wide, up // self._high, character, role)

    def upright(self, x: float, character: str, role: str) -> None:
        """A line of characters over the whole height."""
        ((right, _),) = self._spots([x], [0.0])
        for row in range(len(self._rows)):
            self._put(right // self._wide, row, character, role)

    def rows(self) -> list[Row]:
        """All of the text, from the top."""
        return [_row(*line) for line in zip(self._characters, self._roles, strict=True)]

    def _spots(self, xs: Sequence[float], ys: Sequence[float]) -> list[Spot]:
        last_x, last_y = self._last
        return [(int(HALF + last_x * x), int(HALF + last_y * y)) for x, y in zip(xs, ys, strict=True)]

    def _stroke(self, spots: Iterable[Spot], character: str, role: str) -> None:
        if self._high == 1:
            for right, up in spots:
                self._put(right, up, character, role)
            return
        cells: dict[Spot, int] = {}
        for x, y in spots:
            cell = x >> 1, y >> 2
            cells[cell] = cells.get(cell, 0) | BITS[(y & 3) << 1 | x & 1]
        for (right, up), bits in cells.items():
            self._put(right, up, chr(0x2800 | bits), role)

    def _put(self, right: int, up: int, character: str, role: str) -> None:
        row, column = self._rows[up], self._columns[right]
        self._characters[row][column], self._roles[row][column] = character, role


def _row(characters: Sequence[str], roles: Sequence[str]) -> Row:
    """A line as pieces, one for neighbours of one role."""
    row: Row = []
    start = 0
    for role, cells in groupby(roles):
        end = start + sum(1 for _ in cells)
        row.append(("".join(characters[start:end]), role))
        start = end
    return row
