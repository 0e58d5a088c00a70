"""What is drawn is text: names, reasons and metrics of a run may hold anything, and no terminal is to obey it."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from tui.widgets.formats import plain, plain_terminal

# Control characters, the ends of lines, and what turns the direction of writing: none takes a cell.
_GONE = dict.fromkeys(
    [*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)


class Printable(LineFilter):
    """Takes out of every line what a terminal would act on, and what a plain one can't draw."""

    def __init__(self) -> None:
        super().__init__()
        self._ascii = plain_terminal()

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same line, as text alone."""
        if self._ascii:
            segments = [one if one.control or one.text.isascii() else Segment(plain(one.text), one.style) for one in segments]
        if all(segment.control or segment.text.isprintable() for segment in segments):
            return segments
        return [segment if segment.control else Segment(segment.text.translate(_GONE), segment.style) for segment in segments]
