"""The two header lines of bars, and the title line above them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from textwrap import wrap

from engine.history import History
from tui.widgets.formats import clock, cut, number, short, took
from tui.widgets.rows import Row, Rows, fit, length

STATES = {
    "starting": ("◌", "label"),
    "running": ("●", "good"),
    "validating": ("●", "good"),
    "saving": ("●", "good"),
    "paused": ("‖", "warn"),
    "finished": ("✓", "good"),
    "stopped": ("■", "warn"),
    "failed": ("✗", "bad"),
    "died": ("✗", "bad"),
    "recorded": ("▪", "label"),
}
_EIGHTHS = " ▏▎▍▌▋▊▉"
BAR, SHORTEST = 32, 12  # cells of a bar at most, and what pieces beside it must leave
NARROW = 72  # cells of a terminal; below, bars may be half as short, and of the best its value alone is said
RATE = 5  # cells of a rate: what stands after it keeps its place
HEAD = 16  # cells of the name before a bar and the percentage after it


def bar(share: float, width: int) -> Row:
    """A bar of `width` cells, filled to `share` (0 to 1) in eighths of a cell."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    filled = "█" * full + (_EIGHTHS[rest] if rest else "")
    return [(filled, "bar"), ("·" * (width - len(filled)), "faint")]


class RunProgress(Rows):
    """How far the run is and how far its epoch is, with rates and time left. Two rows, cut to any width."""

    DEFAULT_CSS = """
    RunProgress { height: 2; overflow: hidden hidden; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._history = History()

    def show(self, history: History) -> None:
        """Draw what is new in `history`."""
        self._history = history
        if self.is_mounted and self.size.width:
            self.set_rows(progress_rows(history, self.size.width))

    def on_resize(self) -> None:
        self.show(self._history)


def progress_rows(history: History, width: int) -> list[Row]:
    """The two rows, each at most `width` cells."""
    first, second = _run_pieces(history), _epoch_pieces(history, short_of_room=width < NARROW)
    cells = min(_bar_cells(first, width), _bar_cells(second, width))
    now, ended = history.progress, history.ended
    run = _line("run", _share(history), "", first, cells, width)
    if ended:
        return [run, [(" best   ", "label"), *fit(width - 9, second)] if second else []]
    name = {"validate": "valid.", "save": "save"}.get(now.phase, "epoch") if now else "epoch"
    between = now is not None and now.phase == "save" and not now.batch  # after an epoch, whose share is told no longer
    share = now.batch / now.batches if now and now.batches and not between else None
    counted = f"batch {now.batch}" if now and now.batches is None and now.batch else ""
    return [run, _line(name, share, counted, second, cells, width)]


def _share(history: History) -> float | None:
    """How much of the run is done: of its steps, or of its epochs where only those are known."""
    started = history.started
    if started is None or started.total_steps or not (started.own_loop and started.epochs):
        return _step(history) / started.total_steps if started and started.total_steps else None
    part = history.progress.batch / history.progress.batches if history.progress and history.progress.batches else 0.0
    return (len(history.epochs) + (0.0 if history.ended else min(part, 0.99))) / started.epochs


def _step(history: History) -> int:
    """Steps taken so far."""
    latest = history.ended or history.progress or history.started
    return latest.step if latest else 0


def _run_pieces(history: History) -> list[tuple[int, Row]]:
    """What stands beside the run's bar; what is left out first has the largest number."""
    started, now, ended = history.started, history.progress, history.ended
    latest = ended or now or started
    if latest is None:
        return []
    epochs = f"/{started.epochs}" if started and started.epochs else ""
    steps = f"/{started.total_steps}" if started and started.total_steps else ""
    pieces: list[tuple[int, Row]] = [(4, [(f"step {latest.step}{steps}", "label")])]
    if epochs or latest.epoch:
        pieces.insert(0, (1, [("epoch ", "label"), (f"{latest.epoch}{epochs}", "strong")]))
    elapsed = ended.seconds if ended else now.elapsed if now else None
    if elapsed is not None:
        pieces.append((3, [("elapsed ", "label"), (took(elapsed), "")]))
    if now and now.left is not None and not ended:
        pieces.append((2, [("left ", "label"), (clock(now.left), "strong")]))
        pieces.append((5, [("validation included", "faint")]))
    return pieces


def _epoch_pieces(history: History, *, short_of_room: bool) -> list[tuple[int, Row]]:
    """The same for the epoch's bar: rates and the best so far."""
    now, over = history.progress, history.ended is not None
    pieces: list[tuple[int, Row]] = []
    if now and now.steps_per_second is not None and not over:
        pieces.append((2, [(f"{short(now.steps_per_second):>{RATE}}", "strong"), (" steps/s", "label")]))
        if now.samples_per_second is not None:
            pieces.append((4, [(f"{short(now.samples_per_second):>{RATE}}", "strong"), (" samples/s", "label")]))
    best = history.best
    if best is not None:
        monitor = history.started.monitor if history.started else ""
        name = monitor if monitor in best.metrics else "train/loss"
        said = [("" if over or short_of_room else "best ", "label"), (f"{name.replace('/', ' ')} ", "label")]
        at = " " if short_of_room else f" at {best.place} "  # the star says which it is
        value = [(number(best.metrics.get(name)), "strong"), (at, "label"), ("★", "mark")]
        pieces.append((1, said + value))
    return pieces


def _bar_cells(pieces: list[tuple[int, Row]], width: int) -> int:
    """What is left for the bar beside as many of the pieces as leave it a readable length."""
    room = [width - HEAD - length(fit(10**6, [piece for piece in pieces if piece[0] <= keep])) for keep in range(6)]
    least = SHORTEST if width >= NARROW else SHORTEST // 2
    cells = max(0, min(BAR, next((cells for cells in reversed(room) if cells >= least), room[0])))
    return cells if cells <= least else max(least, cells - cells % 4)  # the same, where a number gets a digit more


