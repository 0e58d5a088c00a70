"""A chart as files: its points as CSV, its picture as SVG."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

from tui.widgets.figure import Figure
from tui.widgets.plot import Axis, Curve
from tui.widgets.traces import Across, Trace

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 56, 40  # margins
COLORS = {
    "train": "#0891b2", "val": "#c026a8", "strong": "#1f2328", "ghost": "#7cc7d8", "faint": "#a8adb5", "mark": "#b7791f",
    "bad": "#c0261c", "warn": "#b45309", "run1": "#4d7c0f", "run2": "#c2410c", "run3": "#4338ca", "run4": "#b91c1c",
    "run5": "#334155",
}  # fmt: skip


def write(figure: Figure, directory: Path | None = None) -> tuple[Path, Path]:
    """Write both files to a directory, or where that is not possible or None to the working directory. OSError."""
    if directory is not None and not os.access(directory, os.W_OK):
        directory = None
    name = "chart-" + re.sub(r"[^\w-]+", "-", figure.metric)
    return _write(directory or Path(), name, ".csv", to_csv(figure)), _write(directory or Path(), name, ".svg", to_svg(figure))


def _write(directory: Path, name: str, suffix: str, text: str) -> Path:
    """A file that is there already is not overwritten."""
    number = 1
    while True:
        path = directory / f"{name}{f'-{number}' if number > 1 else ''}{suffix}"
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
        except FileExistsError:
            number += 1
        else:
            return path


def to_csv(figure: Figure) -> str:
    """Every point in the part of the axis that is shown: its last step, where that is in epochs and in seconds of training, the
    mean, lowest and highest value of what it covers, and the smoothed value."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["run", "curve", "step", "epoch", "seconds", "mean", "low", "high", "smoothed"])
    histories = dict(figure.runs)
    for trace in figure.traces:
        places = [Across(histories[trace.run], kind) for kind in ("epoch", "time")]
        metric = figure.metric if trace.name in figure.metric else f"{trace.name}/{figure.metric}"
        name = trace.run or (figure.history.started.name if figure.history.started else "")
        for i in _shown(figure, trace):
            at = [f"{place(trace.steps[i]):.6g}" if place.kind != "step" else "" for place in places]
            values = [repr(float(v[i])) for v in (trace.mean, trace.low, trace.high)]
            table.writerow([name, metric, trace.steps[i], *at, *values, repr(trace.smoothed[i]) if trace.smoothed else ""])
    return out.getvalue()


def _shown(figure: Figure, trace: Trace) -> Iterator[int]:
    return (i for i, x in enumerate(trace.x) if figure.left <= x <= figure.right)


def to_svg(figure: Figure) -> str:
    """The chart as a picture: the same curves, axes and marks, and the title that says what they are."""
    x_axis, y_axis = figure.axes()
    started = figure.history.started
    names = [name for name, _ in figure.runs if name] or [started.name if started else ""]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 22, f"{', '.join(names)} · {figure.heading(200)}", "#1f2328", anchor="start"),
        _text(LEFT, 42, "".join(text for text, _ in figure.legend(150)).strip(), "#57606a", anchor="start"),
    ]
    if y_axis is not None:
        parts += _grid(figure, x_axis, y_axis)
        parts.append(
            f'<clipPath id="plot"><rect x="{LEFT}" y="{TOP}" width="{_across(1) - LEFT}" height="{_down(0) - TOP}"/></clipPath>'
        )
        parts.append('<g clip-path="url(#plot)">')
        for curve in figure.dots:
            dots = "".join(f"M{_across(x):.1f} {_down(y):.1f}h0" for x, y in _points(curve, x_axis, y_axis) if y is not None)
            parts.append(_path(dots, curve.role, 'stroke-width="3" stroke-linecap="round"'))
        parts += [_path(_line(curve, x_axis, y_axis), curve.role, 'stroke-width="2"') for curve in figure.lines]
        parts.append("</g>")
        for mark in figure.marks:
            if mark.y is None or not y_axis.log or mark.y > 0:
                up = 0.0 if mark.y is None else y_axis.position(mark.y)
                if up == up:  # a best that is not a number has no place
                    parts.append(_text(_across(x_axis.position(mark.x)), _down(up) + 4, mark.text, COLORS[mark.role]))
    return "\n".join([*parts, "</svg>", ""])


def _grid(figure: Figure, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    kind = figure.across.kind
    x_ticks = x_axis.times(8) if kind == "time" else x_axis.ticks(8, least=kind == "step")
    for at, words in x_ticks:
        yield f'<path d="M{_across(at):.1f} {TOP}V{_down(0):.1f}" stroke="#e5e7eb"/>'
        yield _text(_across(at), HEIGHT - BOTTOM + 18, words, "#57606a")
    for at, words in y_axis.ticks(7):
        yield f'<path d="M{LEFT} {_down(at):.1f}H{_across(1):.1f}" stroke="#e5e7eb"/>'
        yield _text(LEFT - 8, _down(at) + 4, words, "#57606a", anchor="end")
    yield _text(_across(0.5), HEIGHT - 6, {"time": "training time"}.get(kind, kind), "#57606a")


def _points(curve: Curve, x_axis: Axis, y_axis: Axis) -> Iterator[tuple[float, float | None]]:
    """Positions; None where there is a gap."""
    for x, y in zip(curve.x, curve.y, strict=True):
        drawable = y == y and abs(y) != float("inf") and (y > 0 or not y_axis.log)
        yield x_axis.position(x), y_axis.position(y) if drawable else None


def _line(curve: Curve, x_axis: Axis, y_axis: Axis) -> str:
    drawn, pen = [], "M"
    for x, y in _points(curve, x_axis, y_axis):
        if y is not None:
            drawn.append(f"{pen}{_across(x):.1f} {_down(y):.1f}")
        pen = "M" if y is None else "L"
    return "".join(drawn)


def _path(drawn: str, role: str, how: str) -> str:
    return f'<path d="{drawn}" fill="none" stroke="{COLORS[role]}" {how}/>' if drawn else ""


def _text(x: float, y: float, words: str, color: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}">{escape(words)}</text>'


def _across(position: float) -> float:
    return LEFT + position * (WIDTH - LEFT - RIGHT)


def _down(position: float) -> float:
    return HEIGHT - BOTTOM - position * (HEIGHT - TOP - BOTTOM)
