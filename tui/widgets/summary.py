"""The summary at the end of a run."""

from __future__ import annotations

import math
import shlex
from textwrap import wrap
from typing import ClassVar

from engine.history import History
from tui.widgets.formats import cell_len, left, number, short, took
from tui.widgets.progress import STATES
from tui.widgets.rows import Pane, Row, length


class Summary(Pane):
    """How a run ended: best and last of every metric with their epochs, time, rate, where it is and how to go on."""

    DEFAULT_CSS = """
    Summary { height: auto; }
    """
    BORDER_TITLE: ClassVar[str] = "6 Summary"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._history = History()

    def show(self, history: History) -> None:
        """Draw the end of `history`; nothing while it goes on."""
        self._history = history
        if self.is_mounted:
            self.set_rows(summary_rows(history, self.size.width))

    def on_resize(self) -> None:
        self.show(self._history)

    def on_mount(self) -> None:
        self.show(self._history)


def summary_rows(history: History, width: int = 0) -> list[Row]:
    """The rows of a run that ended; none before. A reason that is longer than `width` goes on in the next row."""
    ended, started = history.ended, history.started
    if ended is None:
        return []
    symbol, role = STATES.get(ended.state, ("?", "bad"))
    epochs = f"/{started.epochs}" if started and started.epochs else ""
    epoch = f"  epoch {ended.epoch}{epochs}" if epochs or ended.epoch else ""
    head = len(ended.state) + 5
    first, *others = wrap(ended.reason, max(width - head, 20) if width else 10**6) or [""]
    after: Row = [(" after ", "label"), (took(ended.seconds), "strong"), (f"{epoch}  step {ended.step}", "label")]
    over = _rate(history)
    if over and width and length([*after, *over]) > width:
        over = [(over[0][0].removesuffix(", val included"), "label")]
    rows: list[Row] = [
        [(f" {symbol} {ended.state}", role), (f"  {first}", "")],
        *([(" " * head + line, "")] for line in others),
        [*after, *over],
    ]
    if ended.proposal:
        said = ", ".join(f"{field} {value}" for field, value in ended.proposal.items())
        rows += [
            [],
            [(" helps   ", "label"), (said, "strong")],
            [("         ", ""), ("o opens the form with it filled in", "label")],
        ]
    if (history.epochs or (started is not None and started.own_loop)) and (measured := metric_rows(history)):
        rows += [[], *measured]
    rows.append([])
    if started is not None and started.frozen:
        rows.append([(" trained ", "label"), (started.trains, "")])
    if started is not None and started.path is not None:
        name = started.path.replace("\\", "/").rstrip("/").rpartition("/")[2]
        rows.append([(" run     ", "label"), (started.path, "")])
        more = f" --epochs {started.epochs * 2}" if ended.state == "finished" else ""
        if not started.own_loop:
            go_on: Row = [(" go on   ", "label"), (f"epochal resume {shlex.quote(name)}{more}", "strong")]
            if more and 0 < width < length(go_on):  # in two lines, which a shell takes as one
                rows.append([go_on[0], (f"{go_on[1][0].removesuffix(more)} \\", "strong")])
                go_on = [(" " * 8, ""), (more, "strong")]
            rows.append(go_on)
    return rows


def _rate(history: History) -> Row:
    """Steps over the time of the epochs that they filled."""
    rows = history.epochs if history.epochs and history.epochs[0].epoch == 1 else history.epochs[1:]
    before = 0 if rows is history.epochs else history.epochs[0].step if history.epochs else 0
    seconds = math.fsum(row.seconds for row in rows)
    return [(f"  {short((rows[-1].step - before) / seconds)} steps/s, val included", "label")] if seconds else []


def metric_rows(history: History) -> list[Row]:
    """Best and last of each; ★ marks the metric that decides which epoch is best. Errors and losses go down, scores up."""
    found = _measured(history)
    if not found:
        return []
    names, where = list(found), "epoch" if history.epochs else "step"
    head: Row = [(f" {left('metric', _width(names))}  {'best':>9}  {where:>5}  {'last':>9}", "label")]
    rows = [head]
    monitor = history.started.monitor if history.started else ""
    for name in names:
        measured = [pair for pair in found[name] if math.isfinite(pair[0])]
        down = history.started.mode == "min" if history.started and name == monitor else not _scores(name)
        value, at = (min if down else max)(measured, key=lambda pair: pair[0], default=(None, None))
        star = " ★" if name == monitor and measured else "  "
        rows.append(
            [(f" {left(name, _width(names))}  ", _role(name)), (f"{number(value):>9}", "strong"), (star, "mark"),
             (f"{at or '–':>5}  {number(_last(history, name)):>9}", "")]
        )  # fmt: skip
    return rows


def _measured(history: History) -> dict[str, list[tuple[float, int]]]:
    """Every value of each metric with its epoch; of a run that tells of none, of its points with their steps."""
    if not history.epochs:
        return {name: [(mean, step) for step, mean, _, _ in points] for name, points in history.series.items() if name != "lr"}
    names = dict.fromkeys(name for row in history.epochs for name in row.metrics)
    return {name: [(row.metrics[name], row.epoch) for row in history.epochs if name in row.metrics] for name in names}


def _last(history: History, name: str) -> float | None:
    if history.epochs:
        return history.epochs[-1].metrics.get(name)
    newest = history.series[name].newest
    return newest[1][1] if newest else None


def _width(names: list[str]) -> int:
    return max(8, *map(cell_len, names))


def _role(name: str) -> str:
    return {"train": "train", "val": "val"}.get(name.partition("/")[0], "")


_SCORES = ("acc", "precision", "recall", "f1", "fbeta", "auc", "auroc", "r2", "score", "specificity", "kappa", "jaccard", "iou",
           "pearson", "spearman", "dice", "corr", "similarity", "psnr", "ssim", "bleu", "rouge")  # fmt: skip


def _scores(name: str) -> bool:
    """Whether more of a metric is better, told by its name."""
    word = name.rpartition("/")[2].lower()
    return "error" not in word and "loss" not in word and any(score in word for score in _SCORES)
