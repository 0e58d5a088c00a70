"""A screen of one table, whose rows a thread reads again and again."""

from __future__ import annotations

import itertools
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Static

from engine.errors import EpochalError
from tui.screens.base import Base, KeyLine

Found = TypeVar("Found")
Cut = tuple[int, int, Callable[[str, int], str]]  # a column, the cells that it keeps, and how its cells are shortened


def fit_columns(heads: Sequence[str], rows: Mapping[str, list[str]], width: int, cuts: Sequence[Cut]) -> None:
    """Shorten cells until all columns fit, those of the first of `cuts` first."""
    wide = [max(map(cell_len, column)) for column in zip(heads, *rows.values(), strict=True)]
    over = 1 + sum(wide) + 2 * len(wide) - width  # a scrollbar, and a blank on each side of a column
    for i, least, shortened in cuts:
        less = min(over, wide[i] - max(least, cell_len(heads[i])))
        if less > 0:
            for cells in rows.values():
                cells[i] = shortened(cells[i], wide[i] - less)
            wide[i] -= less
            over -= less


class Table(DataTable[Text]):
    """Rows, of which one is under the cursor; Home and End are the first and the last of them, not of the columns."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "scroll_top", "the first", show=False),
        Binding("end", "scroll_bottom", "the last", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False)

    def on_resize(self) -> None:
        # Into view: what is below the table acts on it. A key may have moved it by then.
        self.call_after_refresh(lambda: self.move_cursor(row=self.cursor_row))


class TableScreen(Base):
    """Runs, jobs or trials. What takes long on a slow disk is done by threads: reading, and all that is asked for."""

    SECONDS: ClassVar[float] = 1.0  # between two readings

    def __init__(self) -> None:
        super().__init__()
        self._found: Any = None  # by the thread, until it is shown
        self._readings = itertools.count(1)  # a number for each, by its beginning
        self._newest = 0  # of those that ended: an older one would show what was before
        self._said: deque[tuple[str, str]] = deque()  # by threads: what came of it, and how bad that is
        self._reading: threading.Thread | None = None
        self._drawn: tuple[list[str], dict[str, list[str]]] = [], {}  # the heads, and by its key each row

    @abstractmethod
    def _read(self) -> Any:
        """Read what is there: in a thread."""

    @abstractmethod
    def _take(self, found: Any) -> None:
        """Show what was read."""

    @abstractmethod
    def _about(self) -> tuple[str, str]:
        """Two lines on the row under the cursor: what has no room in it."""

    @abstractmethod
    def _none(self) -> str:
        """Why there is no row to act on, and what would make one."""

    @abstractmethod
    def action_open(self) -> None:
        """Look at what is under the cursor."""

    def on_mount(self) -> None:
        self.engine = self.console_app.engine  # a thread may need it when the app has gone
        self.set_interval(self.SECONDS / 8, self._look)
        self.set_interval(self.SECONDS, self._begin_reading)

    def on_screen_resume(self) -> None:
        self._begin_reading()

    def _begin_reading(self) -> None:
        if self.is_current and (self._reading is None or not self._reading.is_alive()):
            self._reading = threading.Thread(target=self._list, name=f"epochal-{self.NAME}", daemon=True)
            self._reading.start()

    def _list(self) -> None:
        number = next(self._readings)
        try:
            found = self._read()
        except EpochalError as error:
            self._said.append((str(error), "error"))
            return
        if number > self._newest:
            self._newest, self._found = number, found

    def _look(self) -> None:
        if not self.is_current:  # under another one, or about to go
            return
        while self._said:
            text, severity = self._said.popleft()
            self.notify(text, severity=severity, markup=False)  # type: ignore[arg-type]
        if self._found is not None:
            found, self._found = self._found, None
            self._take(found)

    def _do(self, *acts: Callable[[], object], said: str = "") -> None:
        """One after the other, in a thread; then all is read again. `said` is told, or else what an act returns."""

        def work() -> None:
            for act in acts:
                try:
                    words = act()
                    if said or isinstance(words, str):
                        self._said.append((said or str(words), "information"))
                except EpochalError as error:
                    self._said.append((str(error), "error"))
            self._list()

        threading.Thread(target=work, name=f"epochal-{self.NAME}", daemon=True).start()

    def _draw(self, heads: list[str], rows: dict[str, list[str]], goal: str = "") -> bool:
        """Write the cells that changed; other rows or columns anew (True), the cursor on the row `goal`, else on its own."""
        table = self.query_one(DataTable)
        table.display, self.query_one("#empty").display = bool(rows), not rows
        if not rows and self.focused is table:  # it would keep the keys for itself
            self.set_focus(None)
        elif rows and self.focused is None:
            self.set_focus(table)
        self.query_one(KeyLine).of = self.NAME if rows else "empty"
        (old_heads, old), self._drawn = self._drawn, (heads, rows)
        if (old_heads, list(old)) == (heads, list(rows)):
            for y, (before, now) in enumerate(zip(old.values(), rows.values(), strict=True)):
                for x, cell in enumerate(now):
                    if cell != before[x]:
                        table.update_cell_at(Coordinate(y, x), Text(cell), update_width=True)
            return False
        at, top = goal or self._at(), table.scroll_y
        table.clear(columns=True)
        table.add_columns(*heads)
        for key, cells in rows.items():
            table.add_row(*map(Text, cells), key=key)
        if at in rows:
            table.move_cursor(row=list(rows).index(at), scroll=False)
            table.scroll_to(y=top, animate=False, force=True)
            table.call_after_refresh(table.move_cursor, row=list(rows).index(at))
        return True

    def _tell(self) -> None:
        first, second = self._about()
        self.query_one("#about", Static).update(Content.assemble((f" {first}\n", ""), (f" {second}", "$text-muted")))

    def _at(self) -> str:
        """The key of the row under the cursor, "" in an empty table."""
        table = self.query_one(DataTable)
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value) if table.row_count else ""

    def _meant(self, found: Found) -> Found:
        """What a key is for; where that is nothing, the person is told why."""
        if not found:
            self.notify(self._none(), markup=False)
        return found

    @on(DataTable.RowHighlighted)
    def _moved(self) -> None:
        if self.is_current:
            self._tell()

    def on_data_table_row_selected(self) -> None:
        self.action_open()

    def action_leave(self) -> None:
        """Back to where one came from."""
        self.app.pop_screen()
