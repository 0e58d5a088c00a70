"""Rows: the base of the console's widgets. Lines of styled pieces, of which only those that changed are painted again."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App
from textual.color import Color
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from tui.themes import DARK, THEMES
from tui.widgets.formats import cell_len, plain, plain_terminal

if TYPE_CHECKING:
    from engine.history import History

Row = list[tuple[str, str]]  # pieces of (text, role); a role is one of ROLES or "" for ordinary text

ROLES = (
    "train",
    "val",
    "mark",
    "faint",
    "ghost",
    "strong",
    "label",
    "good",
    "warn",
    "bad",
    "bar",
    *(f"run{n}" for n in range(1, 6)),
    "other",
)
NAMES = {"good": "text-success", "warn": "text-warning", "bad": "text-error", "bar": "primary"}  # of a theme's variables
BOLD = ("mark", "strong", "bad")
_STYLES: dict[tuple[str, str], Style] = {}  # by theme and role


def length(row: Row) -> int:
    """The cells of a row."""
    return sum(cell_len(text) for text, _ in row)


def fit(width: int, pieces: Sequence[tuple[int, Row]], gap: str = "  ") -> Row:
    """Join rows with `gap`, leaving out those with the largest number first until `width` suffices."""
    kept = list(pieces)
    while len(kept) > 1 and sum(length(row) for _, row in kept) + len(gap) * (len(kept) - 1) > width:
        kept.remove(max(kept, key=lambda piece: piece[0]))
    joined: Row = []
    for _, row in kept:
        joined += [(gap, ""), *row] if joined else row
    return joined


def changed(old: Row, new: Row) -> tuple[int, int]:
    """The cells from the first to the last in which two rows differ: where little did, little goes to the terminal."""
    first = _alike(old, new)
    widest = max(length(old), length(new))
    if length(old) != length(new):
        return first, widest
    return first, widest - _alike([(text[::-1], role) for text, role in reversed(old)],
                                  [(text[::-1], role) for text, role in reversed(new)])  # fmt: skip


def _alike(old: Row, new: Row) -> int:
    """Cells in which two rows begin alike."""
    count = 0
    for (text, role), (other, another) in zip(old, new, strict=False):
        if (text, role) != (other, another):
            if role == another:
                count += cell_len(commonprefix([text, other]))  # noqa: RUF071 - of characters, as meant
            break
        count += cell_len(text)
    return count


def role_style(app: App[Any], role: str) -> Style:
    """How pieces of this role are drawn in the app's theme. Component classes would cost each pane sixteen more styles."""
    key = app.theme, role
    if key not in _STYLES:
        known = {**THEMES[DARK][0].variables, **app.theme_variables}
        color = known.get(NAMES.get(role, role))
        _STYLES[key] = Style(color=Color.parse(color).rich_color if color else None, bold=True if role in BOLD else None)
    return _STYLES[key]


