"""The training screen: what a run does, polled from its history; keys that steer it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from engine.control import Control
from engine.history import History
from tui.keys import bindings
from tui.screens.base import Base, KeyLine
from tui.session import Session
from tui.terminal import Output
from tui.widgets.chart import Chart
from tui.widgets.device import DevicePane
from tui.widgets.epochs import EpochLog
from tui.widgets.formats import number
from tui.widgets.output import OutputPane
from tui.widgets.progress import RunProgress, TitleLine
from tui.widgets.recipe_pane import RecipePane
from tui.widgets.summary import Summary

SECONDS = 0.25  # between two looks at the history
SLOWEST = 2.0
SHARE = 0.05  # of the time that the screen may take from the training

PANES: dict[int, tuple[str, type[Widget]]] = {
    1: ("Chart", Chart),
    2: ("Recipe", RecipePane),
    3: ("Epochs", EpochLog),
    4: ("Device", DevicePane),
    5: ("Output", OutputPane),
    6: ("Summary", Summary),
}
LAST = 6  # is there once the run has ended


class Viewed:
    """A run on disk, only to be looked at."""

    def __init__(self, values: Mapping[str, Any], history: History, path: Path) -> None:
        self.values = values
        self.history = history
        self.path = path
        self.output = Output()
        printed = ""
        log = path / "output.log"
        if log.exists():
            with log.open("rb") as file:
                file.seek(max(0, log.stat().st_size - 500_000))
                printed = file.read().decode("utf-8", "replace")
        # A run without a console has its messages in the journal alone.
        told = [f"{message.level}: {message.text}\n" for message in history.messages if message.text not in printed]
        self.output.feed("".join([*told, printed]))


class TrainScreen(Base):
    """One run. Polls, never waits; repaints what changed; stays open at the end with the summary."""

    NAME = "train"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("train")]

    def __init__(self, shown: Session | Viewed) -> None:
        super().__init__(classes="-page1")
        self.shown = shown
        self.session = shown if isinstance(shown, Session) else None
        self._seen: tuple[object, ...] = ()
        self._read = self.session.output_start if self.session else 0  # of the printed text
        self._page = 1
        self._over = False
        self._spent = time.thread_time()

    def compose(self) -> ComposeResult:
        yield TitleLine()
        yield RunProgress()
        yield Static(id="tiny", markup=False)
        yield Static(self._tabs(), id="tabs")
        with Vertical(id="panes"):
            with Horizontal(id="top"):
                yield Chart(self.console_app.view)
                with Vertical(id="right"):
                    yield self._recipe()
                    yield DevicePane()
            with Horizontal(id="middle"):
                yield EpochLog()
                yield Summary()
            yield OutputPane()
        yield KeyLine("train")

    def on_mount(self) -> None:
        self.call_after_refresh(self.poll)

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self._seen = ()

    def on_screen_resume(self) -> None:
        self._seen = ()

    # drawing

    def poll(self) -> None:
        """Show what is new, then sleep so long that the screen keeps to its share of the time."""
        began, self._spent = self._spent, time.thread_time()
        # All this thread did since the last look: drawing, painting, keys. It ran while the training could not.
        cost = self._spent - began
        history = self.shown.history
        seen = (id(history), history.version, self._page, self.size)
        if self.is_current and seen != self._seen:
            self._seen = seen
            with self.app.batch_update():
                self._show(history)
        if self.is_current:
            self._show_output()
        self._tell()
        if not self._over and (self.session is None or not self.session.alive):
            self._end()
        self.set_timer(min(max(SECONDS, cost / SHARE), SLOWEST), self.poll)

    def _show(self, history: History) -> None:
        if self.has_class("-tiny"):
            self.query_one("#tiny", Static).update(one_line(history))
            return
        if (history.ended is not None) != self.has_class("-ended"):
            self.set_class(history.ended is not None, "-ended")
            self.query_one(KeyLine).of = "train" if history.ended is None else "over"
            self.query_one("#tabs", Static).update(self._tabs())
        self.query_one(TitleLine).show(history)
        self.query_one(RunProgress).show(history)
        if (chart := self.query_one(Chart)).is_on_screen:
            chart.show(history)
        for kind in (EpochLog, DevicePane, Summary):
            for pane in self.query(kind):
                if pane.is_on_screen or kind is Summary:
                    pane.show(history)

    def _show_output(self) -> None:
        end = self.shown.output.end
        if end != self._read:
            text, self._read = self.shown.output.since(self._read), end
            self.query_one(OutputPane).add(text)

    def _tell(self) -> None:
        while self.session is not None and self.session.news:
            message = self.session.news.popleft()
            self.notify(message.text, severity="error" if message.level == "error" else "warning", timeout=10, markup=False)

    def _end(self) -> None:
        self._over = True
        self._seen = ()
        if self.session is not None:
            self.console_app.ended(self.session)

    def _tabs(self) -> Content:
        parts: list[tuple[str, str]] = []
        for n, (title, _) in PANES.items():
            if n != LAST or self.has_class("-ended"):
                parts += [(f" {n} {title} ", "reverse bold" if n == self._page else "$text-muted"), (" ", "")]
        return Content.assemble(" ", *parts)

    def _recipe(self) -> RecipePane:
        pane = RecipePane()
        pane.show_recipe(self.shown.values, self.console_app.engine.complete({}))
        return pane

    # keys

    def action_pane(self, n: int) -> None:
        """Give pane n the keyboard; on a small screen show it."""
        if n == LAST and not self.has_class("-ended"):
            self.notify("the summary comes at the end of the run")
            return
        self.remove_class(f"-page{self._page}")
        self._page = n
        self.add_class(f"-page{n}")
        self.query_one("#tabs", Static).update(self._tabs())
        self._seen = ()
        pane: Widget = self.query_one(PANES[n][1])
        self.set_focus(pane)
        self.call_after_refresh(self._show, self.shown.history)

    def action_pause(self) -> None:
        """Pause, or go on."""
        if control := self._control():
            if control.paused:
                control.resume()
                self.notify("going on")
            else:
                control.pause()
                self.notify("pausing after this step")

    def action_stop(self) -> None:
        """Stop after this step, with a checkpoint."""
        if control := self._control():
            control.stop()
            self.notify("stopping after this step, then saving")

    def action_checkpoint(self) -> None:
        """Write a checkpoint after this step."""
        if control := self._control():
            control.checkpoint()
            self.notify("a checkpoint after this step")

    def action_validate(self) -> None:
        """Validate after this step."""
        if control := self._control():
            control.validate()
            self.notify("validating after this step")

    def action_metric(self, step: int) -> None:
        """Draw another metric."""
        self.query_one(Chart).cycle_metric(step)

    def action_smooth(self, step: int) -> None:
        """More (1), less (-1) or no (0) smoothing."""
        chart = self.query_one(Chart)
        {1: chart.smooth_more, -1: chart.smooth_less, 0: chart.smooth_none}[step]()

    def action_log(self) -> None:
        """Logarithmic y axis, on or off."""
        self.query_one(Chart).toggle_log()

    def _control(self) -> Control | None:
        """The run's control, or None, and then the person is told why."""
        if self.session is not None and self.session.alive:
            return self.session.control
        self.notify("this run is over: n for a new one, a for all runs" if self.session else "this run is only looked at here")
        return None


def one_line(history: History) -> str:
    """All there is room for on a very small screen."""
    parts = [history.state]
    if history.started is not None and history.progress is not None:
        parts.append(f"epoch {history.progress.epoch}/{history.started.epochs}")
    if history.epochs:
        parts += [f"{name.replace('/', ' ')} {number(value)}" for name, value in list(history.epochs[-1].metrics.items())[:2]]
    return " · ".join(parts)
