"""The help panel, made from the table of keys."""

from __future__ import annotations

from textwrap import wrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from tui.keys import KEYS, keys
from tui.screens.base import Dialog

LABEL = 23  # columns
TITLES = {
    "form": "The form", "train": "A run", "overlay": "Several runs on one chart", "runs": "The list of runs",
    "app": "Everywhere",
}  # fmt: skip
FOOTERS = ("over", "empty")  # a footer's alone


class HelpScreen(Dialog[None]):
    """All keys, those of the present screen first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,space", "dismiss", "Close", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
    ]

    def __init__(self, screen: str) -> None:
        super().__init__()
        self._of = screen
        self._drawn = 0  # columns

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box", can_focus=False) as box:
            box.border_title = "Keys"
            box.border_subtitle = "Esc closes"
            parts = dict.fromkeys([*TITLES, *(name for key in KEYS for name in key.screens if name not in FOOTERS)])
            for part in sorted(parts, key=lambda name: (name != self._of, name == "app")):
                yield Static(self._table(part), classes="keys", name=part)

    def on_resize(self) -> None:
        if self._width != self._drawn:
            for table in self.query(".keys").results(Static):
                table.update(self._table(table.name or ""))

    def action_move(self, lines: int) -> None:
        """Scroll."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    @property
    def _width(self) -> int:
        return min(76, self.app.size.width * 96 // 100) - 7  # without the border, the padding and the scrollbar

    def _table(self, screen: str) -> Content:
        self._drawn = width = self._width
        lines = [Content.styled(TITLES.get(screen, f"The {screen}"), "bold")]
        for key in keys(screen):
            if key.help:
                first, *more = wrap(f"{key.label:<{LABEL}} {key.help}", width - 10, subsequent_indent=" " * (LABEL + 1))
                label = max(LABEL, len(key.label))
                lines.append(
                    Content.assemble((f"{key.shown:>8}  ", "$text-accent"), first[:label], (first[label:], "$text-muted"))
                )
                lines += [Content.styled(f"{'':10}{line}", "$text-muted") for line in more]
        return Content("\n").join(lines)