def _line(name: str, share: float | None, counted: str, pieces: list[tuple[int, Row]], cells: int, width: int) -> Row:
    """A name, a bar with its percentage where the total is known, and what fits of the pieces."""
    if share is None:
        head: Row = [(f" {name:<6} ", "label"), (f"{counted:<{cells + 6}}", "")]
    else:
        percent = f"{100 * min(max(share, 0.0), 1.0):.0f}%" if share < 0.995 or share >= 1 else "99%"
        head = [
            (f" {name:<6} ", "label"),
            *(bar(share, cells) if cells >= 4 else [(" " * cells, "")]),
            (f" {percent:>4} ", "strong"),
        ]
    rest = fit(width - length(head) - 1, pieces)
    return [*head, (" ", ""), *rest]


class Trouble(Rows):
    """A red line, or two, for as long as the disk does not take the run's checkpoints, and on a small screen for why a run
    failed, which its summary says on another page; nothing the rest of the time."""

    DEFAULT_CSS = """
    Trouble { height: auto; max-height: 3; overflow: hidden hidden; display: none; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._history = History()

    def show(self, history: History) -> None:
        """Draw what is new in `history`."""
        self._history = history
        failed, ended = history.failed_save, history.ended
        said = f"✗ checkpoint of step {failed.step:,} not written: {failed.reason}" if failed is not None else ""
        if said and ended is None and history.progress is not None and history.progress.phase == "save":
            said += "; the run waits until it can be: q, then k gives that up"
        elsewhere = self.screen.has_class("-small") and not self.screen.has_class("-page6")
        if elsewhere and ended is not None and ended.state in ("failed", "died"):
            said = f"✗ {ended.reason}   6 says more{', o what would help' if ended.proposal else ''}"
        self.display = bool(said)
        if said:
            lines = wrap(said, max(20, self.app.size.width - 2), initial_indent=" ", subsequent_indent="   ")
            self.styles.height = min(len(lines), 3)
            self.set_rows([[(line, "bad")] for line in lines])

    def on_resize(self) -> None:
        self.show(self._history)


class TitleLine(Rows):
    """What runs, where, and in which state; one row. It counts the seconds since the last checkpoint by itself."""

    DEFAULT_CSS = """
    TitleLine { height: 1; overflow: hidden hidden; }
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.time, every: float = 1.0, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._every = every  # seconds between two looks at the clock
        self._clock = clock
        self.expected = "epochal"  # what it is called until the run has begun
        self.attached = ""  # to which process
        self.wanted = ""  # "pausing" or "stopping": asked for, and not so yet
        self._history = History()

    def on_mount(self) -> None:
        self.set_interval(self._every, partial(self.guarded, self._tick))

    def show(self, history: History) -> None:
        """Draw what is new in `history`."""
        self._history = history
        if self.is_mounted and self.size.width:
            now = self._clock()
            self.set_rows([title_row(history, self.size.width, now, self.attached, self.wanted, self.expected)])

    def on_resize(self) -> None:
        self.show(self._history)

    def _tick(self) -> None:
        if self._history.ended is None and self._history.checkpoints:
            self.show(self._history)


def title_row(history: History, width: int, now: float, attached: str = "", wanted: str = "", expected: str = "epochal") -> Row:
    """`name · run · device · precision · execution ─── ● state · ckpt 0:21 ago` in at most `width` cells."""
    started, state = history.started, history.state
    symbol, role = STATES.get(state, ("?", "bad"))
    if wanted and history.ended is None and state != "saving":  # a step, or what a model waits for, may take long
        state, symbol, role = wanted, "◌", "warn"
    right: list[tuple[int, Row]] = [(0, [(f"{symbol} ", role), (state, role)])]
    if history.checkpoints:
        written = history.checkpoints[-1]
        age = f"ckpt {clock(now - written.time)} ago" if history.ended is None else f"ckpt at step {written.step}"
        right.append((1, [(f"· {age}", "label")]))
    left: list[tuple[int, Row]] = [(0, [(expected, "strong")])]
    if started is not None:
        left = [(0, [(started.name, "strong")])]
        stamp = run_stamp(started.path)
        for order, text in ((4, f"run {stamp}" if stamp else ""), (1, _device(started.device, started.device_name)),
                            (5, started.precision), (6, started.execution), (2, attached)):  # fmt: skip
            if text:
                left.append((order, [(f"· {text}", "label")]))
    tail = fit(max(12, width // 2), right, " ")
    room = width - length(tail) - 5
    if length(left[0][1]) > room:  # what it does is said whatever it is called
        left[0] = 0, [(cut(left[0][1][0][0], room), "strong")]
    head = fit(room, left, " ")
    line = "─" * max(1, width - length(head) - length(tail) - 4)
    return [(" ", ""), *head, (f" {line} ", "faint"), *tail, (" ", "")]


def run_stamp(path: str | None) -> str:
    """The date and time that a run directory's name starts with, its whole name if it has none."""
    if not path:
        return ""
    name = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    stamp = name[:15]
    return stamp if stamp[:8].isdigit() and stamp[8:9] == "-" and stamp[9:].isdigit() else name


def _device(device: str, name: str) -> str:
    """`cuda:0 H100`: the device with what tells it from others; a CPU needs no name."""
    if device == "cpu" or not name or name == device:
        return device
    short_name = name.replace("NVIDIA", "").replace("GeForce", "").split()
    return f"{device} {short_name[0]}" if short_name else device
