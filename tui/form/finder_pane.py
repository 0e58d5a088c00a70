"""The pane beside the form with the learning-rate range test: loss over rate while it works, then what it suggests."""

from __future__ import annotations

import math
from textwrap import wrap
from typing import ClassVar, Protocol

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer

from engine.errors import Problem
from tui.finding import Tested
from tui.widgets.formats import number, rate
from tui.widgets.rows import Pane, Row

SYMBOLS = "★2"
HIGHEST = 1.5  # times the first loss: what lies above is drawn there, so that the end does not press the rest flat


class UnderWay(Protocol):
    """A test under way."""

    @property
    def seconds(self) -> float: ...

    def poll(self) -> Tested: ...

    def cancel(self) -> None: ...


class FinderPane(Pane):
    """The curve and the suggestions; Enter takes the first, 2 the second."""

    class Chosen(Message):
        """This learning rate is to go into the form."""

        def __init__(self, lr: float) -> None:
            super().__init__()
            self.lr = lr

    class Refused(Message):
        """The recipe has mistakes: there is nothing to be looked at here."""

        def __init__(self, problems: tuple[Problem, ...]) -> None:
            super().__init__()
            self.problems = problems

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take(0)", "the first suggestion", show=False),
        Binding("2", "take(1)", "the second suggestion", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._test: UnderWay | None = None
        self._timer: Timer | None = None
        self._found = Tested()

    def on_mount(self) -> None:
        self.display = False

    def on_unmount(self) -> None:
        self.close()

    @property
    def working(self) -> bool:
        """Whether a test is under way."""
        return self._test is not None

    def begin(self, test: UnderWay) -> None:
        """Show this test from now on."""
        self._test, self._found = test, Tested()
        self.display = True
        self.border_subtitle = "Esc cancels"
        self._timer = self.set_interval(0.2, self._look)
        self._draw()

    def close(self) -> None:
        """End the test if it is under way, and go away."""
        if self._test is not None:
            self._test.cancel()
            self._test = None
            if self._timer is not None:
                self._timer.stop()
        self.display = False

    def outdated(self) -> None:
        """The form was changed after the test began."""
        if self.display and not self.working:
            self.border_subtitle = "before the last change · Esc closes"

    def action_take(self, which: int) -> None:
        """Put a suggestion into the form."""
        if which < len(self._found.suggestions):
            self.post_message(self.Chosen(self._found.suggestions[which][0]))

    def on_resize(self) -> None:
        super().on_resize()
        self._draw()

    def _look(self) -> None:
        if self._test is None:
            return
        found = self._test.poll()
        if found.over:
            self._test = None
            self.border_subtitle = "Enter takes the first · Esc closes" if found.suggestions else "Esc closes"
            if found.problems:
                self.post_message(self.Refused(found.problems))
        if found != self._found or found.over:
            self._found = found
        self._draw()
        if found.over and self._timer is not None:
            self._timer.stop()  # cancels the task that this runs in: last

    def _draw(self) -> None:
        width, height = self.size
        seconds = f" · {self._test.seconds:.0f} s" if self._test is not None else ""
        self.set_title(f"Learning rate ── loss over rate · smoothed{seconds}")
        if not width or not self.display:
            return
        below = self._words(width)
        self.set_rows([*self._curve(width, max(6, height - len(below))), *below])

    def _curve(self, width: int, height: int) -> list[Row]:
        from tui.widgets.plot import Curve, Mark, draw

        found = self._found
        if not found.rates:
            return [[], [(" a copy of the model, trained with a growing rate …" if not found.over else "", "label")]]
        top = max(found.smoothed[0] * HIGHEST, found.smoothed[0] + 1e-9) if found.smoothed[0] > 0 else math.inf
        losses, smoothed = ([min(loss, top) for loss in values] for values in (found.losses, found.smoothed))
        marks = []
        for (lr, _), symbol in reversed(list(zip(found.suggestions, SYMBOLS, strict=False))):  # the first on top
            near = min(range(len(found.rates)), key=lambda i, lr=lr: abs(math.log(found.rates[i] / lr)))  # type: ignore[misc]
            marks.append(Mark(lr, smoothed[near], symbol))
        return draw(
            [Curve(found.rates, smoothed, "train")],
            [Curve(found.rates, losses, "faint")],
            marks,
            width,
            height,
            across="rate",
            braille=not self._ascii,
        )

    def _words(self, width: int) -> list[Row]:
        """What it suggests, or why it suggests nothing."""
        found = self._found
        rows: list[Row] = []
        if found.failure:
            return [[(f" {line}", "bad")] for line in wrap(f"✗ {found.failure}", max(20, width - 2))]
        if not found.over:
            return [[(f" at {rate(found.rates[-1])} the loss is {number(found.smoothed[-1])}", "label")]] if found.rates else []
        for (lr, rule), key, symbol in zip(found.suggestions, ("Enter", "    2"), SYMBOLS, strict=False):
            first, *others = wrap(rule, max(20, width - 21))
            rows.append([(f" {symbol} ", "mark"), (f"{key}  ", "label"), (f"{rate(lr):<7}", "strong"), (f"  {first}", "label")])
            rows += [[(" " * 19 + line, "label")] for line in others]
        if not found.suggestions:
            rows.append([(" no suggestion: the loss did not fall at any rate", "warn")])
        return [*rows, [(f" {found.ended}", "label")]]
