"""The step pane: where a step's time goes, phase by phase; of several processes, how each is doing."""

from __future__ import annotations

from typing import ClassVar

from engine.distributed.standing import rate, straggler, those_to_show
from engine.events import RanksMeasured, Sampled
from engine.history import History
from engine.phases import a_step, in_short, phases
from tui.widgets.progress import bar
from tui.widgets.rows import Pane, Row

HEAD = 27  # cells of a row without its bar
WORDS = 38  # cells that the words of a phase may need
LONGEST = 24  # cells of a bar
EARLY = 200  # steps before the first sample at most, where there are any


class StepPane(Pane):
    """A bar for each phase of the loop, the longest full, with its share and time; in words where there is room."""

    BORDER_TITLE: ClassVar[str] = "7 Step"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._history = History()
        self._drawn: tuple[object, ...] = ()

    def show(self, history: History) -> None:
        """Draw the samples where there is a new one."""
        self._history = history
        ranks = history.ranks
        now = (history.samples[-1] if history.samples else _why_none(history), ranks, self.size)
        if now != self._drawn and self.size.width:
            self._drawn = now
            rows = step_rows(history.samples, self.size.width)
            if ranks is not None:
                rows += rank_rows(ranks, self.size.height - len(rows) - 2)
            self.set_rows(rows or [[(_why_none(history), "faint")]])

    def on_resize(self) -> None:
        self.show(self._history)


def step_rows(samples: tuple[Sampled, ...], width: int) -> list[Row]:
    """A step's time, and what it is made of, in the loop's order."""
    found = phases(samples)
    if not found:
        return []
    words = width >= HEAD + LONGEST // 2 + WORDS
    cells = max(0, min(LONGEST, width - HEAD - (WORDS if words else 0)))
    one = " in one graph" if samples[-1].whole else ""
    rows: list[Row] = [
        [(" a step ", "label"), (in_short(a_step(samples)), "strong"), (f"{one}, at {samples[-1].step:,}", "faint")]
    ]
    most = max(phase.share for phase in found) or 1.0
    for phase in found:
        text = f" {phase.share:4.0%} {in_short(phase.seconds):>8}"
        row: Row = [(f" {phase.name:<10} ", "label"), *(bar(phase.share / most, cells) if cells >= 4 else []), (text, "strong")]
        rows.append([*row, (f"  {phase.words}", "faint")] if words else row)
    return rows


def rank_rows(measured: RanksMeasured, room: int) -> list[Row]:
    """The processes that train together: how fast each is by itself, its share of waiting for the others, its memory."""
    slowest, shown = straggler(measured), those_to_show(measured, room)
    rows: list[Row] = [[(" rank  steps/s  waits     memory", "label")]]
    for number in shown:
        memory = f"{measured.memories[number] / 2**30:.2f} GiB"
        figures = f" {number:>4} {rate(measured, number):>8} {measured.waits[number]:>6.0%} {memory:>10}"
        rows.append([(figures, "warn" if number == slowest else "")])
    left_out = len(measured.waits) - len(shown)
    said = [f"rank {slowest} is waited for"] if slowest is not None else []
    said += [f"{left_out} more"] if left_out else []
    return [*rows, [(f" {', '.join(said)}", "warn")]] if said else rows


def _why_none(history: History) -> str:
    """What is to be said where no step was looked at."""
    now = history.progress
    early = history.ended is None and (now is None or now.step < EARLY)
    return " the first is looked at soon" if early else " no step is looked at in this run"
