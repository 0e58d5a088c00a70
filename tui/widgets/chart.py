"""The chart pane: one metric of the run, training and validation together."""

from __future__ import annotations

import math
from typing import ClassVar

from engine.events import EpochEnded, Validated
from engine.history import History, Series
from tui.widgets.curves import Columns, Smoothed, View, decimate
from tui.widgets.formats import number, place, rate
from tui.widgets.notes import befell
from tui.widgets.plot import Curve, Mark, columns, draw
from tui.widgets.rows import Pane, Row, fit

SMOOTHING = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99)
LEGEND_FROM = 8  # rows from which one goes to the legend


class Chart(Pane):
    """Curves of the run so far over its steps.

    The training curve's smoothed line is computed once on all points, and so is the same at any width. Behind it stand loose
    dots, for each column the mean, the lowest and the highest of what it covers: no spike is lost.
    """

    DEFAULT_CSS = """
    Chart { overflow: hidden hidden; }
    """
    BORDER_TITLE: ClassVar[str] = "1 Chart"

    def __init__(self, view: View | None = None, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.view = view or View()
        self._history = History()
        self._drawn: tuple[object, ...] = ()
        self._smoothed = Smoothed(self.view.smoothing)
        self._log_y = False  # as drawn

    def show(self, history: History) -> None:
        """Draw what is new in `history`."""
        self._history = history
        self._update()

    @property
    def metric(self) -> str:
        """What is drawn: the person's choice, or the loss where this run has no such metric."""
        return self.view.metric if self.view.metric in self._metrics() else "loss"

    @property
    def smoothing(self) -> float:
        """The weight of the smoothed line's past, 0 for none."""
        return self.view.smoothing

    def cycle_metric(self, step: int = 1) -> None:
        """Show the next metric, or with -1 the one before."""
        names = self._metrics()
        self.view.metric = names[(names.index(self.metric) + step) % len(names)]
        self._update()

    def toggle_log(self) -> None:
        """Change between a logarithmic and a linear y axis, for the metric shown."""
        self.view.log[self.metric] = not self._log_y
        self._update()

    def smooth_more(self) -> None:
        self._smooth(next((weight for weight in SMOOTHING if weight > self.smoothing), SMOOTHING[-1]))

    def smooth_less(self) -> None:
        self._smooth(next((weight for weight in reversed(SMOOTHING) if weight < self.smoothing), 0.0))

    def smooth_none(self) -> None:
        self._smooth(0.0)

    def _smooth(self, weight: float) -> None:
        self.view.smoothing = weight
        self._update()

    def on_resize(self) -> None:
        self._update()

    def on_show(self) -> None:
        self._update()

    def _metrics(self) -> list[str]:
        """What can be shown: the loss first, the learning rate last."""
        names = dict.fromkeys(["loss", *(name.rpartition("/")[2] for name in self._history.series if name != "lr")])
        return [*names, "lr"]

    def _series(self) -> dict[str, Series]:
        """The curves of the metric shown, by role: "train" and "val", or "strong" for one that belongs to neither."""
        series = self._history.series
        found = {"strong": series.get(self.metric), **{role: series.get(f"{role}/{self.metric}") for role in ("train", "val")}}
        return {role: curve for role, curve in found.items() if curve is not None and len(curve)}

    def _update(self) -> None:
        if not self.is_mounted or not self.is_on_screen:
            return  # `on_show` catches up
        points = {role: curve.columns() for role, curve in self._series().items()}
        newest = [(role, len(steps), steps[-1], means[-1]) for role, (steps, means, _, _) in points.items()]
        best = self._history.best
        key = (id(self._history), self.size, self.metric, self.smoothing, self.view.log.get(self.metric), repr(newest), best,
               len(self._history.settings), len(self._history.rewinds))  # fmt: skip
        if key == self._drawn:
            return
        self._drawn = key
        width, height = self.size
        total = self._history.started.total_steps if self._history.started else None
        right = _round_up(max((steps[-1] for steps, *_ in points.values()), default=1), total)
        curves = {role: decimate(*columns_of, 0, right, columns(width)) for role, columns_of in points.items()}
        smoothed: list[float] = []
        if self.smoothing and "train" in points:
            steps, means, _, _ = points["train"]
            if self._smoothed.weight != self.smoothing:
                self._smoothed = Smoothed(self.smoothing)
            smoothed = self._smoothed.of(steps, means)
            curves["smoothed"] = decimate(steps, smoothed, smoothed, smoothed, 0, right, columns(width))
        self._log_y = self.view.log.get(self.metric, self.metric == "loss" and _positive(curves))
        self.set_title(self._heading("train" in curves))
        newest_values = {role: means[-1] for role, (_, means, _, _) in points.items()}
        if smoothed:
            newest_values["smoothed"] = smoothed[-1]
        legend = [self._legend(curves, newest_values, width)] if height >= LEGEND_FROM else []
        self.set_rows([*legend, *self._plot(curves, right, width, height - len(legend))])

    def _heading(self, smoothable: bool) -> str:
        smoothing = f"smoothing {self.smoothing:g}" if self.smoothing else "not smoothed"
        axis = "log y" if self._log_y else "linear y"
        return "1 Chart ── " + " · ".join([self.metric, *([smoothing] if smoothable else []), axis, "by step", "whole run"])

    def _plot(self, curves: dict[str, Columns], right: int, width: int, height: int) -> list[Row]:
        lines: list[Curve] = []
        dots: list[Curve] = []
        marks: list[Mark] = []
        for name, at in curves.items():
            loose = name == "train" and "smoothed" in curves  # the smoothed line takes the place of its line
            if not loose:
                lines.append(Curve(at.x, at.mean, "train" if name == "smoothed" else name))
            if name != "smoothed":
                dots.append(_spread(at, "ghost" if name == "train" else "faint", middle=loose))
                marks += [Mark(x, None, "×", "bad") for x in at.gaps]
            if name == "val":  # told from the training line by its shape as well
                marks += [Mark(x, y, self._symbol(name), name) for x, y in zip(at.x, at.mean, strict=True)]
        lines.sort(key=lambda line: line.role == "val")  # on top
        marks += [Mark(step, None, self._change, "mark") for step, _ in befell(self._history) if step <= right]
        best = self._best()
        if best is not None:
            marks.append(Mark(best[0].step, best[1], "★"))
        return draw(lines, dots, marks, width, height, left=0, right=right, log_y=self._log_y, braille=not self._ascii)

    def _best(self) -> tuple[EpochEnded | Validated, float] | None:
        """The best with its value of the metric shown."""
        best = self._history.best
        value = best.metrics.get(f"val/{self.metric}", best.metrics.get(f"train/{self.metric}")) if best else None
        return None if best is None or value is None else (best, value)

    def _symbol(self, role: str) -> str:
        if self._ascii:
            return "o" if role == "val" else "+"  # as plot.draw draws them
        return "•" if role == "val" else "━"

    @property
    def _change(self) -> str:
        return "^" if self._ascii else "▲"

    def _legend(self, curves: dict[str, Columns], newest: dict[str, float], width: int) -> Row:
        """What each line is and where it is now."""
        write = rate if self.metric == "lr" else number
        pieces: list[tuple[int, Row]] = []
        for role, value in newest.items():
            said = (write(value), "strong" if math.isfinite(value) else "bad")
            if role == "smoothed":
                pieces.insert(1, (3, [("smoothed ", "label"), said]))
            else:
                name = self.metric if role == "strong" else role
                pieces.append((0, [(f"{self._symbol(role)} ", role), (f"{name} ", "label"), said]))
        if any(at.gaps for at in curves.values()):
            pieces.append((1, [("× ", "bad"), ("not a number", "label")]))
        if changes := befell(self._history):
            pieces.append((2, [(f"{self._change} ", "mark"), (changes[-1][1], "label")]))
        best = self._best()
        if best is not None:
            found, value = best
            pieces.append((1, [("★ ", "mark"), ("best ", "label"), (write(value), "strong"), (f" at {place(found)}", "label")]))
        if "train" in curves:
            pieces.append(
                (
                    4,
                    [
                        ("· ", "ghost"),
                        ("mean and extremes of each column" if self.smoothing else "extremes of each column", "label"),
                    ],
                )
            )
        return [(" ", ""), *fit(width - 2, pieces, "   ")]


def _positive(curves: dict[str, Columns]) -> bool:
    return all(low > 0 for at in curves.values() for low in at.low if math.isfinite(low))


def _spread(at: Columns, role: str, *, middle: bool) -> Curve:
    """The low and the high of each column where they differ, with its mean between them if `middle`."""
    x: list[float] = []
    y: list[float] = []
    for at_x, mean, low, high in zip(at.x, at.mean, at.low, at.high, strict=True):
        values = ([mean] if middle else []) + ([low, high] if low < high else [])
        x += [at_x] * len(values)
        y += values
    return Curve(x, y, role)


def _round_up(step: int, total: int | None) -> int:
    """A right end that leaves some room and rarely moves: columns then keep what they cover. Not past the planned end."""
    power = 10 ** (len(str(step)) - 1)
    end = next(int(m * power) for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * power >= step)
    return min(end, total) if total is not None and total >= step else end
