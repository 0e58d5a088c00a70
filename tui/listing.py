"""The list of runs as a person arranged it: filter, order, metric; and its rows of cells."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.run.about import in_short
from engine.run.choose import SORTS, fits, smaller_is_better
from engine.run.status import ALIVE
from tui.widgets.formats import number, took

SYMBOLS = {
    "starting": "◌", "running": "●", "paused": "‖", "finished": "✓", "stopped": "■", "failed": "✗", "died": "✗",
    "pruned": "▽", "unreadable": "?", "recorded": "▪",
}  # fmt: skip
COLUMNS = {"run": "run", "state": "state", "epoch": "epoch", "best": "best", "trained": "time"}  # with what each is sorted by
ORDERS = (None, "best", "run", "state", "epoch", "time", "tag")  # None: those at work first, then the newest
NARROW = ("run", "epoch", "best")  # the columns of a narrow list
Best = Mapping[Any, tuple[float, int]]  # by path: a run's best value of the metric, and its epoch


@dataclass(slots=True)
class Listing:
    """What a person chose to see; it outlives the screen that shows it."""

    text: str = ""
    order: str | None = None
    reverse: bool = False
    narrow: bool = False  # whether there is room for the most important columns alone
    metric: str | None = None  # None: that by which each run was judged
    preview: bool = True  # of the run under the cursor, where there is room

    def next_order(self) -> None:
        """Sort by the next column."""
        self.order, self.reverse = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)], False

    def next_metric(self, step: int, runs: Sequence[Any]) -> None:
        """Show the best of the next metric that any run has."""
        names = dict.fromkeys(key for run in runs for key in run.best if "/" in key)
        choices = [None, *sorted(names, key=lambda name: (not name.startswith("val/"), name))]
        at = choices.index(self.metric) if self.metric in choices else 0
        self.metric = choices[(at + step) % len(choices)]

    def smaller(self, runs: Sequence[Any]) -> bool:
        """Whether the least value of the metric is the best."""
        return self.metric is not None and smaller_is_better(self.metric, runs)

    def arranged(self, runs: Sequence[Any], best: Best) -> list[Any]:
        """The runs to be shown, in order."""
        chosen = [run for run in runs if fits(run, self.text)]
        if self.order is None:
            return chosen[::-1] if self.reverse else chosen
        key = SORTS[self.order]
        if self.order == "best" and self.metric is not None:
            sign = 1 if self.smaller(runs) else -1
            key = lambda run: sign * best[run.path][0] if run.path in best else math.inf  # noqa: E731
        return sorted(chosen, key=key, reverse=self.reverse)

    def heads(self, runs: Sequence[Any]) -> list[str]:
        """The columns' names, with an arrow on the one that they are sorted by."""
        if self.narrow:
            monitors = {run.monitor for run in runs if run.best}
            of = monitors.pop() if len(monitors) == 1 else ""  # there is no room for it beside every value
            return ["", *(self._head(name, COLUMNS[name], of) for name in NARROW), "not as the default"]
        heads = ["", *(self._head(name, by) for name, by in COLUMNS.items())]
        if any(map(elsewhere, runs)):
            heads.append("host")
        if any(run.tag for run in runs):
            heads.append(self._head("tag", "tag"))
        return [*heads, "not as the default"]

    def _head(self, name: str, by: str, of: str = "") -> str:
        of = self.metric or of
        shown = f"best {of.replace('/', ' ')}" if name == "best" and of else name
        return f"{shown} {'▲' if self.reverse else '▼'}" if self.order == by else shown

    def cells(self, run: Any, runs: Sequence[Any], best: Best, marked: Collection[str], ghost: str) -> list[str]:
        """A run's row."""
        flags = ("◆" if str(run.path) in marked else "") + ("b" if str(run.path) == ghost else "")
        of = f"/{run.epochs}" if run.epochs else ""
        if self.narrow:  # the symbol has the state, the line below the list all the rest
            best_one = self._best(run, best)
            value = best_one.rpartition(" at ")[0].rpartition(" ")[2] or best_one
            return [flags + SYMBOLS.get(run.state, "?"), run.name, f"{run.epoch}{of}", value, in_short(run.differs)]
        cells = [flags + SYMBOLS.get(run.state, "?"), run.name, run.state, f"{run.epoch}{of}", self._best(run, best),
                 took(run.seconds)]  # fmt: skip
        if any(map(elsewhere, runs)):
            cells.append(elsewhere(run))
        if any(run.tag for run in runs):
            cells.append(run.tag)
        return [*cells, in_short(run.differs)]

    def _best(self, run: Any, best: Best) -> str:
        if self.metric is not None:
            return f"{number(best[run.path][0])} at {best[run.path][1]}" if run.path in best else "–"
        value = run.best.get(run.monitor) if run.best else None
        if value is None:
            return "–"
        at = f"{run.best['epoch']:.0f}" if run.best["epoch"] or "step" not in run.best else f"step {run.best['step']:.0f}"
        return f"{run.monitor.replace('/', ' ')} {number(value)} at {at}"


def elsewhere(run: Any) -> str:
    """The host of a run at work, where it is not this one."""
    return run.host if run.state in ALIVE and run.host != platform.node() else ""


def told(run: Any) -> tuple[str, str]:
    """Two lines on a run: where it comes from and what it is called, and what its recipe has of its own."""
    parts = [
        run.state,
        f"fork of {run.parent} at step {run.parent_step:,}" if run.parent else "",
        run.tag and f"tag {run.tag}",
        run.reason,
        f"{took(run.seconds)} trained" if run.seconds else "",
        elsewhere(run) and f"on {run.host}",
    ]
    return " · ".join(filter(None, parts)) or run.name, in_short(run.differs) or (
        "the default recipe" if run.recipe else "no recipe"
    )
