"""All runs below the runs' directory: look at one, or go on with it."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import DataTable, Static

from engine.errors import EpochalError
from tui.keys import bindings
from tui.screens.base import Base, KeyLine
from tui.screens.quit import AskEpochs
from tui.widgets.formats import clock, number

SYMBOLS = {
    "starting": "◌", "running": "●", "paused": "‖", "finished": "✓", "stopped": "■", "failed": "✗", "died": "✗",
    "unreadable": "?",
}  # fmt: skip


class RunsScreen(Base):
    """A table of runs, the newest first."""

    NAME = "runs"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("runs")]

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=False)
        yield Static("", id="empty", markup=False)
        yield KeyLine("runs")

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        table.add_columns("", "run", "state", "epoch", "best", "trained")
        self.action_reload()
        table.focus()

    def on_screen_resume(self) -> None:
        if self.query_one(DataTable).columns:
            self.action_reload()

    def action_reload(self) -> None:
        """Read the runs' directories again; the cursor stays on its run."""
        table = self.query_one(DataTable)
        at = self._at()
        table.clear()
        self._runs: dict[str, Any] = {}
        try:
            self._runs = {str(run.path): run for run in self.console_app.engine.list_runs()}
        except EpochalError as error:
            self.notify(str(error), severity="error")
        for key, run in self._runs.items():
            table.add_row(*_cells(run), key=key)
        if at in self._runs:
            table.move_cursor(row=list(self._runs).index(at))
        count = len(self._runs)
        self.query_one("#title", Static).update(
            Content.assemble(
                (" epochal", "bold $primary"),
                ("  runs", "bold"),
                (f" · {count} in {self.console_app.engine.root}", "$text-muted"),
            )
        )
        empty = self.query_one("#empty", Static)
        empty.update("\n  No run yet. n opens the form, r there starts one.")
        empty.display, table.display = not count, bool(count)

    def _at(self) -> str:
        """The path of the run under the cursor."""
        table = self.query_one(DataTable)
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def on_data_table_row_selected(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Look at the run under the cursor."""
        if run := self._runs.get(self._at()):
            try:
                self.console_app.look_at(run.path)
            except (EpochalError, OSError, ValueError) as error:
                self.notify(f"{run.name} can't be read: {error}", severity="error")

    def action_resume(self) -> None:
        """Go on with the run under the cursor."""
        run = self._runs.get(self._at())
        if run is None:
            return
        if self.console_app.training:
            self.notify("a run is training: t goes back to it, s there stops it", severity="warning")
        elif run.state in ("starting", "running", "paused"):
            self.notify(f"{run.name} is {run.state} in another process", severity="warning")
        elif run.state == "finished":
            self.app.push_screen(AskEpochs(run.epoch), lambda epochs: self._resume(run, epochs) if epochs else None)
        else:
            self._resume(run, None)

    def _resume(self, run: Any, epochs: int | None) -> None:
        try:
            values, _ = self.console_app.engine.open_run(run.path)
        except (EpochalError, OSError, ValueError) as error:
            self.notify(f"{run.name} can't be read: {error}", severity="error")
            return
        if not values:
            self.notify(f"{run.name} has no recipe: it was made by a program and is resumed by it", severity="warning")
            return
        if epochs is not None:
            values.setdefault("training", {})["epochs"] = epochs
        self.console_app.resume_run(run.path, epochs, values)


def _cells(run: Any) -> list[str]:
    value = run.best.get(run.monitor) if run.best else None
    best = f"{run.monitor.replace('/', ' ')} {number(value)} at {run.best['epoch']:.0f}" if value is not None else "–"
    of = f"/{run.epochs}" if run.epochs else ""
    return [SYMBOLS.get(run.state, "?"), run.name, run.state, f"{run.epoch}{of}", best, clock(run.seconds)]
