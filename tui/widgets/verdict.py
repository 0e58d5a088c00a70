"""The verdict's line: what the run's history says of it; not there while it says nothing."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from engine.history import History
from engine.verdict import Verdict, verdict
from tui.widgets.formats import cut
from tui.widgets.rows import Rows

LOOKS = {
    "improving": ("✓", "good"),
    "plateau": ("—", "warn"),
    "diverging": ("✗", "bad"),
    "exploding": ("✗", "bad"),
}  # others: a warning
EXPLAINS = "   ! explains"
SECONDS = 2.0  # of training between two looks at the curve in the middle of an epoch


class VerdictLine(Rows, can_focus=True):
    """One line; Enter or `!` explains it."""

    DEFAULT_CSS = """
    VerdictLine { height: 1; overflow: hidden hidden; display: none; &:focus { background: $primary 25%; } }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.verdict", "explain it", show=False)]

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[object, ...] = ()
        self.verdict: Verdict | None = None

    def show(self, history: History) -> None:
        """Look again where something has changed that the verdict rests on."""
        now = history.progress
        seen = (id(history), len(history.epochs), len(history.settings), len(history.rewinds), history.ended,
                now and now.elapsed // SECONDS, history.samples[-1:])  # fmt: skip
        if seen == self._seen:
            return
        self._seen = seen
        self.verdict = verdict(history)
        self.display = self.verdict is not None
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        if self.verdict is not None:
            symbol, role = LOOKS.get(self.verdict.kind, ("!", "warn"))
            text, room = self.verdict.text, self.app.size.width - len(f" {symbol} {EXPLAINS} ")
            self.set_rows([[(f" {symbol} ", role), (cut(text, room), ""), (EXPLAINS, "faint")]])
