"""What is known of the run under the cursor, below the list: its curves, what it reached, what it is."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal

from engine.errors import EpochalError
from engine.history import History
from engine.run.status import ALIVE
from engine.track.names import group
from tui.door import Engine
from tui.widgets.chart import Chart
from tui.widgets.curves import View
from tui.widgets.formats import cut
from tui.widgets.recipe_pane import recipe_rows
from tui.widgets.rows import Pane, Row
from tui.widgets.summary import metric_rows

REST = 0.15  # seconds that the cursor stays on a run before that is read
LOOK = 0.1  # between two looks at what was read
SLOW = 5  # looks after which a run that is not read yet takes the other one's place
SECONDS = 1.0  # between two readings of a run at work
REASON = 3  # lines of it
Beside = Sequence[tuple[str, Path]]  # more runs on the same chart, with what each is called there
ALWAYS = {"data.batch_size", "optimizer.lr", "training.epochs"}  # also where they are the default's


class Preview(Horizontal):
    """A thread reads one run at a time, and a run only where the cursor rests: the list is as quick as without it."""

    def __init__(self, engine: Engine, view: View) -> None:
        super().__init__()
        self._engine, self._view = engine, view
        self._run: Any = None
        self._metric: str | None = None  # None: the loss
        self._label = ""  # what the run is called where others are drawn with it
        self._beside: Beside = ()
        self._reader: _Reader | None = None
        self._drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        chart = Chart()
        chart.head = "Chart"
        yield chart
        yield Facts()

    def on_mount(self) -> None:
        for pane in self.query(Pane):
            pane.can_focus = False  # the keys are the list's
        self._rest = self.set_timer(REST, self._read, pause=True)
        self._looking = self.set_interval(LOOK, self._look, pause=True)

    def on_unmount(self) -> None:
        self.close()

    def on_resize(self) -> None:
        self._drawn = ()
        if self._reader is not None:
            self._looking.resume()

    @property
    def settled(self) -> bool:
        """Whether what is drawn is the run under the cursor, as far as it will be read."""
        return self._run is None or (self._reader is not None and self._reader.over and self._drawn[:1] == (self._reader,))

    def of(self, run: Any, metric: str | None, label: str = "", beside: Beside = ()) -> None:
        """Show this run, with this metric, when the cursor has rested on it; its chart has those `beside` it as well."""
        before, drawn_with = self._run, self._beside
        self._run, self._metric, self._label, self._beside = run, metric, label, beside
        same = run is not None and before is not None and _sight(before) == _sight(run) and drawn_with == beside
        if same and self._reader is not None:
            self._looking.resume()  # for the metric
            return
        self.close()
        if run is not None:
            self._rest = self.set_timer(REST, self._read)

    def plan(self, title: str, values: Mapping[str, Any]) -> None:
        """Show the recipe of what has not begun."""
        self.of(None, None)
        self.set_class(True, "-plan")
        self.query_one(Facts).guarded(self.query_one(Facts).tell_plan, title, values)

    def close(self) -> None:
        """Read no more; what is drawn stays."""
        self._rest.stop()
        self._looking.pause()
        if self._reader is not None:
            self._reader.closed.set()
            self._reader = None

    def _read(self) -> None:
        if self._run is None or self._reader is not None:  # a timer that was stopped too late
            return
        self._reader, self._looks = _Reader(self._engine, self._run.path, self._beside), 0
        self._looking.resume()

    def _look(self) -> None:
        reader = self._reader
        if reader is None:
            return
        self._looks += 1
        over, history = reader.over, reader.history
        if over:
            self._looking.pause()
        if not (reader.read or over or self._looks >= SLOW or not self._drawn):
            return
        versions = [(id(one), one.version) for one in (history, *(other for _, other in reader.others))]
        seen = reader, versions, reader.read, over, self._metric, self._run.reason
        if seen == self._drawn:
            return
        self._drawn = seen
        self.set_class(False, "-plan")
        chart, facts = self.query_one(Chart), self.query_one(Facts)
        metric = group(self._metric) if self._metric else "loss"
        chart.view = replace(self._view, metric=metric, recent=False)
        chart.run, chart.others = self._label, reader.others
        chart.guarded(chart.show, history)
        trouble = reader.failure or ("" if reader.read else "reading …")
        facts.guarded(facts.tell, self._run, self._label, history, reader.values, trouble)


class Facts(Pane):
    """Best and last of every metric, and the recipe's main points."""

    DEFAULT_CSS = """
    Facts { overflow: hidden hidden; }
    """
    BORDER_TITLE: ClassVar[str] = "Run"

    def __init__(self) -> None:
        super().__init__()
        self._planned: tuple[str, Mapping[str, Any]] | None = None

    def on_resize(self) -> None:
        super().on_resize()
        if self._planned is not None:
            self.tell_plan(*self._planned)

    def tell(self, run: Any, label: str, history: History, values: Mapping[str, Any], trouble: str) -> None:
        """What is known of a run; `trouble` where that is not all."""
        self._planned = None
        width = self.size.width or 40
        self.set_title(cut(label or run.name, width - 2))
        rows: list[Row] = [[(f" {line}", "warn")] for line in wrap(trouble, width - 2)]
        if run.state not in (*ALIVE, "finished"):
            rows += [
                [(f" {line}", "")] for line in wrap(run.reason or run.state, width - 2, max_lines=REASON, placeholder=" …")
            ]
        if measured := metric_rows(history):
            rows += [*([[]] if rows else []), *measured]
        if values:
            points = main_points(values, run.differs) if run.recipe else values
            rows += [*([[]] if rows else []), *_recipe(points, width)]
        self.set_rows(rows)

    def tell_plan(self, title: str, values: Mapping[str, Any]) -> None:
        """What is to be trained."""
        self._planned = title, values
        width = self.size.width or 40
        self.set_title(cut(title, width - 2))
        self.set_rows(_recipe(main_points(values, ()), width))


