"""One chart of one run or several: which curves, over which part of the axis, and all that is said about it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.events import EpochEnded, RunPaused, Validated
from engine.history import History
from tui.widgets.curves import Columns, View, at_edges, decimate, inliers
from tui.widgets.formats import cut, moment, number, rate
from tui.widgets.notes import befell
from tui.widgets.plot import Axis, Curve, Mark, axes, columns, draw
from tui.widgets.rows import Row, fit, length
from tui.widgets.traces import Across, Trace, Traces


@dataclass(slots=True)
class Figure:
    """A chart, ready to be drawn in some size. `left` and `right` are on the x axis, which counts `across`."""

    runs: Sequence[tuple[str, History]]
    metric: str
    smoothing: float
    traces: list[Trace]
    across: Across
    left: float
    right: float
    part: str  # of the axis, in words
    log_y: bool
    limits: tuple[float, float] | None
    cursor: float | None  # in steps
    ascii: bool
    lines: list[Curve] = field(default_factory=list)
    dots: list[Curve] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)  # of each trace
    marked: set[str] = field(default_factory=set)  # kinds of marks that are in sight

    @property
    def history(self) -> History:
        """Of the first run."""
        return self.runs[0][1]

    def rows(self, width: int, height: int) -> list[Row]:
        """The plot."""
        return draw(
            self.lines, self.dots, self.marks, width, height, left=self.left, right=self.right, limits=self.limits,
            log_y=self.log_y, across=self.across.kind, cursor=None if self.cursor is None else self.across(self.cursor),
            braille=not self.ascii,
        )  # fmt: skip

    def axes(self) -> tuple[Axis, Axis | None]:
        """The axes that `rows` has."""
        return axes([*self.lines, *self.dots], self.left, self.right, self.limits, self.log_y)

    def heading(self, width: int) -> str:
        """What is drawn, in words; shorter ones where there is little room."""
        smooth = f"{self.smoothing:g}" if self.smoothing else ""
        words = [(self.metric, self.metric)]
        if any(trace.name == "train" for trace in self.traces):
            words.append((f"smoothing {smooth}", f"smooth {smooth}") if smooth else ("not smoothed", "raw"))
        words.append(("log y", "log y") if self.log_y else ("linear y", "linear y"))
        words.append(("by training time", "by time") if self.across.kind == "time" else (f"by {self.across.kind}",) * 2)
        words.append((self.part, self.part))
        if self.limits:
            words.append(("outliers clipped", "clipped"))
        if len(self.runs) > 1:
            words.append((f"{len(self.runs)} runs",) * 2)
        for kind in (0, 1):
            text = " · ".join(word[kind] for word in words)
            if len(text) <= width:
                return text
        if self.across.kind in self.part:  # which says it already
            words = [word for word in words if not word[1].startswith("by ")]
        return cut(" · ".join(short for _, short in words), max(width, 0))

    def best(self, history: History) -> tuple[EpochEnded | Validated, float] | None:
        """Where a run was best, with its value of the metric shown."""
        best = history.best
        keys = [f"val/{self.metric}", f"train/{self.metric}", self.metric]
        value = next((best.metrics[key] for key in keys if key in best.metrics), None) if best else None
        return None if best is None or value is None else (best, value)

    def symbol(self, trace: Trace) -> str:
        """What stands for a curve in the legend."""
        if self.ascii:
            return trace.letter or ("o" if trace.role == "val" else "+")  # as plot.draw draws them
        return trace.letter or ("•" if trace.role == "val" else "━")

    def legend(self, width: int) -> Row:
        """What each line is and where it is now, and what each mark says; of that the most important."""
        return [(" ", ""), *fit(width - 2, self._pieces(), "   ")]

    def names_runs(self, legend: Row) -> bool:
        """Whether it says of every run which curve is its."""
        said = "".join(text for text, _ in legend)
        return len(self.runs) == 1 or all(trace.run in said for trace in self.traces)

    def legend_rows(self, width: int) -> list[Row]:
        """The same, all of it, on as many lines as it takes."""
        pieces = self._pieces()
        rows: list[Row] = []
        while pieces:
            here = _that_fit(pieces, width - 2)
            rows.append([(" ", ""), *fit(width - 2, here)])
            pieces = pieces[len(here) :]
        return rows

    def _pieces(self) -> list[tuple[int, Row]]:
        write = rate if self.metric == "lr" else number
        pieces: list[tuple[int, Row]] = []
        for trace in self.traces:
            name = trace.name if len(self.runs) == 1 else f"{trace.name} {trace.run}".rstrip()
            value = trace.mean[-1]
            said = (write(value), "strong" if math.isfinite(value) else "bad")
            pieces.append((5 if trace.letter else 0, [(f"{self.symbol(trace)} ", trace.role), (f"{name} ", "label"), said]))
            if trace.smoothed and not trace.letter:
                value = trace.smoothed[-1]
                said = (write(value), "strong" if math.isfinite(value) else "bad")
                pieces.append((3, [("smoothed ", "label"), said]))
        if any(at.gaps for at in self.columns):
            pieces.append((1, [("× ", "bad"), ("not a number", "label")]))
        if "clipped" in self.marked:
            pieces.append((1, [("↑↓ ", "warn"), ("beyond", "label")]))
        if changes := befell(self.history):
            pieces.append((2, [("▲ ", "mark"), (changes[-1][1], "label")]))
        best = self.best(self.history)
        if best is not None:
            found, value = best
            pieces.append((1, [("★ ", "mark"), ("best ", "label"), (write(value), "strong"), (f" at {found.place}", "label")]))
        for symbol, role, words in (("‖", "mark", "paused"), ("▸", "mark", "went on"), ("◆", "faint", "checkpoint")):
            if words in self.marked:
                pieces.append((6, [(f"{symbol} ", role), (words, "label")]))
        if any(curve.role == "ghost" for curve in self.dots):
            what = "mean and extremes of each column" if self.smoothing else "extremes of each column"
            pieces.append((4, [("· ", "ghost"), (what, "label")]))
        return pieces

    def reading(self, width: int, lines: int) -> list[Row]:
        """The exact values under the cursor, on as many lines as they need, at most so many."""
        if self.cursor is None:
            return []
        step = round(self.cursor)
        where = f"step {step:,}"
        if self.across.kind == "epoch":
            where += f", epoch {self.across(step):.4g}"
        if self.across.kind == "time":
            where += f", {moment(self.across(step), self.right - self.left)}"
        pieces: list[tuple[int, Row]] = [(0, [("cursor ", "label"), (where, "strong")])]
        for trace in self.traces:
            at = trace.covering(step)
            if at is None:
                continue
            name = trace.name if not trace.letter else trace.run
            row: Row = [(f"{name} ", trace.role), (exact(trace.mean[at]), "strong")]
            if trace.name == "train":
                covered = trace.steps[at] - (trace.steps[at - 1] if at else 0)
                if covered > 1:
                    row.append((f" mean of {covered:,} steps, {exact(trace.low[at])} to {exact(trace.high[at])}", "label"))
            elif trace.steps[at] != step:
                row.append((f" at {trace.steps[at]:,}", "label"))
            pieces.append((1, row))
            if trace.smoothed:
                pieces.append((2, [("smoothed ", "label"), (exact(trace.smoothed[at]), "strong")]))
        if self.metric != "lr" and (curve := self.history.series.get("lr")) is not None:
            steps, rates, _, _ = curve.columns()
            if (at := bisect_left(steps, step)) < len(steps):
                pieces.append((3, [("lr ", "label"), (rate(rates[at]), "strong")]))
        rows: list[Row] = []
        while pieces and len(rows) < lines:
            here = pieces if len(rows) == lines - 1 else _that_fit(pieces, width - 2)
            rows.append([(" ", ""), *fit(width - 2, here)])
            pieces = pieces[len(here) :]
        return rows


def _that_fit(pieces: list[tuple[int, Row]], width: int) -> list[tuple[int, Row]]:
    """The first pieces, as many as one line takes; one at least."""
    count = 1
    while count < len(pieces) and length(fit(10**6, pieces[: count + 1])) <= width:
        count += 1
    return pieces[:count]


def exact(value: float) -> str:
    """All digits that single precision has."""
    return f"{value:.7g}" if math.isfinite(value) else number(value)


def compose(
    runs: Sequence[tuple[str, History]],
    metric: str,
    view: View,
    width: int,
    *,
    window: tuple[float, float] | None = None,
    cursor: float | None = None,
    ascii: bool = False,
    traces: Traces | None = None,
) -> Figure:
    """The chart of a metric for a plot `width` cells wide. `window` (first and last step of the first run) and `cursor` are in
    steps; the other choices are the view's."""
    name, main = runs[0]
    traces = traces or Traces()
    across = traces.across(name, main, view.across)
    if across.kind != view.across:
        view = View(view.metric, view.smoothing, view.log, across.kind, view.clip, view.recent)
    found = traces.of(runs, metric, view)
    if window is not None:
        left, right = map(across, window)
        part = _words(window[0], window[1], left, right, across.kind)
    elif view.recent:
        left, right = recent(max((trace.x[-1] for trace in found), default=1), across.kind)
        part = f"last {_count(right - left, across.kind)}"
    else:
        left, right, part = 0.0, end(main, found, across), "whole run"
    figure = Figure(runs, metric, view.smoothing, found, across, left, right, part, False, None, cursor, ascii)
    _curves(figure, view, columns(width))
    _marks(figure, traces)
    return figure


