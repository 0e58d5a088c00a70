"""A search, followed from outside while others train: its trials, the best first, the best so far, and what mattered."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

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
from tui.screens.base import KeyLine
from tui.screens.table import Table, TableScreen
from tui.widgets.board import BestPane, WeightsPane
from tui.widgets.formats import clock, number

if TYPE_CHECKING:
    from engine.search.board import Board, Row
    from tui.door import Watches

SIGNS = {**SYMBOLS, "waiting": "·", "interrupted": "‖"}
FEW = 5  # runs on one chart


class SearchScreen(TableScreen):
    """A trial is a row; the keys go from one search to another."""

    NAME = "search"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("search")]

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._path = path  # None: the newest
        self._all: list[Path] = []
        self._board: Board | None = None
        self._failure = ""
        self._watches: dict[Path, Watches] = {}
        self._starting: Starting | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Table()
        yield Static("\nreading …", id="empty", markup=False)
        yield Static("", id="about", markup=False)
        with Horizontal(id="below"):
            yield BestPane()
            yield WeightsPane()
        yield KeyLine("search")

    def on_mount(self) -> None:
        self.query_one(DataTable).display = False

    # reading

    def _read(self) -> tuple[list[Path], Board | None]:
        engine, path = self.engine, self._path
        try:
            searches = engine.searches()
            path = path or (searches[0] if searches else None)
            again = path in self._watches  # importance needs libraries that take a moment: the table is there before
            if path is not None and not again:
                self._watches[path] = engine.watch_search(path)
            board = None if path is None else self._watches[path].read(importance=again)
            self._failure = ""
        except EpochalError as error:
            self._failure = str(error)
            return [], None
        return searches, board

    def _look(self) -> None:
        if not self.is_current:
            return
        if self._starting is not None and (begun := self._starting.poll()) is not None:
            self._starting = None
            if begun.failure:
                self.notify(begun.failure, severity="error", markup=False)
            self._begin_reading()
        super()._look()

    def _take(self, found: tuple[list[Path], Board | None]) -> None:
        self._all, self._board = found
        if self._board is not None:
            self._path = Path(self._board.path)
        self._show()

    # showing

    def _show(self) -> None:
        board = self._board
        rows = {} if board is None else {str(row.number): self._cells(board, row) for row in board.rows}
        self._draw(self._columns(board), rows)
        if not rows:
            self.query_one("#empty", Static).update(f"\n{self._none()}")
        self._entitle()
        self._tell()
        self.query_one(BestPane).of(board)
        self.query_one(WeightsPane).of(board)

    def _none(self) -> str:
        if self._board is not None:
            return "no trial has begun yet"
        return self._failure or "There is no search yet. Open a recipe with a [search] in the form: r begins it. Esc goes back."

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

    def _about(self) -> tuple[str, str]:
        board, row = self._board, self._row()
        words = [] if row is None else [f"trial {row.number} {row.state}", row.why, row.label]
        if board is None:
            return "", ""
        space = ", ".join(f"{key} {axis}" for key, axis in board.space.items())
        how = f"{board.direction} {board.metric} · {board.sampler}, {board.pruner} · {space}"
        return " · ".join(filter(None, words)), how

    # what is under the cursor

    def _row(self) -> Row | None:
        at = self._at()
        return next((row for row in self._board.rows if str(row.number) == at), None) if self._board is not None else None

    def copies(self) -> list[tuple[str, str]]:
        """The search's folder, its command, and the trial's run."""
        row = self._row()
        command = "" if self._path is None else f"epochal search {self._path.name}"
        return [("path", str(self._path or "")), ("command", command), ("run", "" if row is None else row.run)]

    # acting

    def action_search(self, step: int) -> None:
        """Another search."""
        if len(self._all) < 2:
            self.notify("there is no other search")
        elif self._path is not None:
            at = self._all.index(self._path) if self._path in self._all else 0
            self._path = self._all[(at + step) % len(self._all)]
            self._begin_reading()

    def action_open(self) -> None:
        """Look at the run of the trial."""
        row = self._meant(self._row())
        if row is not None and row.run and Path(row.run).is_dir():
            self.console_app.follow(Path(row.run))
        elif row is not None:
            self.notify("its run has not begun yet" if not row.run else "its run is not there any more")

    def action_overlay(self) -> None:
        """Draw the runs of the best trials on one chart."""
        from tui.screens.overlay import OverlayScreen

        rows = self._board.rows if self._board is not None else ()
        paths = [Path(row.run) for row in rows if row.run and Path(row.run).is_dir()][:FEW]
        if self._meant(paths):
            self.app.push_screen(OverlayScreen(paths))

    async def action_recipe(self) -> None:
        """Open the form with the recipe of the trial under the cursor."""
        row = self._meant(self._row())
        if row is None:
            return
        if not row.run:
            self.notify("its run has not begun yet")
            return
        try:
            values = self.engine.recipe_of(Path(row.run))
        except (EpochalError, OSError, ValueError) as error:
            self.notify(f"its recipe can't be read: {error}", severity="error", markup=False)
            return
        await self.console_app.propose(values, f"as in trial {row.number}")

    def action_stop(self) -> None:
        """Stop whoever works on it, with checkpoints."""
        if (path := self._meant(self._path)) is not None:
            self._do(partial(self.engine.stop_search, path))

    def action_queue(self) -> None:
        """Queue the search, to be gone on with when its turn comes."""
        if (path := self._meant(self._path)) is not None:
            self._do(lambda: f"{self.engine.enqueue_run(path)} · Q shows the queue")

    def action_go_on(self) -> None:
        """Go on with the search in a process of its own."""
        board = self._meant(self._board)
        if board is None or self._path is None:
            return
        if self._starting is not None or board.state == "searching":
            self.notify("it is searching already" if self._starting is None else "it is being started; that takes some seconds")
        elif board.state == "finished":
            self.notify(f"it is finished: epochal search {board.name} --trials {2 * len(board.rows)} goes on", markup=False)
        else:
            try:
                self._starting = self.engine.go_on_with_search(self._path)
            except EpochalError as error:
                self.notify(str(error), severity="error", markup=False)
            self._entitle()
