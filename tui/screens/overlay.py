"""Several runs on one chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import Static

from tui.keys import bindings
from tui.others import Others
from tui.screens.base import Base, KeyLine
from tui.screens.charting import ChartKeys
from tui.widgets.chart import Chart

SECONDS = 0.5  # between two looks at what was read


class OverlayScreen(ChartKeys, Base):
    """The first run with all its curves, of each other one the validation, else the training. The keys are the chart's."""

    NAME = "overlay"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("overlay")]

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = paths
        self._told: set[str] = set()

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        chart = Chart(self.console_app.view)
        chart.head = "Chart"
        yield chart
        yield KeyLine("overlay")

    def on_mount(self) -> None:
        self._others = Others(self.console_app.engine, self._paths)
        self.query_one("#title", Static).update(
            Content.assemble(
                (" epochal", "bold $primary"), ("  runs", "bold"), (f" · {len(self._paths)} on one chart", "$text-muted")
            )
        )
        self.query_one(Chart).focus()
        self.set_interval(SECONDS, self._look)

    def on_unmount(self) -> None:
        self._others.close()

    def _look(self) -> None:
        for name, failure in self._others.failures.items():
            if name not in self._told:
                self._told.add(name)
                self.notify(failure, severity="error", markup=False)
        if named := self._others.named:
            chart = self.query_one(Chart)
            chart.run, chart.others = named[0][0], named[1:]
            chart.guarded(chart.show, named[0][1])

    def action_leave(self) -> None:
        """Take the cursor away; without one, back to the list."""
        if not self.query_one(Chart).drop_cursor():
            self.app.pop_screen()
