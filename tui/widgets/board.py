"""What a search's leaderboard has besides its table: the best so far over the trials, and how much each parameter mattered."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from tui.widgets.rows import Pane, Row

if TYPE_CHECKING:
    from engine.search.board import Board

BAR = "█"
WORST = 0.75  # of the values, by their order: what is worse is drawn at the edge, so that it does not press the rest flat
WIDE = 5.0  # times the least: from there on a logarithmic axis shows more


class BoardPane(Pane):
    """Draws a board anew where it has changed."""

    def __init__(self) -> None:
        super().__init__()
        self._board: Board | None = None

    def of(self, board: Board | None) -> None:
        """Show this from now on."""
        if board != self._board:
            self._board = board
            self.draw()

    def on_resize(self) -> None:
        super().on_resize()
        self.draw()

    @abstractmethod
    def draw(self) -> None:
        """Show what is known."""


class BestPane(BoardPane):
    """The best so far, and each trial's value, over the number of trials that have ended."""

    def draw(self) -> None:
        from tui.widgets.plot import Curve, Mark, draw

        board = self._board
        width, height = self.size
        if board is None or not board.curve or not width:
            self.set_title("Best so far")
            self.set_rows([[], [(" no trial has come to its end yet", "label")]])
            return
        xs = [float(at) for at, _, _ in board.curve]
        each, ys = [value for _, value, _ in board.curve], [best for _, _, best in board.curve]
        values = sorted(each, reverse=board.direction == "maximize")
        edge = values[int(WORST * (len(values) - 1))]
        low, high = min(values[0], edge, *ys[-1:]), max(values[0], edge, *ys[-1:])
        limits = (low, high) if high > low else None
        log = low > 0 and high > WIDE * low
        self.set_title(f"Best so far ── {board.metric.replace('/', ' ')} by trial{' · log y' * log}")
        first = next(x for x, y in zip(xs, ys, strict=True) if y == ys[-1])
        self.set_rows(
            draw(
                [Curve(xs, ys, "val")],
                [Curve(xs, each, "faint")],
                [Mark(first, ys[-1], "★")],
                width,
                height,
                limits=limits,
                log_y=log,
                right=float(board.limit or xs[-1]),
                braille=not self._ascii,
            )
        )


class WeightsPane(BoardPane):
    """A bar for each parameter, as Optuna computes its importance."""

    def draw(self) -> None:
        from engine.search.board import FEWEST_FOR_IMPORTANCE
        from engine.sweep import shortened

        self.set_title("Importance")
        board = self._board
        width, height = self.size
        if board is None or not width:
            self.set_rows([])
            return
        if not board.importance:
            told = board.count("finished") >= FEWEST_FOR_IMPORTANCE
            words = "in a moment …" if told else f"can be told after {FEWEST_FOR_IMPORTANCE} trials that came to their end"
            self.set_rows([[], [(f" {words}", "label")]])
            return
        names = shortened(board.importance)
        wide = min(max(map(len, names)), width // 2)
        room = max(4, width - wide - 10)
        rows: list[Row] = []
        for name, weight in zip(names, board.importance.values(), strict=True):
            bar = BAR * round(weight * room)
            rows.append([(f" {name[:wide]:<{wide}} ", "label"), (bar, "bar"), (f" {weight:.1%}", "strong")])
        if len(rows) > height > 1:
            rows = [*rows[: height - 1], [(f" and {len(rows) - height + 1} that mattered less", "label")]]
        self.set_rows(rows)
