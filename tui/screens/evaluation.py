"""How good a run's model is: its metrics, the confusion matrix, each class, the worst samples."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Static

from engine.cli import format
from engine.cli.evaluate import REPORT, WORST, report_rows, residual_rows, worst_rows
from engine.errors import EpochalError
from engine.inference.evaluation import Evaluation
from tui.evaluating import Evaluated, Evaluating
from tui.keys import bindings
from tui.screens.base import Base, KeyLine
from tui.widgets.matrix import Matrix, visible
from tui.widgets.rows import Pane, Row

SECONDS = 0.1  # between two looks at the process
PANES = {1: "Confusion", 2: "Classes", 3: "Worst"}
NUMBERS = {2: "Errors", 3: "Worst"}  # the panes of numbers that are predicted


class EvaluationScreen(Base):
    """Shows the evaluation that the run keeps; without one, or where that is asked for, it is evaluated now."""

    NAME = "evaluation"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("evaluation")]

    def __init__(self, path: Path) -> None:
        super().__init__(classes="-page1")
        self._path = path
        self._page = 1
        self._checkpoint = ""
        self._found: Evaluation | None = None
        self._work: Evaluating | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="said", markup=False)
        yield Static(id="tabs")
        with Horizontal(id="panes"):
            yield Matrix()
            with Vertical(id="beside"):
                yield Pane(id="classes")
                yield Pane(id="worst")
        yield KeyLine("evaluation")

    def on_mount(self) -> None:
        for n, pane in enumerate(self.query("#beside Pane").results(Pane), 2):
            pane.fixed = 1
            pane.set_title(f"{n} {PANES[n]}")
        try:
            self._found = self.console_app.engine.evaluation_of(self._path)
        except EpochalError as error:  # it is written anew
            self.notify(str(error), severity="warning", markup=False)
        if self._found is None:
            self.action_again()
        else:
            self._show(self._found)
        self._entitle()
        self.set_interval(SECONDS, self._look)
        self.query_one(Matrix).focus()

    def on_unmount(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _look(self) -> None:
        if self._work is None:
            return
        now = self._work.poll()
        if now.over:
            self._work = None
        if now.found is not None:
            self._found = now.found
            self._show(now.found)
        elif now.failure:
            self.query_one("#said", Static).update(Content.styled(now.failure, "$text-error"))
        else:
            self._wait(now)

    def _wait(self, now: Evaluated) -> None:
        of = f" of {now.samples:,}" if now.samples else ""
        share = f"  {format.bar(now.done / now.samples, 20)}" if now.samples else ""
        said = f"evaluating: {now.done:,}{of} samples{share}" if now.done else "model and data are loaded …"
        self.query_one("#said", Static).update(Content.styled(said, "$text-muted"))

    def _show(self, found: Evaluation) -> None:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.made))
        metrics = "  ".join(f"{name} {format.value(value)}" for name, value in found.metrics.items())
        about = f"step {found.step:,} · {format.counted(found.samples, 'sample')}: {found.data} · {made}"
        parts = [Content.styled(metrics, "bold"), Content.styled(about, "$text-muted")]
        parts += [Content.styled(note, "$text-warning") for note in found.notes[:1]]
        self.query_one("#said", Static).update(Content("\n").join(parts))
        self.set_class(not found.classes, "-numbers")
        if found.confusion is not None:
            self.query_one(Matrix).show_matrix(found)
        else:
            self.query_one(Matrix).set_rows([[(" several labels a sample, or too many classes: no matrix", "faint")]])
        named = [(visible(name), *cells) for name, *cells in report_rows(found)]
        self._fill("classes", "2 Classes", REPORT, named)
        if found.residuals:
            self._fill("classes", "2 Errors ── output - target", ("", *found.residuals[0]), residual_rows(found))
        if self._page not in self._panes:
            self.action_pane(2)
        self._fill("worst", "3 Worst ── by loss; samples count from 0", ("sample", *WORST[1:]), worst_rows(found))
        self._entitle()

    def _fill(self, id: str, title: str, heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        pane = self.query_one(f"#{id}", Pane)
        lines = format.table([heads, *rows], ",".join(heads[1:]) if id == "classes" else "loss")
        drawn: list[Row] = [[(f" {lines[0]}", "label")], *([(f" {line}", "")] for line in lines[1:])]
        pane.set_title(title)
        pane.set_rows(drawn if rows else [[(" none", "faint")]])

    def _entitle(self) -> None:
        which = f" · checkpoint {self._checkpoint}" if self._checkpoint else ""
        self.query_one("#title", Static).update(
            Content.assemble(
                (" epochal", "bold $primary"), ("  evaluation", "bold"), (f" · {self._path.name}{which}", "$text-muted")
            )
        )
        tabs = [(f" {n} {name} ", "reverse bold" if n == self._page else "$text-muted") for n, name in self._panes.items()]
        self.query_one("#tabs", Static).update(Content.assemble(" ", *tabs))

    @property
    def _panes(self) -> Mapping[int, str]:
        return NUMBERS if self._found is not None and not self._found.classes else PANES

    # keys

    def action_again(self) -> None:
        """Evaluate now; in a process of its own."""
        if self._work is not None:
            self.notify("an evaluation is under way")
            return
        self._work = self.console_app.engine.evaluate(self._path, self._checkpoint)
        self._wait(Evaluated())

    def action_checkpoint(self) -> None:
        """Evaluate the last checkpoint instead of the best, or the best again."""
        if self._work is None:
            self._checkpoint = "best" if self._checkpoint == "last" else "last"
            self._entitle()
        self.action_again()

    def action_pane(self, n: int) -> None:
        """Give a pane the keyboard; on a small screen show it."""
        if n not in self._panes:
            return
        self.remove_class(f"-page{self._page}")
        self._page = n
        self.add_class(f"-page{n}")
        self._entitle()
        pane: Pane = (self.query_one(Matrix), self.query_one("#classes", Pane), self.query_one("#worst", Pane))[n - 1]
        self.set_focus(pane)

    def action_leave(self) -> None:
        """Back; an evaluation under way is ended."""
        self.app.pop_screen()

    def copies(self) -> list[tuple[str, str]]:
        """The command, and where the evaluation is kept."""
        engine = self.console_app.engine
        return [
            ("command", f"epochal evaluate {shlex.quote(engine.named(self._path))}"),
            ("file", str(self._path / "evaluation.json")),
            ("metrics", "\n".join(f"{name} {value}" for name, value in (self._found.metrics if self._found else {}).items())),
        ]
