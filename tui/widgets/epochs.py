"""The epoch log: one row an epoch, the one under way below them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from engine.events import EpochEnded
from engine.history import History
from tui.widgets.formats import cell_len, cut, number, rate, right, took
from tui.widgets.notes import notes_between
from tui.widgets.rows import Pane, Row, length

SHORTEST = 4  # cells of a note; where there is less room, it is scrolled to
_BUSY = {"validate": "validating", "save": "saving", "paused": "paused"}


class EpochLog(Pane):
    """A table that grows by a row an epoch; it follows its end until scrolled up.

    Not a DataTable: that paints all its cells again for one that changed, and the row of the epoch under way changes often.
    """

    BORDER_TITLE: ClassVar[str] = "3 Epochs"
    fixed = 1
    follow = True

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._history = History()
        self.other: History | None = None  # a run that this one is compared with
        self._ghost: dict[int, float] = {}  # what decides which epoch is best, by epoch of that run
        self._begin()

    def _begin(self) -> None:
        self._names: list[str] = []  # of the metric columns
        self._widths: list[int] = []
        self._done: list[EpochEnded] = []  # epochs shown
        self._best: int | None = None  # index of the best of them
        self._live: list[str] | None = None
        self._tight = False  # narrow gaps between the columns
        self._width = 0  # of the pane

    def show(self, history: History) -> None:
        """Draw what is new in `history`."""
        shown = len(self._done)
        if history is not self._history or (shown and history.epochs[shown - 1 : shown] != self._done[-1:]):  # went back
            self._history = history
            self._begin()
        if (ghost := self._of_ghost()) != self._ghost:
            self._ghost = ghost
            self._begin()
        if self.is_mounted and self.is_on_screen:
            self._update()

    def on_show(self) -> None:
        self._update()

    def on_resize(self) -> None:
        self._update()

    def _update(self) -> None:
        shown, before = len(self._done), self._best
        self._done += self._history.epochs[shown:]
        self._best = max((i for i in range(shown, len(self._done)) if self._done[i].best), default=before)
        names = _metrics([dict.fromkeys(self._names, 0.0), *(row.metrics for row in self._done[shown:])])
        live = _live(self._history, len(names) + bool(self._ghost))
        width = self.scrollable_content_region.width
        if (names, live, len(self._done), width) == (self._names, self._live, shown, self._width):
            return
        self._live = live
        fresh = self._cells(names, shown) + ([live] if live else [])
        heads = self._heads(names)
        widths = [max(map(cell_len, column)) for column in zip(heads, *fresh, strict=True)]
        grown = any(new > old for new, old in zip(widths, self._widths, strict=False))
        if names != self._names or width != self._width or grown:
            known = self._widths if names == self._names else [0] * len(widths)
            fresh = self._cells(names) + ([live] if live else [])
            self._widths = [max(known[i], *map(cell_len, column)) for i, column in enumerate(zip(heads, *fresh, strict=True))]
            self._names, self._width = names, width
            self._tight = 1 + sum(self._widths) + 3 * (len(self._widths) - 1) > width > 0
            self.set_rows([self._heading(), *(self._row(i, cells) for i, cells in enumerate(fresh))])
            return
        if before != self._best and before is not None:
            fresh, shown = self._cells(names, before, shown) + fresh, before
        self.set_row(1 + shown, *(self._row(i, cells) for i, cells in enumerate(fresh, shown)))
        if len(self._rows) > 1 + shown + len(fresh):
            self.set_rows(self._rows[: 1 + shown + len(fresh)])

    def _cells(self, names: Sequence[str], first: int = 0, last: int | None = None) -> list[list[str]]:
        """The cells of the epochs from `first` up to `last`."""
        before = self._done[first - 1].step if first else 0
        rows = []
        for row in self._done[first:last]:
            notes = notes_between(self._history, before, row.step)
            rows.append(_cells(row, names, notes, self._difference(row) if self._ghost else None))
            before = row.step
        return rows

    def _of_ghost(self) -> dict[int, float]:
        if self.other is None or self._history.started is None:
            return {}
        name = self._history.started.monitor
        return {row.epoch: row.metrics[name] for row in self.other.epochs if name in row.metrics}

    def _difference(self, row: EpochEnded) -> str:
        """What the epoch has more than that of the ghost; nothing where that has none."""
        monitor = self._history.started.monitor if self._history.started else ""
        if row.epoch not in self._ghost or monitor not in row.metrics:
            return ""
        more = row.metrics[monitor] - self._ghost[row.epoch]
        return f"{'-' if more < 0 else '+'}{number(abs(more))}"

    def _heads(self, names: Sequence[str]) -> list[str]:
        heads = _heads(names)
        return [*heads[:-3], "Δghost", *heads[-3:]] if self._ghost else heads

    def _heading(self) -> Row:
        roles = ["train", *("val" if name.startswith("val/") else "" for name in self._names)]
        heads = self._heads(self._names)
        return self._aligned(heads, ["label", *roles, *["label"] * (len(heads) - len(roles) - 1)])

    def _row(self, i: int, cells: list[str]) -> Row:
        best = i == self._best
        role = "strong" if best else ""
        values = 1 + len(self._names) + bool(self._ghost)
        roles = [role or "label", *[role] * values, "label", "label", "label"]
        if best:
            cells = [*cells[:-1], " · ".join(filter(None, [cells[-1], "best"]))]
        return self._aligned(cells, roles, " ★ " if best else "   ")

    def _starred(self) -> int:
        """The column of the metric that decides which epoch is best."""
        monitor = self._history.started.monitor if self._history.started else ""
        return 2 + self._names.index(monitor) if monitor in self._names else 1

    def _aligned(self, cells: Sequence[str], roles: Sequence[str], star: str = "   ") -> Row:
        row: Row = [(" ", "")]
        starred = self._starred()
        for i, cell in enumerate(cells[:-1]):
            row += [(right(cell, self._widths[i]), roles[i]), (star if i == starred else " " if self._tight else "   ", "mark")]
        room = self._width - length(row)
        return [*row, (cut(cells[-1], room) if room >= SHORTEST else cells[-1], roles[-1])]


def _heads(names: Sequence[str]) -> list[str]:
    shown = ("val" if name == "val/loss" else name.removeprefix("val/") for name in names)
    return ["epoch", "train", *shown, "lr", "time", "note"]


def _metrics(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Every metric that a row has but the training loss, which has a column of its own; the validation loss first."""
    names = dict.fromkeys(name for row in rows for name in row if name != "train/loss")
    return sorted(names or ["val/loss"], key=lambda name: name != "val/loss")


