"""`epochal plot`: the console's chart as text, for a terminal without the console, a pipe or a mail."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from engine.cli.options import Formatter, Parser
from engine.cli.output import Stream, told
from engine.errors import RunError, nearest
from engine.history import History
from tui.widgets import export
from tui.widgets.curves import ACROSS, View
from tui.widgets.figure import Figure, compose
from tui.widgets.formats import plain
from tui.widgets.rows import Row
from tui.widgets.traces import curves_of, metrics_of

_COLORS = {
    "train": "36", "val": "35", "mark": "33;1", "faint": "2", "ghost": "36;2", "strong": "1", "label": "2", "warn": "33",
    "bad": "31;1", "run1": "32", "run2": "33", "run3": "34", "run4": "31", "run5": "37",
}  # fmt: skip
_LEAST = (40, 10)


def main(arguments: Sequence[str]) -> int:
    """Draw what `arguments` ask for. Returns the exit status: 0, or 2 for a mistake, told in one sentence."""
    return told(lambda out: out.line(plot(make_parser().parse_args(arguments), ascii=not _takes(out), colour=_colour(out))))


def make_parser() -> Parser:
    """What the command understands."""
    parser = Parser(
        prog="epochal plot",
        allow_abbrev=False,
        formatter_class=Formatter,
        description="Draw a metric of one run or several as text: the console's chart.",
    )
    parser.add_argument("which", metavar="RUN", nargs="*", help="a path, a name, a part of one, or last; default: last")
    parser.add_argument("--metric", default="", help="loss (training and validation; the default for one run), val/loss, lr, …")
    axis = parser.add_mutually_exclusive_group()
    axis.add_argument("--log", action="store_true", default=None, help="logarithmic y axis; a positive loss has it by itself")
    axis.add_argument("--linear", action="store_false", dest="log", help="linear y axis")
    parser.add_argument("--x", choices=ACROSS, default="step", help="what the x axis counts")
    parser.add_argument("--smoothing", type=_weight, default=0.6, metavar="W", help="of training curves, from 0 to below 1")
    parser.add_argument("--clip", action="store_true", help="clip outliers; where there are some, arrows at the edge say so")
    parser.add_argument("--recent", action="store_true", help="the newest part alone")
    parser.add_argument("--width", type=int, metavar="N", help="columns; default: those of the terminal")
    parser.add_argument("--height", type=int, metavar="N", help="lines; default: at most 24, those of the terminal")
    parser.add_argument("--write", metavar="DIR", type=Path, help="write it as CSV and SVG there as well")
    parser.add_argument("--runs", metavar="DIR", help="where runs are kept; left out: $EPOCHAL_RUNS, else ./runs")
    return parser


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < 1:
        raise argparse.ArgumentTypeError(f"it is {text!r} and must be from 0 to below 1")
    return weight


def plot(asked: argparse.Namespace, *, ascii: bool = False, colour: bool = False) -> str:
    """The chart as lines of text. EpochalError for a run or a metric that is not there."""
    from engine.run import Run, load_history, runs_root

    root = runs_root(asked.runs)
    found = [Run.open(which, root) for which in asked.which or ["last"]]
    runs = [(run.name, load_history(run)) for run in found]
    metric = asked.metric or _usual([history for _, history in runs])
    for name, history in runs:
        _check(metric, name, history)
    terminal = shutil.get_terminal_size((100, 24))
    width = max(_LEAST[0], terminal.columns if asked.width is None else asked.width)
    height = max(_LEAST[1], min(24, terminal.lines - 1) if asked.height is None else asked.height)
    view = View(metric, asked.smoothing, {} if asked.log is None else {metric: asked.log}, asked.x, asked.clip, asked.recent)
    figure = compose(runs, metric, view, width, ascii=ascii)
    names = runs[0][0] if len(runs) == 1 else ""
    title = " · ".join(part for part in (names, figure.heading(width - len(names) - 3)) if part)
    rows: list[Row] = [[(title, "strong")], *figure.legend_rows(width)]
    rows += figure.rows(width, max(4, height - len(rows)))
    text = "\n".join(_line(row, ascii, colour) for row in rows)
    if asked.write is not None:
        text += "\n" + _write(figure, asked.write)
    return text


def _usual(histories: Sequence[History]) -> str:
    """One curve a run, where there are several."""
    if len(histories) == 1:
        return "loss"
    return "val/loss" if all("val/loss" in history.series for history in histories) else "train/loss"


def _write(figure: Figure, directory: Path) -> str:
    if not directory.is_dir():
        raise RunError(f"{directory} is no directory to write to")
    try:
        return "\n".join(f"written: {path}" for path in export.write(figure, directory))
    except OSError as error:
        raise RunError(f"{directory} can't be written to: {error.strerror}") from None


def _check(metric: str, name: str, history: History) -> None:
    if curves_of(history, metric):
        return
    known = [*dict.fromkeys([*metrics_of(history), *history.series])]
    there = [one for one in known if curves_of(history, one)]
    if not there:
        raise RunError(f"{name} has nothing to draw yet")
    raise RunError(f"{name} has no metric {metric!r}, but {', '.join(there)}{nearest(metric, there)}")


def _takes(out: Stream) -> bool:
    """Whether braille may be written there."""
    if asked := os.environ.get("EPOCHAL_ASCII"):
        return asked == "0"
    encoding = (out.encoding or "utf-8").lower().replace("-", "")
    return encoding == "utf8" and not (out.isatty() and os.environ.get("TERM") == "linux")


def _colour(out: Stream) -> bool:
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _line(row: Row, ascii: bool, colour: bool) -> str:
    if not colour:
        text = "".join(text for text, _ in row).rstrip()
        return plain(text) if ascii else text
    pieces = [plain(text) if ascii else text for text, _ in row]
    codes = [_COLORS.get(role, "") for _, role in row]
    return "".join(f"\x1b[{code}m{text}\x1b[0m" if code else text for text, code in zip(pieces, codes, strict=True))
