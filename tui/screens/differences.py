"""In what some recipes differ, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.recipe_text import flat
from engine.run.about import shown
from tui.screens.base import Dialog
from tui.widgets.formats import cell_len, cut, cut_middle, left


class DifferencesScreen(Dialog[None]):
    """A row for each field that is not the same in all of them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,space,c", "dismiss", "Close", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
    ]

    def __init__(self, recipes: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        super().__init__()
        self._names = [name for name, _ in recipes]
        self._rows = rows([values for _, values in recipes])

    def compose(self) -> ComposeResult:
        with Vertical(classes="box broad") as box:
            count = len(self._rows)
            box.border_title = f"{count} field{'' if count == 1 else 's'} differ{'s' if count == 1 else ''}"
            box.border_subtitle = "Esc closes"
            with VerticalScroll(can_focus=False):
                yield Static(self._table(), markup=False)

    def on_resize(self) -> None:
        self.query_one(Static).update(self._table())

    def action_move(self, lines: int) -> None:
        """Scroll."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def _table(self) -> Content:
        table = [("", *self._names), *((key, *cells) for key, cells in self._rows)]
        widths = [max(cell_len(row[i]) for row in table) for i in range(len(table[0]))]
        first, room = widths[0], max(8, (min(self.app.size.width, 130) - 12 - widths[0]) // len(self._names) - 2)
        if sum(widths[1:]) > room * len(self._names):
            widths = [first, *(min(width, room) for width in widths[1:])]
        lines = []
        for n, row in enumerate(table):
            shorten = cut if n else cut_middle  # the names of runs
            cells = [shorten(cell, width) for cell, width in zip(row, widths, strict=True)]
            parts = [(left(cells[0], first), "$text-muted")]
            parts += [
                ("  " + left(cell, width), "bold" if n == 0 else "") for cell, width in zip(cells[1:], widths[1:], strict=True)
            ]
            lines.append(Content.assemble(*parts))
        return Content("\n").join(lines) if self._rows else Content("The recipes are the same.")


def rows(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """(dotted key, its value in each) where they are not all equal; "–" where it is not there."""
    each = [flat(recipe) for recipe in recipes]
    keys = dict.fromkeys(key for recipe in each for key in recipe)
    cells = {key: [shown(recipe[key]) if key in recipe else "–" for recipe in each] for key in keys}
    return [(key, row) for key, row in cells.items() if len(set(row)) > 1]
