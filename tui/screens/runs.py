"""All runs below the runs' directory: look at one, or go on with it."""

from __future__ import annotations

import contextlib
import platform
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.coordinate import Coordinate
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


LIVE = ("starting", "running", "paused")
SECONDS = 2.0  # between two readings of the directories
COLUMNS = ("", "run", "state", "epoch", "best", "trained")


class RunsScreen(Base):
    """A table of runs, those at work first, then the newest.

    It is read again every two seconds, by a thread: there may be many directories, on a slow file system.
    """

    NAME = "runs"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("runs")]

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=False)
        yield Static("", id="empty", markup=False)
        yield KeyLine("runs")

    def on_mount(self) -> None:
        self._runs: dict[str, Any] = {}
        self._shown: list[list[str]] | None = None  # the cells
        self._found: list[Any] | None = None  # by the thread
        self._reading: threading.Thread | None = None
        self.query_one(DataTable).focus()
        self.set_interval(SECONDS / 8, self._look)
        self.set_interval(SECONDS, self._read)

    def on_screen_resume(self) -> None:
        self.action_reload()

    def action_reload(self) -> None:
        """Read the runs' directories again; the cursor stays on its run."""
        try:
            self._show(self.console_app.engine.list_runs())
        except EpochalError as error:
            self.notify(str(error), severity="error", markup=False)

    def _read(self) -> None:
        if self.is_current and (self._reading is None or not self._reading.is_alive()):
            self._reading = threading.Thread(target=self._list, name="epochal-runs", daemon=True)
            self._reading.start()

    def _list(self) -> None:
        with contextlib.suppress(EpochalError):  # told where the person asks for it
            self._found = self.console_app.engine.list_runs()

    def _look(self) -> None:
        if self._found is not None:
            found, self._found = self._found, None
            self._show(found)

    def _show(self, runs: Sequence[Any]) -> None:
        at, before = self._at(), list(self._runs)
        self._runs = {str(run.path): run for run in runs}
        hosts = any(_elsewhere(run) for run in runs)
        rows = [_cells(run) + ([_elsewhere(run)] if hosts else []) for run in runs]
        table = self.query_one(DataTable)
        heads = [*COLUMNS, *(["host"] if hosts else [])]
        if rows == self._shown and before == list(self._runs):
            return
        if before == list(self._runs) and len(table.columns) == len(heads):
            for y, (old, new) in enumerate(zip(self._shown or [], rows, strict=True)):
                for x, cell in enumerate(new):
                    if cell != old[x]:
                        table.update_cell_at(Coordinate(y, x), cell, update_width=True)
        else:
            top = table.scroll_y
            table.clear(columns=True)
            table.add_columns(*heads)
            for key, cells in zip(self._runs, rows, strict=True):
                table.add_row(*cells, key=key)
            if at in self._runs:
                table.move_cursor(row=list(self._runs).index(at), scroll=False)
                table.scroll_to(y=top, animate=False, force=True)
                table.call_after_refresh(table.move_cursor, row=list(self._runs).index(at))
        self._shown = rows
        self._entitle()

    def _entitle(self) -> None:
        count = len(self._runs)
        live = sum(run.state in LIVE for run in self._runs.values())
        self.query_one("#title", Static).update(
            Content.assemble(
                (" epochal", "bold $primary"),
                ("  runs", "bold"),
                (f" · {count} in {self.console_app.engine.root}", "$text-muted"),
                (f" · {live} at work" if live else "", "$text-success"),
            )
        )
        empty = self.query_one("#empty", Static)
        empty.update("\n  No run yet. n opens the form, r there starts one.")
        empty.display, self.query_one(DataTable).display = not count, bool(count)

    def _at(self) -> str:
        """The path of the run under the cursor."""
        table = self.query_one(DataTable)
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def on_data_table_row_selected(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Look at the run under the cursor; at one that is at work, follow it."""
        if run := self._runs.get(self._at()):
            self.console_app.follow(run.path)

    def action_resume(self) -> None:
        """Go on with the run under the cursor."""
        run = self._runs.get(self._at())
        if run is None:
            return
        if self.console_app.training:
            self.notify("a run is training: t goes back to it, s there stops it", severity="warning")
        elif run.state in LIVE:
            where = f" on {run.host}" if _elsewhere(run) else ""
            said = f"{run.name} is being trained by process {run.pid}{where}: Enter attaches to it"
            self.notify(said, severity="warning", markup=False)
        elif run.state == "finished":
            self.app.push_screen(AskEpochs(run.epoch), lambda epochs: self._resume(run, epochs) if epochs else None)
        else:
            self._resume(run, None)

    def _resume(self, run: Any, epochs: int | None) -> None:
        try:
            values = self.console_app.engine.recipe_of(run.path)
        except (EpochalError, OSError, ValueError) as error:
            self.notify(f"{run.name} can't be read: {error}", severity="error")
            return
        if not values:
            self.notify(f"{run.name} has no recipe: it was made by a program and is resumed by it", severity="warning")
            return
        if epochs is not None:
            values.setdefault("training", {})["epochs"] = epochs
        self.console_app.resume_run(run.path, epochs, values)


def _elsewhere(run: Any) -> str:
    """The host of a run at work, where it is not this one."""
    return run.host if run.state in LIVE and run.host != platform.node() else ""


def _cells(run: Any) -> list[str]:
    value = run.best.get(run.monitor) if run.best else None
    best = f"{run.monitor.replace('/', ' ')} {number(value)} at {run.best['epoch']:.0f}" if value is not None else "–"
    of = f"/{run.epochs}" if run.epochs else ""
    return [SYMBOLS.get(run.state, "?"), run.name, run.state, f"{run.epoch}{of}", best, clock(run.seconds)]
