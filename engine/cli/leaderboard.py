"""The leaderboard of a search in a terminal or a log file: a line a trial, and on a terminal the best below."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.cli import format
from engine.cli.output import Block, Stream
from engine.cli.rows import live_line, say
from engine.errors import EpochalError
from engine.events import Event, Progress, RunEnded, RunStarted
from engine.search.board import Board, Row, Watch, said
from engine.sweep import shortened

if TYPE_CHECKING:
    from engine.search.searching import Taken

BAR = 20  # cells of the largest importance
LIVE_ROWS = 5


class Leaderboard:
    """Tells what comes of a search: of its own process's trials by their events, of all by looking into the storage."""

    def __init__(self, watch: Watch, out: Stream, err: Stream, *, quiet: bool) -> None:
        self._watch, self._out, self._err, self._quiet = watch, out, err, quiet
        self._seen: set[int] | None = None  # trials that were told, or had ended before
        self._best: int | None = None
        self._started: dict[int, RunStarted] = {}
        self._line = ""
        if out.isatty() and not quiet:
            out.live = err.live = Block(out.terminal, interval=0.5)

    def hear(self, taken: Taken, event: Event) -> None:
        """An event of a trial of this process."""
        say(event, self._err, self._quiet)
        match event:
            case RunStarted():
                self._started[taken.number] = event
                if self._seen is None:
                    self.refresh()
            case Progress() if self._out.live.due:
                label = f"{taken.label}  "
                started = self._started.get(taken.number)
                width = shutil.get_terminal_size().columns - 1
                self._line = label + live_line(started, event, max(0, width - len(label)))
                self.refresh()
            case RunEnded():
                self._line = ""
                self.refresh()

    def refresh(self, *, at_once: bool = False) -> None:
        """Look, and tell what is new."""
        if self._quiet:
            return
        try:
            board = self._watch.read(importance=self._out.isatty(), at_once=at_once and self._out.isatty())
        except EpochalError as error:  # the storage is being made, or the disk is slow: the next look is near
            self._err.line(f"epochal: {error}")
            return
        ended = {row.number: row for row in board.rows if row.state in ("finished", "pruned", "failed")}
        if self._seen is None:
            self._seen = set(ended)
            self._out.line(_header(board))
        new = sorted(set(ended) - self._seen)
        for number in new:
            self._seen.add(number)
            row = ended[number]
            star = board.best is not None and board.best.number == number != self._best
            place = f"{len(self._seen):>{len(str(board.limit or 100))}}{f'/{board.limit}' if board.limit else ''}"
            self._out.line(f"{place}  trial {number}  {row.label}  {_said(board, row)}{'  best ★' if star else ''}")
        self._best = board.best.number if board.best is not None else None
        if self._out.live.due or (new and self._out.isatty()):
            self._out.live.draw(lambda width: "\n".join(_live(board, self._line)))


def _header(board: Board) -> str:
    over = ", ".join(f"{key} {axis}" for key, axis in board.space.items())
    return f"search {board.name}: {board.direction} {board.metric} · {board.sampler}, {board.pruner} · {over}"


def _said(board: Board, row: Row) -> str:
    words = [" ".join(filter(None, [row.state, row.why]))]
    if row.value is not None and row.state == "finished":
        words.append(f"{format.metric_name(board.metric)} {format.value(row.value)}")
    return " · ".join([*words, format.duration(row.seconds)])


def _live(board: Board, line: str) -> list[str]:
    return ["", *table(board, rows=LIVE_ROWS), board.summary, *([line] if line else [])]


def table(board: Board, rows: int) -> list[str]:
    """The best trials, and how much each parameter mattered."""
    if not board.rows:
        return ["no trial has begun yet"]
    keys = list(board.space)
    heads = ["trial", format.metric_name(board.metric), "epoch", "state", *shortened(dict.fromkeys(keys))]
    lines: list[Sequence[str]] = [heads]
    for row in board.rows[:rows]:
        values = ["–" if key not in row.params else said(row.params[key]) for key in keys]
        lines.append([str(row.number), format.value(row.value), str(row.epoch), row.state, *values])
    found = format.table(lines, right="trial,epoch," + heads[1])
    if len(board.rows) > rows:
        found.append(f"… and {len(board.rows) - rows} more")
    return [*found, *importance(board)]


def importance(board: Board) -> list[str]:
    """A bar for each parameter."""
    weights: dict[str, Any] = dict(board.importance)
    if not weights:
        return []
    names = dict(zip(weights, shortened(weights), strict=True))
    width = max(map(len, names.values()))
    return [f"{'importance':<10}  {names[key]:<{width}}  {format.bar(w, BAR)} {w:5.1%}" for key, w in weights.items()]