def end(history: History, traces: Sequence[Trace], across: Across) -> float:
    """Where the axis of the whole run ends."""
    total = history.started.total_steps if history.started else None
    newest = max((trace.x[-1] for trace in traces), default=1)
    return round_up(newest, None if total is None else across(total))


def _curves(figure: Figure, view: View, count: int) -> None:
    left, right = figure.left, figure.right
    figure.columns = [decimate(trace.x, trace.mean, trace.low, trace.high, left, right, count) for trace in figure.traces]
    # A loss of exactly 0 in a single batch is no reason for a linear axis, on which all that came before it is flat.
    lows = [low for at in figure.columns for low in at.low if math.isfinite(low)]
    means = [mean for at in figure.columns for mean in at.mean if math.isfinite(mean)]
    logarithmic = all(low >= 0 for low in lows) and all(mean > 0 for mean in means)
    figure.log_y = view.log.get(figure.metric, figure.metric.rpartition("/")[2] == "loss" and logarithmic)
    values: list[float] = []
    for trace, at in zip(figure.traces, figure.columns, strict=True):
        bright = trace.smoothed or trace.mean
        line = decimate(trace.x, bright, bright, bright, left, right, count) if trace.smoothed else at
        points = sorted([*at_edges(trace.x, bright, left, right), *zip(line.x, line.mean, strict=True)], key=lambda p: p[0])
        figure.lines.append(Curve([x for x, _ in points], [y for _, y in points], trace.role, trace.letter))
        if not trace.letter:
            loose = "ghost" if trace.role == "train" else "faint"
            figure.dots.append(_spread(at, loose, middle=bool(trace.smoothed)))
        values += [*at.low, *at.high, *line.mean]
    figure.lines.sort(key=lambda line: (line.role == "val", not line.character))  # the first run's validation on top
    if view.clip:
        far = inliers([math.log10(value) for value in values if value > 0] if figure.log_y else values)
        figure.limits = (10 ** far[0], 10 ** far[1]) if far and figure.log_y else far


