"""The output pane: what the training code prints."""

from __future__ import annotations

import re
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.text import Text
from textual.geometry import Size
from textual.strip import Strip

from tui.widgets.formats import plain
from tui.widgets.rows import Pane, role_style

LINES = 5000
EMPTY = " Nothing has been printed yet."
# Escape sequences other than colours (those end in "m"): CSI, OSC with its terminator, the rest; then control characters.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
    r"|[\x00-\x08\x0b-\x0c\x0e-\x1a\x7f-\x9f]"
)
_COLOR = re.compile(r"\x1b\[[0-?]*[ -/]*m|\x1b")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]P_^X][^\x07\x1b]{0,200}\x1b?|[ -/]*)?\Z")


class OutputPane(Pane):
    """The last 5,000 lines, at their end unless scrolled up.

    A carriage return begins the last line anew, so a progress bar stays one line. Colours are kept, other escapes dropped.
    Where the pane has no room for lines, its title shows the last one.
    """

    BORDER_TITLE: ClassVar[str] = "5 Output"
    follow = True

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._lines: list[str] = [""]  # the last one is still open
        self._return = False  # the open line is to be begun anew by what comes next
        self._held = ""  # the beginning of an escape sequence that the next text ends
        self._width = 0

    def add(self, text: str) -> None:
        """Append text as it was printed: in any pieces, with or without line ends."""
        text = (self._held + text).replace("\r\n", "\n")
        unfinished = _UNFINISHED.search(text)
        self._held = unfinished.group() if unfinished else ""
        if text.endswith("\r"):  # perhaps half of a line end
            self._held = "\r" + self._held
            text = text[:-1]
        elif unfinished:
            text = text[: unfinished.start()]
        first = len(self._lines) - 1
        for i, line in enumerate(_ESCAPES.sub("", text).expandtabs(8).split("\n")):
            if i:
                self._lines.append("")
            # Of what a line's carriage returns rewrite, the last that says something stays.
            before, *rewritten = line.split("\r")
            said = [part for part in rewritten if part]
            if said:
                self._lines[-1] = said[-1]
            else:
                self._lines[-1] += before
        surplus = len(self._lines) - LINES
        if surplus > 0:
            del self._lines[:surplus]
        self._width = max(
            self._width, *(cell_len(_COLOR.sub("", line)) for line in self._lines[max(0, first - max(surplus, 0)) :])
        )
        self._changed(first, surplus > 0)

    def _changed(self, first: int, all_moved: bool) -> None:
        """Repaint from line `first` on."""
        if not self.is_mounted:
            return
        self._resized(Size(self._width + 2, len(self._lines) - (not self._lines[-1])))  # a blank on either side
        if all_moved:
            self.refresh(self.size.region)
        else:
            for y in range(max(first, self.scroll_offset.y), min(len(self._lines), self.scroll_offset.y + self.size.height)):
                self._refresh_row(y)
        self._keep_end()
        self._entitle()

    def on_mount(self) -> None:
        self._changed(0, True)

    def on_resize(self) -> None:
        self._entitle()

    def _entitle(self) -> None:
        last = next((line for line in reversed(self._lines[-20:]) if line.strip()), "")
        small = self.size.height < 2 and last
        self.set_title(f"5 Output ── {_COLOR.sub('', last).strip()}" if small else "5 Output")

    def draw_line(self, y: int) -> Strip:
        base, width = self.rich_style, self.size.width
        row, left = y + self.scroll_offset.y, self.scroll_offset.x
        if row == 0 and self._lines == [""]:
            faint = base + role_style(self.app, "faint")
            return Strip([Segment(EMPTY, faint)]).crop_extend(left, left + width, base)
        if row >= len(self._lines):
            return Strip.blank(width, base)
        line = plain(self._lines[row]) if self._ascii else self._lines[row]
        text = Text.from_ansi(line, no_wrap=True, end="")
        text.stylize_before(base)
        # A segment without a style breaks NO_COLOR's filter.
        segments = [Segment(part, style or base) for part, style, _ in text.render(self.app.console)]
        return Strip([Segment(" ", base), *segments]).crop_extend(left, left + width, base)
