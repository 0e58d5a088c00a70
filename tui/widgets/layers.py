"""The layers pane: gradient and update of each layer, and what is wrong with those that are named."""

from __future__ import annotations

import math
from typing import ClassVar

from engine.events import Sampled
from engine.health import kind, words
from engine.history import History
from tui.widgets.progress import bar
from tui.widgets.rows import Pane, Row

NOTE, NUMBER, SHORTEST = 12, 9, 10  # cells of the last column, of a number, and of a name at least
DECADES = 6  # that a bar spans


class LayersPane(Pane):
    """A row for each layer in the network's order; the heads stay when it scrolls. Bars are logarithmic."""

    DEFAULT_CSS = """
    LayersPane { overflow-x: hidden; }
    """
    BORDER_TITLE: ClassVar[str] = "8 Layers"
    fixed = 1

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._history = History()
        self._drawn: tuple[object, ...] = ()

    def show(self, history: History) -> None:
        """Draw the newest sample."""
        self._history = history
        sample = history.samples[-1] if history.samples else None
        if (sample, self.size.width) != self._drawn and self.size.width:
            self._drawn = (sample, self.size.width)
            if sample is None or not sample.layers:
                over = "no layer was looked at" if history.ended or sample else "the layers are looked at soon"
                self.set_rows([[(f" {over}", "faint")]])
            else:
                self.set_title(f"8 Layers ── step {sample.step:,} ── update: share of the weights")
                self.set_rows(layer_rows(sample, self.size.width))

    def on_resize(self) -> None:
        self.show(self._history)


def layer_rows(sample: Sampled, width: int) -> list[Row]:
    """The heads, and a row for each layer."""
    room = width - NOTE - 2 * NUMBER - 3
    cells = min(8, max(0, (room - 14) // 3))  # of each bar
    names = max(SHORTEST, room - 2 * cells)
    kinds = 0 if names < 24 else min(max(map(len, sample.kinds)), 12) + 1
    names -= kinds
    most = max((value for value in sample.gradient if math.isfinite(value)), default=0.0)
    heads = f" {'layer':<{names}}{'kind' if kinds else '':<{kinds}}{'gradient':<{cells + NUMBER}} {'update':<{cells + NUMBER}}"
    rows: list[Row] = [[(heads, "label")]]
    for i, name in enumerate(sample.layers):
        short = name if len(name) < names else "…" + name[len(name) - names + 2 :]
        said, ill = words(sample, i), bool(kind(sample, i))
        rows.append([
            (f" {short:<{names}}", "bad" if ill else ""),
            (f"{sample.kinds[i][: kinds - 1]:<{kinds}}" if kinds else "", "faint"),
            *_measure(sample.gradient[i], most, cells),
            (" ", ""),
            *_measure(sample.ratio[i], 1.0, cells),
            (f" {said}", "bad" if ill else "faint"),
        ])  # fmt: skip
    return rows


def _measure(value: float, full: float, cells: int) -> Row:
    """A number with a bar of its decades below `full`."""
    if not math.isfinite(value):
        return [(" " * cells, ""), (f"{'–' if math.isnan(value) else 'inf':>{NUMBER - 1}} ", "label")]
    share = 1 + math.log10(value / full) / DECADES if value > 0 and full > 0 else 0.0
    return [*(bar(share, cells) if cells else []), (f"{_short(value):>{NUMBER - 1}} ", "strong")]


def _short(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return "0" if value == 0 else f"{mantissa}e{int(exponent)}"
