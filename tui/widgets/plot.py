"""The one door to plotext: curves in, rows of styled pieces out. It never raises and never draws what was not asked for.

plotext draws the axes, from positions between 0 and 1 with ticks of our own. Curves are drawn by the console itself, dot for
dot as plotext would: a run that trains meanwhile would wait several times as long for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tui.widgets.canvas import Canvas
from tui.widgets.formats import moment, plain
from tui.widgets.rows import Row

LIMIT = 1e12
Ticks = tuple[tuple[float, str], ...]  # positions on an axis with their labels
LABEL = 6  # cells of the numbers beside the axis: fixed, so that the plot never shifts sideways


@dataclass(frozen=True, slots=True)
class Curve:
    """Points to be joined (a line) or left apart (dots). `role` names the style."""

    x: Sequence[float]
    y: Sequence[float]
    role: str
    character: str = ""  # that a line is made of where there is no braille


@dataclass(frozen=True, slots=True)
class Mark:
    """A character at a point; `y` None puts it on the bottom row."""

    x: float
    y: float | None
    text: str
    role: str = "mark"


def columns(width: int) -> int:
    """Cells of the plotting area of a chart `width` cells wide."""
    return max(1, width - LABEL - 1)


def draw(
    lines: Sequence[Curve],
    dots: Sequence[Curve],
    marks: Sequence[Mark],
    width: int,
    height: int,
    *,
    left: float | None = None,
    right: float | None = None,
    limits: tuple[float, float] | None = None,
    log_y: bool = False,
    across: str = "step",
    cursor: float | None = None,
    braille: bool = True,
) -> list[Row]:
    """`height` rows of `width` cells. Dots lie under lines, later lines over earlier ones, marks on top.

    The x axis spans `left` to `right`, or what the curves span, the y axis `limits`, or what the curves span. Points that are
    not finite, and with `log_y` those that are not positive, are gaps; values beyond the limits, or beyond ±1e12, are drawn at
    the edge. `across` is what x counts: "step", "epoch", "time" in seconds, or a learning "rate", on a logarithmic axis.
    `cursor` is a dotted line over the whole height.
    """
    if width < LABEL + 4 or height < 4:
        return _text([], width, height)
    x_axis, y_axis = axes((*lines, *dots), left, right, limits, log_y, log_x=across == "rate")
    if y_axis is None:
        return _text([""] * ((height - 1) // 2) + [_why_empty((*lines, *dots)).center(width)], width, height)
    y_ticks = y_axis.ticks(max(2, height // 3))
    many = max(2, columns(width) // 14)
    x_ticks = x_axis.times(many) if across == "time" else x_axis.ticks(many, least=across == "step")  # steps are whole
    try:
        frame = _frame(width, height, tuple(x_ticks), tuple(y_ticks))
    except Exception as error:  # plotext checks little of its own: say what it said, the console goes on
        return _text([f"the chart could not be drawn: {error}"], width, height)
    rows = _drawn(lines, dots, marks, Canvas(*frame, braille=braille), x_axis, y_axis, cursor)
    return rows if braille else [[(plain(text), role) for text, role in row] for row in rows]


def _why_empty(curves: Sequence[Curve]) -> str:
    values = [y for curve in curves for y in curve.y]
    if not values:
        return "nothing to draw yet"
    return "no value is above 0: y leaves the logarithm" if any(map(math.isfinite, values)) else "no value is a number"


def axes(
    curves: Sequence[Curve],
    left: float | None,
    right: float | None,
    limits: tuple[float, float] | None,
    log_y: bool,
    log_x: bool = False,
) -> tuple[Axis, Axis | None]:
    """The axes that `draw` gives these curves; without y axis where there is nothing to draw."""
    xs = [x for curve in curves for x in curve.x if math.isfinite(x)]
    x_axis = Axis.over([*xs, *(edge for edge in (left, right) if edge is not None)] or [0.0], log=log_x, exact=True)
    above = _above(log_y)
    ys = limits or [y for curve in curves for y in curve.y if above < y < math.inf]
    return x_axis, Axis.over(ys, log=log_y) if ys else None


def _above(log: bool) -> float:
    """What a finite value must be above to be drawn. Compared with in place: a call for each point would be felt in a frame."""
    return 0.0 if log else -math.inf


_CLOCK = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
)  # seconds between two ticks


@dataclass(frozen=True, slots=True)
class Axis:
    """A range with limits at round numbers. `low` and `high` are decimal logarithms when `log`."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, log: bool = False, exact: bool = False) -> Axis:
        values = list(values)
        low, high = (min(max(end, -LIMIT), LIMIT) for end in (min(values), max(values)))
        if log:
            low, high = max(low, 1e-290), max(high, 1e-290)
            if high <= low * (1 + 1e-6):
                low, high = low / 2, high * 2
            return cls(math.log10(_round_log(low, up=False)), math.log10(_round_log(high, up=True)), True)
        if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-300:
            spread = max(abs(high) / 2, 1e-290) if high else 1.0
            low, high = low - spread, high + spread
        if not exact:
            step = _round_step((high - low) / 8)
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, high)

    def position(self, value: float) -> float:
        """Where in [0, 1] a value lies."""
        value = min(max(value, -LIMIT), LIMIT)
        return min(max(((math.log10(value) if self.log else value) - self.low) / (self.high - self.low), 0.0), 1.0)

    def times(self, count: int) -> list[tuple[float, str]]:
        """As `ticks`, of seconds written as a clock does."""
        step = next(
            (s for s in _CLOCK if s * count >= self.high - self.low), 86400 * _round_step((self.high - self.low) / 864e4)
        )
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(self.position(k * step), moment(k * step, self.high - self.low)) for k in range(first, last + 1)]

    def ticks(self, count: int, least: float = 0.0) -> list[tuple[float, str]]:
        """About `count` positions with their labels, at 1, 2 or 5 times a power of ten, `least` apart."""
        if self.log:
            values = _log_ticks(self.low, self.high, count)
            if len(values) > 1:
                return [(self.position(value), label(value, value)) for value in values]
            low, high = 10**self.low, 10**self.high
        else:
            low, high = self.low, self.high
        step = _round_step(max((high - low) / max(count, 1), least))
        first = math.ceil(low / step - 1e-9)
        values = [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]
        return [(self.position(value), label(value, step)) for value in values if not self.log or value > 0]


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def _round_log(value: float, *, up: bool) -> float:
    """The nearest of a few round numbers a decade at or beyond `value`."""
    value = max(value, 1e-300)
    power = 10.0 ** math.floor(math.log10(value))
    rounds = [m * power for m in (0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12.5)]
    if up:
        return next(r for r in rounds if r >= value * (1 - 1e-9))
    return next(r for r in reversed(rounds) if r <= value * (1 + 1e-9))


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    decades = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if high - low > count:
        every = math.ceil((high - low) / count)
        return [10.0**k for k in decades if k % every == 0]
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        found = [
            m * 10.0**k
            for k in range(math.floor(low), math.floor(high) + 1)
            for m in mantissas
            if low - 1e-9 <= math.log10(m) + k <= high + 1e-9
        ]
        if len(found) <= count + 2:
            break
    return found


