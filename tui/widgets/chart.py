"""The chart pane: one metric of the run, training and validation together."""

from __future__ import annotations

from typing import ClassVar

from engine.history import History
from engine.track.names import group
from tui.widgets.curves import ACROSS, View
from tui.widgets.figure import Figure, compose, end
from tui.widgets.plot import columns
from tui.widgets.rows import Pane
from tui.widgets.traces import Traces, metrics_of

SMOOTHING = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
LEGEND_FROM = 8  # rows from which one goes to the legend
LEAST = 4  # steps that a zoomed chart spans at least


class Chart(Pane):
    """Curves of the run so far, and of `others` beside it.

    The training curve's smoothed line is computed once on all points, and so is the same at any width and in any part. Behind
    it stand loose dots, for each column the mean, the lowest and the highest of what it covers: no spike is lost.
    """

    DEFAULT_CSS = """
    Chart { overflow: hidden hidden; }
    """
    BORDER_TITLE: ClassVar[str] = "1 Chart"

    def __init__(self, view: View | None = None, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.view = view or View()
        self.head = self.BORDER_TITLE  # what its title begins with
        self.run = ""  # its name, where there are others
        self.others: tuple[tuple[str, History], ...] = ()  # more runs by name; `update_chart` after a change
        self.window: tuple[float, float] | None = None  # first and last step of the part shown, None for all or the newest
        self.cursor: float | None = None  # a step
        self._history = History()
        self._drawn: tuple[object, ...] = ()
        self._traces = Traces()
        self._figure: Figure | None = None

    def show(self, history: History) -> None:
        """Draw what is new in `history`."""
        self._history = history
        self.update_chart()

    @property
    def metric(self) -> str:
        """What is drawn: the person's choice, or the loss where this run has no such metric."""
        return self.view.metric if self.view.metric in metrics_of(self._history) else "loss"

    @property
    def smoothing(self) -> float:
        """The weight of the smoothed line's past, 0 for none."""
        return self.view.smoothing

    @property
    def figure(self) -> Figure:
        """What is drawn, or would be if there were room for it."""
        if self._figure is None:
            self._figure = self._make()
        return self._figure

    # choices

    def cycle_metric(self, step: int = 1) -> None:
        """Show the next metric, or with -1 the one before."""
        names = metrics_of(self._history)
        self.view.metric = names[(names.index(self.metric) + step) % len(names)]
        self.update_chart()

    def toggle_log(self) -> None:
        """Change between a logarithmic and a linear y axis, for the metric shown."""
        self.view.log[self.metric] = not self.figure.log_y
        self.update_chart()

    def toggle_clip(self) -> None:
        """Leave out of the y axis what lies far off, or take it in again."""
        self.view.clip = not self.view.clip
        self.update_chart()

    def cycle_across(self) -> None:
        """Count steps, epochs or seconds along the x axis, whichever of them the run knows."""
        kinds = [kind for kind in ACROSS if self._traces.across(self.run, self._history, kind).kind == kind]
        now = kinds.index(self.view.across) if self.view.across in kinds else 0
        self.view.across = kinds[(now + 1) % len(kinds)]
        self.update_chart()

    def smooth_more(self) -> None:
        self._smooth(next((weight for weight in SMOOTHING if weight > self.smoothing), SMOOTHING[-1]))

    def smooth_less(self) -> None:
        self._smooth(next((weight for weight in reversed(SMOOTHING) if weight < self.smoothing), 0.0))

    def smooth_none(self) -> None:
        self._smooth(0.0)

    def _smooth(self, weight: float) -> None:
        self.view.smoothing = weight
        self.update_chart()

    # the part that is shown

    def toggle_recent(self) -> None:
        """The newest part or the whole; from any other part the whole."""
        self.view.recent = self.window is None and not self.view.recent
        self.window = None
        self.update_chart()

    def zoom(self, factor: float) -> None:
        """Show `factor` times as many steps, around the cursor if there is one."""
        left, right = self._span()
        whole = self._whole()
        span = max((right - left) * factor, min(LEAST, whole))
        middle = self.cursor if self.cursor is not None and left <= self.cursor <= right else (left + right) / 2
        self._look_at(middle - (middle - left) / (right - left) * span, span)

    def pan(self, parts: float) -> None:
        """Move by so many times what is shown."""
        left, right = self._span()
        self._look_at(left + parts * (right - left), right - left)

    def _look_at(self, left: float, span: float) -> None:
        whole = self._whole()
        if span >= whole * (1 - 1e-9):
            self.window = None
            self.view.recent = False
        else:
            left = min(max(left, 0.0), whole - span)
            self.window = left, left + span
        self.update_chart()

    def _span(self) -> tuple[float, float]:
        """What is shown, in steps."""
        figure = self.figure
        return self.window or (max(0.0, figure.across.back(figure.left)), figure.across.back(figure.right))

    def _whole(self) -> float:
        """Where the axis of the whole run ends, in steps."""
        figure = self.figure
        return figure.across.back(end(self._history, figure.traces, figure.across))

    # the cursor

    def move_cursor(self, columns_on: int) -> None:
        """To the next point that is at least a column away, or with -1 the one before; at first to the newest in sight."""
        figure = self.figure
        trace = max(figure.traces[:2], key=lambda trace: len(trace.steps), default=None)
        if trace is None:
            return
        seen = [(x, step) for x, step in zip(trace.x, trace.steps, strict=True) if figure.left <= x <= figure.right]
        if not seen:
            return
        if self.cursor is None:
            self.cursor = seen[-1][1]
        else:
            here, column = figure.across(self.cursor), (figure.right - figure.left) / columns(max(1, self.size.width))
            if columns_on > 0:
                self.cursor = next((step for x, step in seen if x >= here + column and step > self.cursor), seen[-1][1])
            else:
                before = (step for x, step in reversed(seen) if x <= here - column and step < (self.cursor or 0))
                self.cursor = next(before, seen[0][1])
        self.update_chart()

    def drop_cursor(self) -> bool:
        """Take it away; whether there was one."""
        there, self.cursor = self.cursor is not None, None
        self.update_chart()
        return there

    # drawing

    def on_resize(self) -> None:
        self.update_chart()

    def on_show(self) -> None:
        self.update_chart()

    def _make(self) -> Figure:
        return compose(
            [(self.run, self._history), *self.others], self.metric, self.view, max(1, self.size.width), window=self.window,
            cursor=self.cursor, ascii=self._ascii, traces=self._traces,
        )  # fmt: skip

    def update_chart(self) -> None:
        """Draw, if there is anything to draw that is not on the screen."""
        if not self.is_mounted or not self.is_on_screen:
            self._figure = None
            return  # `on_show` catches up
        key = (self._state(self._history), *((name, self._state(other)) for name, other in self.others), self.size, self.metric,
               repr(self.view), self.window, self.cursor)  # fmt: skip
        if key == self._drawn:
            return
        self._drawn = key
        width, height = self.size
        self._figure = figure = self._make()
        self.set_title(f"{self.head} ── {figure.heading(width - len(self.head) - 8)}")
        legend = [figure.legend(width)] if height >= LEGEND_FROM else []
        if legend and not figure.names_runs(legend[0]):  # whose curve is which, before all else
            legend = figure.legend_rows(width)[: 1 + (height - LEGEND_FROM) // 5]
        reading = figure.reading(width, 2 if height >= 2 * LEGEND_FROM else 1)
        self.set_rows([*legend, *figure.rows(width, height - len(legend) - len(reading)), *reading])

    def _state(self, history: History) -> tuple[object, ...]:
        """All of a run that a chart may show."""
        newest = tuple((name, repr(curve.newest)) for name, curve in history.series.items() if self._drawable(name))
        best = history.best.step if history.best is not None else None
        counts = len(history.settings), len(history.rewinds), len(history.holds), len(history.checkpoints)
        return id(history), newest, best, counts, history.started and history.started.total_steps

    def _drawable(self, name: str) -> bool:
        return group(name) == self.metric or (name == "lr" and self.cursor is not None)
