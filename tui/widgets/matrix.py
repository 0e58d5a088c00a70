"""The confusion matrix as a grid: a row for each class of the targets, a column for each prediction."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip

from engine.inference.evaluation import Evaluation
from tui.widgets.formats import cell_len, cut, plain, right
from tui.widgets.rows import Pane, Row

LEVELS = (0.02, 0.1, 0.3, 0.6)  # shares of a row from which a cell is so strong
LONGEST = 16  # cells of a class's name beside its row
SHORT = 7  # cells of a name that may stand above its column; longer ones are numbered


class Matrix(Pane):
    """Names and heads stay when it scrolls. Right ones lie on the diagonal, in another colour than what was confused.

    The colour says the share of the row, the number how often; of what was confused, a tenth of a row and more is bold.
    """

    BORDER_TITLE: ClassVar[str] = "1 Confusion"
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"matrix--{kind}{level}" for kind in ("right", "wrong") for level in range(1, 5)}
    fixed = 1

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._names: list[str] = []
        self._beside = 0  # cells of the names
        self._column = 4  # cells of a column

    def show_matrix(self, found: Evaluation) -> None:
        """Draw the matrix of this evaluation."""
        matrix, classes = found.confusion or [], list(map(visible, found.classes))
        numbered = max(map(cell_len, classes), default=0) > SHORT
        labels = [f"{i} {name}" if numbered else name for i, name in enumerate(classes)]
        self._beside = min(LONGEST, max(map(cell_len, labels), default=0)) + 2
        self._names = ["", *labels]
        heads = [str(i) if numbered else name for i, name in enumerate(classes)]
        most = max((n for row in matrix for n in row), default=0)
        self._column = width = max(4, len(str(most)) + 1, *(cell_len(head) + 1 for head in heads))
        rows: list[Row] = [[("".join(right(head, width) for head in heads), "label")]]
        for i, row in enumerate(matrix):
            total = sum(row)
            rows.append([(f"{n or '·':>{width}}", _role(n, total, i == j)) for j, n in enumerate(row)])
        self.set_rows(rows)
        self.set_title("1 Confusion ── rows: targets, columns: predictions")
        self.virtual_size = Size(self._beside + width * len(heads), len(rows))
        self.refresh()

    def action_scroll_right(self) -> None:
        self.scroll_relative(x=self._column, animate=False)

    def action_scroll_left(self) -> None:
        self.scroll_relative(x=-self._column, animate=False)

    def draw_line(self, y: int) -> Strip:
        """The name, and what of its row is in view."""
        row = y if y < self.fixed else y + self.scroll_offset.y
        if row >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        name = self._names[row]
        short = cut(name, LONGEST)
        beside = Strip([Segment(plain(f" {short}") if self._ascii else f" {short}", self._style("label", self.rich_style))])
        room = max(0, self.size.width - self._beside)
        left = self.scroll_offset.x
        pieces = [Segment(plain(t) if self._ascii else t, self._cell(role)) for t, role in self._rows[row]]
        cells = Strip(pieces).crop_extend(left, left + room, self.rich_style)
        return Strip.join([beside.crop_extend(0, self._beside, self.rich_style), cells])

    def _cell(self, role: str) -> Style:
        if role.startswith(("right", "wrong")):
            return self.get_component_rich_style(f"matrix--{role}")
        return self._style(role, self.rich_style)


def visible(name: str) -> str:
    """A blank and the end of a line are classes too, where characters are."""
    return name if name.strip() else repr(name)[1:-1].replace(" ", "␣")


def _role(count: int, total: int, right: bool) -> str:
    """The look of a cell: how much of its row it is."""
    share = count / total if total else 0.0
    level = sum(share >= limit for limit in LEVELS)
    if not count:
        return "faint"
    return f"{'right' if right else 'wrong'}{level}" if level else ""
