"""What the keys of a chart do, on any screen that has one."""

from __future__ import annotations

from pathlib import Path

from textual.screen import Screen

from tui.widgets import export
from tui.widgets.chart import Chart


class ChartKeys(Screen[None]):
    """Its actions are for the screen's chart."""

    @property
    def chart_path(self) -> Path | None:
        """Where it is written; None for the working directory."""
        return None

    def action_metric(self, step: int) -> None:
        """Draw another metric."""
        chart = self.query_one(Chart)
        chart.guarded(chart.cycle_metric, step)

    def action_smooth(self, step: int) -> None:
        """More (1), less (-1) or no (0) smoothing."""
        chart = self.query_one(Chart)
        chart.guarded({1: chart.smooth_more, -1: chart.smooth_less, 0: chart.smooth_none}[step])

    def action_log(self) -> None:
        """Logarithmic y axis, on or off."""
        chart = self.query_one(Chart)
        chart.guarded(chart.toggle_log)

    def action_across(self) -> None:
        """Count something else along the x axis."""
        chart = self.query_one(Chart)
        chart.guarded(chart.cycle_across)

    def action_recent(self) -> None:
        """The whole run or its newest part."""
        chart = self.query_one(Chart)
        chart.guarded(chart.toggle_recent)

    def action_outliers(self) -> None:
        """Clip outliers, or don't."""
        chart = self.query_one(Chart)
        chart.guarded(chart.toggle_clip)

    def action_zoom(self, step: int) -> None:
        """In (1) or out (-1)."""
        chart = self.query_one(Chart)
        chart.guarded(chart.zoom, 0.5 if step > 0 else 2.0)

    def action_pan(self, step: int) -> None:
        """Right (1) or left (-1)."""
        chart = self.query_one(Chart)
        chart.guarded(chart.pan, step / 4)

    def action_cursor(self, step: int) -> None:
        """Right (1), left (-1) or away (0)."""
        chart = self.query_one(Chart)
        chart.guarded(*(chart.move_cursor, step) if step else (chart.drop_cursor,))

    def action_write(self) -> None:
        """Write what is drawn to the run's directory, else to the working directory."""
        try:
            written = export.write(self.query_one(Chart).figure, self.chart_path)
        except OSError as error:
            self.notify(f"the chart can't be written: {error}", severity="error", markup=False)
        else:
            self.notify("written: " + " and ".join(map(str, written)), markup=False)