def label(value: float, step: float) -> str:
    """A tick's number in at most six cells: `0.05`, `2.5`, `800`, `1.2k`, `3M`, `1e-5`. `step` says how fine it must be."""
    size = abs(value)
    if size < 1e-9 * step or value == 0:
        return "0"
    if size >= 10_000 or (size >= 1000 and step >= 100):
        for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if limit <= size < 1e12:
                text = f"{value / limit:.4g}{unit}"
                return text if len(text) <= LABEL else f"{value:.0e}".replace("e+", "e")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{digits}f}" if digits < 10 else ""
    if not text or len(text) > LABEL:
        mantissa, exponent = f"{value:.1e}".split("e")
        text = f"{mantissa.removesuffix('.0')}e{int(exponent)}"
        text = text if len(text) <= LABEL else f"{float(mantissa):.0f}e{int(exponent)}"
    return text


def _text(lines: Sequence[str], width: int, height: int) -> list[Row]:
    rows: list[Row] = [[(line[:width].ljust(width), "faint")] for line in lines[:height]]
    return rows + [[(" " * width, "")] for _ in range(height - len(rows))]


def _pieces(curve: Curve, x_axis: Axis, y_axis: Axis) -> Iterable[tuple[list[float], list[float]]]:
    """The curve's unbroken parts, as positions."""
    xs: list[float] = []
    ys: list[float] = []
    above = _above(y_axis.log)
    for x, y in zip(curve.x, curve.y, strict=True):
        if math.isfinite(x) and above < y < math.inf:
            xs.append(x_axis.position(x))
            ys.append(y_axis.position(y))
        elif xs:
            yield xs, ys
            xs, ys = [], []
    if xs:
        yield xs, ys


def _drawn(
    lines: Sequence[Curve],
    dots: Sequence[Curve],
    marks: Sequence[Mark],
    canvas: Canvas,
    x_axis: Axis,
    y_axis: Axis,
    cursor: float | None,
) -> list[Row]:
    if cursor is not None:
        canvas.upright(x_axis.position(cursor), "┊", "faint")
    for curve in dots:
        for xs, ys in _pieces(curve, x_axis, y_axis):
            canvas.dots(xs, ys, ".", curve.role)
    for curve in lines:
        for xs, ys in _pieces(curve, x_axis, y_axis):
            canvas.line(xs, ys, curve.character or ("o" if curve.role == "val" else "+"), curve.role)
    for item in marks:
        if math.isfinite(item.x) and (item.y is None or _above(y_axis.log) < item.y < math.inf):
            up = 0.0 if item.y is None else y_axis.position(item.y)
            canvas.mark(x_axis.position(item.x), up, item.text, item.role)
    return canvas.rows()


@lru_cache(maxsize=16)
def _frame(width: int, height: int, x_ticks: Ticks, y_ticks: Ticks) -> tuple[tuple[str, ...], range, range]:
    """The axes as plotext draws them, line by line, with the columns and, upwards, the rows between them. They cost more time
    than all curves, and rarely change."""
    from plotext._figure import _figure_class  # its own figure: the module's global one is shared by all

    figure = _figure_class()
    figure._limit_size(False, False)
    figure.plot_size(width, height)
    figure.theme("clear")
    figure.xaxes(True, False)
    figure.yaxes(True, False)
    figure.xlim(0, 1)
    figure.ylim(0, 1)
    figure.xticks([at for at, _ in x_ticks], [text for _, text in x_ticks])
    figure.yticks([at for at, _ in y_ticks], [text.rjust(LABEL) for _, text in y_ticks])
    figure.scatter([0], [0], marker=" ")  # without anything it draws no axes either
    figure._set_sizes()
    figure._build_matrix()  # what figure.build() does, but for the text with escape codes that would only be taken apart again
    matrix = figure.monitor.matrix
    rows, last = matrix.Rows_canvas, matrix.rows - 1  # upwards
    lines = tuple("".join(line[:width]) for line in reversed(matrix.marker))
    return lines, matrix.Cols_canvas, range(last - rows.start, last - rows.stop, -1)
