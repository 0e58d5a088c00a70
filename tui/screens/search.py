"""A search, followed from outside while others train: its trials, the best first, the best so far, and what mattered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import DataTable, Static

from engine.errors import EpochalError
from engine.sweep import shortened
from tui.background import Starting
from tui.keys import bindings
from tui.listing import SYMBOLS
from tui.screens.base import Base, KeyLine, under_cursor
from tui.widgets.board import BestPane, WeightsPane
from tui.widgets.formats import clock, number

if TYPE_CHECKING:
    from engine.search.board import Board, Row
    from tui.door import Watches

SECONDS = 1.0  # between two readings
SIGNS = {**SYMBOLS, "waiting": "·", "interrupted": "‖"}
FEW = 5  # runs on one chart


class SearchScreen(Base):
    """Read again every second, by a thread."""

    NAME = "search"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("search")]

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._path = path  # None: the newest
        self._all: list[Path] = []
        self._board: Board | None = None
        self._rows: list[list[str]] = []
        self._heads: list[str] = []
        self._found: tuple[list[Path], Board | None] | None = None  # by the thread
        self._failure = ""
        self._watches: dict[Path, Watches] = {}
        self._said: deque[tuple[str, str]] = deque()
        self._reading: threading.Thread | None = None
        self._starting: Starting | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield DataTable(cursor_type="row", zebra_stripes=False)
        yield Static("\n reading …", id="empty", markup=False)
        yield Static("", id="about", markup=False)
        with Horizontal(id="below"):
            yield BestPane()
            yield WeightsPane()
        yield KeyLine("search")

    def on_mount(self) -> None:
        self.query_one(DataTable).focus()
        self.query_one(DataTable).display = False
        self.set_interval(SECONDS / 8, self._look)
        self.set_interval(SECONDS, self._read)

    def on_screen_resume(self) -> None:
        self._read()

    # reading

    def _read(self) -> None:
        if self.is_current and (self._reading is None or not self._reading.is_alive()):
            self._reading = threading.Thread(target=self._list, name="epochal-search", daemon=True)
            self._reading.start()

    def _list(self) -> None:
        engine, path = self.console_app.engine, self._path
        try:
            searches = engine.searches()
            path = path or (searches[0] if searches else None)
            again = path in self._watches  # importance needs libraries that take a moment: the table is there before
            if path is not None and not again:
                self._watches[path] = engine.watch_search(path)
            self._found = searches, None if path is None else self._watches[path].read(importance=again)
            self._failure = ""
        except EpochalError as error:
            self._found, self._failure = ([], None), str(error)

    def _look(self) -> None:
        if not self.is_current:
            return
        while self._said:
            text, severity = self._said.popleft()
            self.notify(text, severity=severity, markup=False)  # type: ignore[arg-type]
        if self._starting is not None and (begun := self._starting.poll()) is not None:
            self._starting = None
            if begun.failure:
                self.notify(begun.failure, severity="error", markup=False)
            self._read()
        if self._found is not None:
            (self._all, board), self._found = self._found, None
            if board is not None:
                self._path = Path(board.path)
            self._board = board
            self._show()

    # showing

    def _show(self) -> None:
        board, table = self._board, self.query_one(DataTable)
        empty = self.query_one("#empty", Static)
        rows = [] if board is None else [self._cells(board, row) for row in board.rows]
        table.display, empty.display = bool(rows), not rows
        if not rows:
            none = "There is no search yet. Open a recipe with a [search] in the form: r begins it. Esc goes back."
            said = self._failure or ("no trial has begun yet" if board is not None else none)
            empty.update(f"\n {said}")
        heads = self._columns(board)
        if heads != self._heads or [row[1] for row in rows] != [row[1] for row in self._rows]:
            at = self._at()
            table.clear(columns=True)
            table.add_columns(*heads)
            for cells in rows:
                table.add_row(*map(Text, cells), key=cells[1])
            if at in (places := [row[1] for row in rows]):
                table.move_cursor(row=places.index(at))
        else:
            for y, (old, new) in enumerate(zip(self._rows, rows, strict=True)):
                for x, cell in enumerate(new):
                    if cell != old[x]:
                        table.update_cell_at((y, x), Text(cell), update_width=True)  # type: ignore[arg-type]
        self._heads, self._rows = heads, rows
        self._entitle()
        self._tell()
        self.query_one(BestPane).of(board)
        self.query_one(WeightsPane).of(board)

    def _columns(self, board: Board | None) -> list[str]:
        if board is None:
            return ["", "trial"]
        names = ["values"] if self.has_class("-small") else [*shortened(dict.fromkeys(board.space)), "time"]
        return ["", "trial", board.metric.replace("/", " "), "epoch", "state", *names]

    def _cells(self, board: Board, row: Row) -> list[str]:
        from engine.search.board import said

        best = board.best is not None and row.number == board.best.number
        value = "–" if row.value is None else number(row.value)
        cells = ["★" if best else SIGNS.get(row.state, "?"), str(row.number), value, str(row.epoch or "–"), row.state]
        if self.has_class("-small"):
            return [*cells, row.label]
        return [*cells, *(said(row.params[key]) if key in row.params else "–" for key in board.space), clock(row.seconds)]

    def _entitle(self) -> None:
        board = self._board
        if board is None:
            self.query_one("#title", Static).update(Content.assemble((" epochal", "bold $primary"), ("  searches", "bold")))
            return
        colour = {"searching": "$text-success", "finished": "$text-muted"}.get(board.state, "$text-warning")
        state = "stopped: r goes on" if board.state == "stopped" else board.state
        if self._starting is not None:
            state = "is being started …"
        at = (
            f" ({self._all.index(self._path) + 1} of {len(self._all)})"
            if self._path in self._all and len(self._all) > 1
            else ""
        )
        self.query_one("#title", Static).update(
            Content.assemble(
                (" epochal", "bold $primary"),
                (f"  search {board.name}", "bold"),
                (at, "$text-muted"),
                (f" · {state}", colour),
                (f" · {board.summary}", "$text-muted"),
            )
        )

    def _tell(self) -> None:
        """How it is searched, and of the trial under the cursor what has no room in its row."""
        board, row = self._board, self._row()
        lines = ["", ""]
        if row is not None:
            words = [f"trial {row.number} {row.state}", row.why, row.label]
            lines[0] = " · ".join(filter(None, words))
        if board is not None:
            space = ", ".join(f"{key} {axis}" for key, axis in board.space.items())
            lines[1] = f"{board.direction} {board.metric} · {board.sampler}, {board.pruner} · {space}"
        self.query_one("#about", Static).update(Content.assemble((f" {lines[0]}\n", ""), (f" {lines[1]}", "$text-muted")))

    @on(DataTable.RowHighlighted)
    def _moved(self) -> None:
        if self.is_current:
            self._tell()

    # what is under the cursor

    def _at(self) -> str:
        return under_cursor(self.query_one(DataTable))

    def _row(self) -> Row | None:
        at = self._at()
        return next((row for row in self._board.rows if str(row.number) == at), None) if self._board is not None else None

    def copies(self) -> list[tuple[str, str]]:
        """The search's folder, its command, and the trial's run."""
        row = self._row()
        command = "" if self._path is None else f"epochal search {self._path.name}"
        return [("path", str(self._path or "")), ("command", command), ("run", "" if row is None else row.run)]

    # acting

    def action_leave(self) -> None:
        """Back to where one came from."""
        self.app.pop_screen()

    def action_search(self, step: int) -> None:
        """Another search."""
        if len(self._all) < 2:
            self.notify("there is no other search")
        elif self._path is not None:
            at = self._all.index(self._path) if self._path in self._all else 0
            self._path = self._all[(at + step) % len(self._all)]
            self._read()

    def on_data_table_row_selected(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Look at the run of the trial under the cursor."""
        row = self._row()
        if row is not None and row.run and Path(row.run).is_dir():
            self.console_app.follow(Path(row.run))
        elif row is not None:
            self.notify("its run has not begun yet" if not row.run else "its run is not there any more")

    def action_overlay(self) -> None:
        """Draw the runs of the best trials on one chart."""
        from tui.screens.overlay import OverlayScreen

        rows = self._board.rows if self._board is not None else ()
        paths = [Path(row.run) for row in rows if row.run and Path(row.run).is_dir()][:FEW]
        if paths:
            self.app.push_screen(OverlayScreen(paths))
        else:
            self.notify("no trial has begun yet")

    async def action_recipe(self) -> None:
        """Open the form with the recipe of the trial under the cursor."""
        row = self._row()
        if row is None or not row.run:
            self.notify("its run has not begun yet")
            return
        try:
            values = self.console_app.engine.recipe_of(Path(row.run))
        except (EpochalError, OSError, ValueError) as error:
            self.notify(f"its recipe can't be read: {error}", severity="error", markup=False)
            return
        await self.console_app.propose(values, f"as in trial {row.number}")

    def action_stop(self) -> None:
        """Stop whoever works on it, with checkpoints."""
        self._do(self.console_app.engine.stop_search)

    def action_go_on(self) -> None:
        """Go on with the search in a process of its own."""
        board = self._board
        if board is None or self._path is None:
            return
        if self._starting is not None or board.state == "searching":
            self.notify("it is searching already" if self._starting is None else "it is being started; that takes some seconds")
        elif board.state == "finished":
            self.notify(f"it is finished: epochal search {board.name} --trials {2 * len(board.rows)} goes on", markup=False)
        else:
            try:
                self._starting = self.console_app.engine.go_on_with_search(self._path)
            except EpochalError as error:
                self.notify(str(error), severity="error", markup=False)
            self._entitle()

    def _do(self, act: Callable[[Path], str]) -> None:
        """In a thread, for a disk may be slow; then it is read again."""
        path = self._path
        if path is None:
            return

        def work() -> None:
            try:
                self._said.append((act(path), "information"))
            except EpochalError as error:
                self._said.append((str(error), "error"))
            self._list()

        threading.Thread(target=work, name="epochal-search", daemon=True).start()