def _cells(row: EpochEnded, names: Sequence[str], notes: Sequence[str], difference: str | None) -> list[str]:
    values = [number(row.metrics[name]) if name in row.metrics else "–" for name in names]
    return [
        str(row.epoch),
        number(row.metrics.get("train/loss")),
        *values,
        *([] if difference is None else [difference]),
        _rate(row.lr),
        took(row.seconds),
        " · ".join(dict.fromkeys([*notes, *row.notes])),
    ]


def _rate(lr: float) -> str:
    """A loop of one's own may not have told it."""
    return rate(None if math.isnan(lr) else lr)


def _without(history: History) -> bool:
    """Whether a loop of one's own tells of no epochs."""
    started, now = history.started, history.progress
    return started is not None and started.own_loop and now is not None and not now.epoch and not history.epochs


def _live(history: History, metrics: int) -> list[str] | None:
    """The cells of the epoch under way; None where there is none."""
    now = history.progress
    if (
        history.ended is not None
        or now is None
        or _without(history)
        or (history.epochs and now.epoch <= history.epochs[-1].epoch)
    ):
        return None
    share = f"{100 * now.batch // now.batches}%" if now.batches else ""
    at = " ".join(filter(None, [_BUSY.get(now.phase, ""), share]))
    note = " · ".join([at, *notes_between(history, history.epochs[-1].step if history.epochs else 0)])
    loss = "…" if now.loss is None else number(now.loss)
    return [f"▸ {now.epoch}", loss, "…", *[""] * (metrics - 1), _rate(now.lr), "", note]