def _recipe(values: Mapping[str, Any], width: int) -> list[Row]:
    return [[(" ", ""), *row[1:]] for row in recipe_rows(values, {}, width)]


class _Reader:
    """One run, and those beside it, read by a thread, again and again while they are at work and looked at."""

    def __init__(self, engine: Engine, path: Path, beside: Beside) -> None:
        self.closed = threading.Event()
        self.history = History()
        self.others: tuple[tuple[str, History], ...] = ()
        self.values: Mapping[str, Any] = {}
        self.failure = ""
        self.read = False  # once at least
        self.over = False  # nothing more will come
        threading.Thread(target=self._work, args=(engine, path, beside), name="epochal-preview", daemon=True).start()

    def _work(self, engine: Engine, path: Path, beside: Beside) -> None:
        try:
            self.values = engine.recipe_of(path) or engine.config_of(path)
        except (EpochalError, OSError, ValueError) as error:  # its curves may be whole
            self.failure = f"its recipe can't be read: {error}"
        try:
            follower, others = engine.follower(path), [(name, engine.follower(other)) for name, other in beside]
            while not self.closed.is_set():
                for one in (follower, *(other for _, other in others)):
                    one.poll()
                self.others = tuple((name, other.history) for name, other in others)
                self.history, self.read = follower.history, True
                if not (follower.alive or any(other.alive for _, other in others)):
                    break
                self.closed.wait(SECONDS)
        except Exception as error:  # whatever is wrong with its files: the list goes on
            self.failure = f"it can't be read: {error}"
        self.over = True


def _sight(run: Any) -> tuple[object, ...]:
    """What changes where a run is to be read once more: one at work is followed."""
    live = run.state in ALIVE
    return run.path, live, None if live else (run.state, run.step, run.seconds)


def main_points(values: Mapping[str, Any], differs: Collection[str]) -> dict[str, Any]:
    """Of a recipe the names of its parts, what is not as in the default one, and what is asked for first."""
    wanted = {".".join(key.split(".")[:2]) for key in differs} | ALWAYS
    points: dict[str, Any] = {}
    for section, table in values.items():
        if not isinstance(table, Mapping):
            points |= {section: table} if section in wanted else {}
        elif kept := {key: value for key, value in table.items() if key == "name" or f"{section}.{key}" in wanted}:
            points[section] = kept
    return points