def _marks(figure: Figure, traces: Traces) -> None:
    history, across, marks = figure.history, figure.across, figure.marks
    bottom: list[tuple[float, str, str, str]] = [(item.step, "◆", "faint", "checkpoint") for item in history.checkpoints]
    for hold in history.holds:
        bottom.append(
            (hold.step, "‖", "mark", "paused") if isinstance(hold, RunPaused) else (hold.step, "▸", "mark", "went on")
        )
    bottom += [(step, "▲", "mark", "changed") for step, _ in befell(history)]
    for step, symbol, role, words in bottom:
        if figure.left <= across(step) <= figure.right:
            marks.append(Mark(across(step), None, symbol, role))
            figure.marked.add(words)
    _, y_axis = figure.axes()
    for trace, at in zip(figure.traces, figure.columns, strict=True):
        marks += [Mark(x, None, "×", "bad") for x in at.gaps]
        if trace.role == "val":  # told from the training line by its shape as well
            marks += [Mark(x, y, figure.symbol(trace), "val") for x, y in zip(at.x, at.mean, strict=True)]
        if trace.letter and not figure.ascii:
            every = max(1, len(at.x) // 4)
            named = list(zip(at.x, at.mean, strict=True))[every // 2 :: every]
            marks += [Mark(x, y, trace.letter, trace.role) for x, y in named]
        if figure.limits and y_axis is not None:
            low, high = (10**y_axis.low, 10**y_axis.high) if y_axis.log else (y_axis.low, y_axis.high)
            up = [Mark(x, high, "↑", "warn") for x, top in zip(at.x, at.high, strict=True) if top > high + 1e-9 * abs(high)]
            down = [Mark(x, low, "↓", "warn") for x, least in zip(at.x, at.low, strict=True) if least < low - 1e-9 * abs(low)]
            marks += up + down
            if up or down:
                figure.marked.add("clipped")
    for number_of, (name, run) in enumerate(figure.runs):
        best = figure.best(run)
        if best is not None and figure.left <= (x := traces.across(name, run, across.kind)(best[0].step)) <= figure.right:
            marks.append(Mark(x, best[1], "★", f"run{(number_of - 1) % 5 + 1}" if number_of else "mark"))


def _spread(at: Columns, role: str, *, middle: bool) -> Curve:
    """The low and the high of each column where they differ, with its mean between them if `middle`."""
    x: list[float] = []
    y: list[float] = []
    for at_x, mean, low, high in zip(at.x, at.mean, at.low, at.high, strict=True):
        values = ([mean] if middle else []) + ([low, high] if low < high else [])
        x += [at_x] * len(values)
        y += values
    return Curve(x, y, role)


def round_up(value: float, total: float | None) -> float:
    """A right end that leaves some room and rarely moves: columns then keep what they cover. Not past the planned end."""
    value = max(value, 1e-6)
    power = 10.0 ** math.floor(math.log10(value))
    end = next(m * power for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12) if m * power >= value * (1 - 1e-12))
    return min(end, total) if total is not None and total >= value else max(end, value)


def recent(newest: float, kind: str) -> tuple[float, float]:
    """The last quarter or so, of a round length; it moves on by a tenth of that, so that columns keep what they cover."""
    wanted = max(newest / 4, 10 if kind == "step" else 1e-6)
    power = 10.0 ** math.floor(math.log10(wanted))
    span = next(m * power for m in (5, 2, 1) if m * power <= wanted * (1 + 1e-9))
    right = math.ceil(newest / (span / 10) - 1e-9) * span / 10
    return max(0.0, right - span), max(right, span, newest)


def _count(span: float, kind: str) -> str:
    return moment(span, span) if kind == "time" else f"{span:,.6g} {kind}s"


def _words(first: float, last: float, left: float, right: float, kind: str) -> str:
    if kind == "time":
        return f"{moment(left, right - left)} to {moment(right, right - left)}"
    if kind == "epoch":
        return f"epoch {left:.4g} to {right:.4g}"
    return f"step {first:,.0f} to {last:,.0f}"