class Rows(ScrollView):
    """A pane of rows. The first `fixed` rows stay when the others scroll; `follow` keeps the end in view.

    Whatever fails in one takes only this one out of use: it then shows the reason, and posts `Failed`.
    """

    class Failed(Message):
        """A pane is out of use."""

        def __init__(self, reason: str, traceback: str) -> None:
            super().__init__()
            self.reason = reason  # one sentence
            self.traceback = traceback

    DEFAULT_CSS = """
    Rows {
        background: transparent;
        scrollbar-size-vertical: 1;
        scrollbar-size-horizontal: 1;
    }
    """
    fixed = 0
    follow = False

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._rows: list[Row] = []
        self._widest = 0
        self._ascii = plain_terminal()
        self._title = ""
        self._at_end = True
        self._failed = False
        self.aliases: dict[str, str] = {}  # roles that are drawn as others here

    def show(self, history: History) -> None:
        """Draw what is new in `history`. A pane that is filled by other means has nothing to do."""

    def guarded(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do something to this pane, as long as it works."""
        if self._failed:
            return
        try:
            act(*arguments)
        except Exception as error:
            self._fail(error)

    async def _dispatch_message(self, message: Message) -> None:
        if self._failed and isinstance(message, events.Resize | events.Show):
            return
        try:
            await super()._dispatch_message(message)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        self._rows = [[(f" ✗ this part failed: {reason}", "bad")]]
        self.post_message(self.Failed(f"{type(self).__name__}: {reason}", traceback.format_exc()))
        self.refresh()

    def set_rows(self, rows: list[Row]) -> None:
        """Show these rows instead."""
        old, self._rows = self._rows, rows
        self._widest = max(map(length, rows), default=0)
        self._resized()
        for y in range(max(len(old), len(rows))):
            if y >= len(old) or y >= len(rows):
                self._refresh_row(y)
            elif old[y] != rows[y]:
                self._refresh_row(y, *changed(old[y], rows[y]))

    def set_row(self, y: int, *rows: Row) -> None:
        """Put rows in the place of those from `y` on, or after the last."""
        spans: dict[int, tuple[int, ...]] = {}  # of what changed
        for at, row in enumerate(rows, y):
            if at >= len(self._rows):
                spans[at] = ()
            elif self._rows[at] != row:
                spans[at] = changed(self._rows[at], row)
            else:
                continue
            self._rows[at : at + 1] = [row]
            self._widest = max(self._widest, length(row))
        self._resized()
        for at, span in spans.items():
            self._refresh_row(at, *span)

    def _resized(self, size: Size | None = None) -> None:
        size, before, styles = size or Size(self._widest, len(self._rows)), self.virtual_size, self.styles
        if size == before:
            return
        if (styles.is_auto_width and size.width != before.width) or (styles.is_auto_height and size.height != before.height):
            self.virtual_size = size
        else:  # its place stays as it is: Textual's layout of the whole screen would change nothing
            self.set_reactive(Widget.virtual_size, size)
            self._scroll_update(size)
        self._keep_end()

    def _keep_end(self) -> None:
        """Scroll to the end, unless the person scrolled away from it."""
        if self.follow and self._at_end:
            self.scroll_end(force=True, x_axis=False)

    def scroll_to(self, x: float | None = None, y: float | None = None, **how: Any) -> None:
        """Where a person goes, at once: a row that comes in on the way there would follow the end instead."""
        super().scroll_to(x, y, **{**how, "animate": False, "immediate": True})

    def scroll_end(self, **how: Any) -> None:
        """The end, at once: it would be another one by the time that the way there is gone."""
        super().scroll_end(**{**how, "animate": False, "immediate": True})

    def action_scroll_home(self) -> None:
        """The first row, also of a pane that is about to be laid out for the first time."""
        self._at_end = self._at_end and bool(self.container_size)
        super().action_scroll_home()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y

    def on_resize(self) -> None:
        self._keep_end()

    def set_title(self, text: str) -> None:
        """The pane's title in its border; set again only when it changed."""
        if text != self._title:
            self._title = text
            self.border_title = Content(plain(text) if self._ascii else text)  # type: ignore[assignment]

    def _refresh_row(self, y: int, first: int = 0, last: int | None = None) -> None:
        """Paint a row again, or its cells from `first` up to `last`."""
        on_screen = y if y < self.fixed else y - self.scroll_offset.y
        if (y < self.fixed or on_screen >= self.fixed) and on_screen < self.size.height:
            left, width = self.scroll_offset.x, self.size.width
            first = max(first - left, 0)
            last = width if last is None else min(last - left, width)
            if first < last:
                self.refresh(Region(first, on_screen, last - first, 1))

    def render_line(self, y: int) -> Strip:
        if not self._failed:
            try:
                return self.draw_line(y)
            except Exception as error:
                self._fail(error)
        return self._strip(self._rows[0]) if y == 0 else Strip.blank(self.size.width, self.rich_style)

    def draw_line(self, y: int) -> Strip:
        """Line `y` of what is in view."""
        row = y if y < self.fixed else y + self.scroll_offset.y
        return self._strip(self._rows[row] if row < len(self._rows) else [])

    def _strip(self, row: Row) -> Strip:
        base, width = self.rich_style, self.size.width
        left = self.scroll_offset.x
        return Strip(
            [Segment(plain(text) if self._ascii else text, self._style(role, base)) for text, role in row]
        ).crop_extend(left, left + width, base)

    def _style(self, role: str, base: Style) -> Style:
        return base + role_style(self.app, self.aliases.get(role, role)) if role else base


class Pane(Rows, can_focus=True):
    """Rows in a border with a title; it can be focused and scrolled by key."""

    DEFAULT_CSS = """
    Pane {
        border: round $foreground 30%;
        border-title-color: $foreground;
        &:focus { border: round $primary; }
        &.-ascii { border: ascii $foreground 30%; }
        &.-ascii:focus { border: ascii $primary; }
    }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.set_class(self._ascii, "-ascii")
