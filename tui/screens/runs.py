"""All runs below the runs' directory: look at one, go on with it, begin another from it, compare, keep order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widgets import DataTable, Input, Static

from engine.errors import EpochalError, RunError
from engine.run.about import in_short
from engine.run.status import ALIVE
from tui.keys import bindings
from tui.listing import elsewhere, told
from tui.screens.after import AfterKeys
from tui.screens.ask import AskFork
from tui.screens.base import SMALL, KeyLine
from tui.screens.ordering import Ordering
from tui.screens.preview import Preview
from tui.screens.table import Cut, Table, fit_columns
from tui.widgets.formats import cut, cut_middle

Found = tuple[Sequence[Any], Mapping[Any, tuple[float, int]], str | None]  # runs, their best by path, of this metric
NAME = 1  # the column of the names
_AGAIN = "torch is being loaded: once more in a moment"


class RunsScreen(AfterKeys, Ordering):
    """A table of runs, those at work first, then the newest, until the person sorts it otherwise.

    There may be many directories, on a slow file system.
    """

    NAME = "runs"
    SECONDS = 2.0
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("runs")]

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Input(self.console_app.listing.text, placeholder="words of name, state, tag or recipe", compact=True, id="filter")
        yield Table()
        yield Static("", id="empty", markup=False)
        yield Preview(self.console_app.engine, self.console_app.view)
        yield Static("", id="about", markup=False)
        yield KeyLine("runs")

    def on_mount(self) -> None:
        self._listing = self.console_app.listing
        self._all: Sequence[Any] = ()
        self._best: Mapping[Any, tuple[float, int]] = {}
        self._runs: dict[str, Any] = {}  # those in the table
        self.query_one("#filter").display = bool(self.console_app.listing.text)

    def on_screen_resume(self) -> None:
        self.action_reload()

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self.console_app.listing.narrow = event.size.width < SMALL[0]
        if self._drawn[0]:
            self._show()

    # reading

    def action_reload(self) -> None:
        """Read the runs' directories again; the cursor stays on its run."""
        self._newest, self._found = next(self._readings), None
        try:
            self._all = self.engine.list_runs()
        except EpochalError as error:
            self.notify(str(error), severity="error", markup=False)
        self._show()
        self._begin_reading()

    def _read(self) -> Found | None:
        listing = self._listing
        try:
            runs = self.engine.list_runs()
        except EpochalError:  # told where the person asks for it
            return None
        metric, smaller = listing.metric, listing.smaller(runs)
        best = {run.path: self.engine.scores.best(run.path, metric, smaller=smaller) for run in runs} if metric else {}
        return runs, {path: value for path, value in best.items() if value is not None}, metric

    def _take(self, found: Found) -> None:
        self._all, best, metric = found
        if metric == self._listing.metric:
            self._best = best
        else:  # chosen while the thread was at work
            self._begin_reading()
        self._show()

    # showing

    def _show(self) -> None:
        listing = self._listing
        chosen = listing.arranged(self._all, self._best)
        self._runs = {str(run.path): run for run in chosen}
        self._marked &= {str(run.path) for run in self._all}
        ghost = str(self.console_app.ghost.paths[0]) if self.console_app.ghost is not None else ""
        rows = {str(run.path): listing.cells(run, chosen, self._best, self._marked, ghost) for run in chosen}
        heads = listing.heads(chosen)
        tag, last = next((i for i, head in enumerate(heads) if head.startswith("tag")), 0), len(heads) - 1
        cuts: list[Cut] = [(last, 18, cut), *([(tag, 12, cut)] if tag else []), (NAME, 28, cut_middle), (last, 0, cut)]
        fit_columns(heads, rows, self.size.width, cuts)
        self._draw(heads, rows)
        self._entitle()
        self._tell()

    def _entitle(self) -> None:
        listing, count, there = self._listing, len(self._runs), len(self._all)
        live = sum(run.state in ALIVE for run in self._all)
        of = f"{count} of {there}" if count != there else f"{count}"
        self.query_one("#title", Static).update(
            Content.assemble(
                (" epochal", "bold $primary"),
                ("  runs", "bold"),
                (f" · {of}", "$text-muted"),
                (f" · {live} at work" if live else "", "$text-success"),
                (f" · {len(self._marked)} marked" if self._marked else "", "$text-accent"),
                (f" · by {listing.order}{', reversed' * listing.reverse}" if listing.order else "", "$text-muted"),
                (f" · in {self.engine.root}", "$text-muted"),
            )
        )
        self.query_one("#empty", Static).update(f"\n{self._none()}")

    def _none(self) -> str:
        return (
            "No run fits the filter: Esc takes it away." if self._all else "No run yet. n opens the form, r there starts one."
        )

    def _draw_below(self, preview: Preview) -> bool:
        preview.of(self._run, self._listing.metric)
        return self._run is not None

    def _about(self) -> tuple[str, str]:
        return told(self._run) if self._run is not None else ("", "")

    @property
    def _run(self) -> Any:
        """The run under the cursor, or None."""
        return self._runs.get(self._at())

    @property
    def under_cursor(self) -> Path | None:
        """The directory of the run under the cursor."""
        return None if self._run is None else Path(self._run.path)

    @property
    def run_path(self) -> Path | None:
        """The same, and the person is told where there is none."""
        return self._meant(self.under_cursor)

    def _chosen(self) -> list[Any]:
        """The marked runs as they stand in the list, else the one under the cursor."""
        marked = [run for run in self._all if str(run.path) in self._marked]
        return marked or [run for run in (self._run,) if run is not None]

    def copies(self) -> list[tuple[str, str]]:
        """Of the marked runs, else of the one under the cursor."""
        runs, named = self._chosen(), self.engine.named
        commands = ("attach" if run.state in ALIVE else "resume" for run in runs)
        return [
            ("path", "\n".join(str(run.path) for run in runs)),
            ("name", "\n".join(run.name for run in runs)),
            (
                "command",
                "\n".join(f"epochal {what} {quote(named(run.path))}" for what, run in zip(commands, runs, strict=True)),
            ),
            ("settings", "\n".join(in_short(run.differs) for run in runs)),
            ("reason", "\n".join(run.reason for run in runs if run.reason)),
        ]

    # the list

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        self._listing.text = event.value
        self._show()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.query_one("#filter").display = bool(self._listing.text)
        self.query_one(DataTable).focus()

    def action_leave(self) -> None:
        """Out of the filter, and without it; from the table, without the marks; then back to where one came from."""
        field = self.query_one("#filter", Input)
        if self.focused is not field and not field.value:
            if not self._marked:
                self.app.pop_screen()
                return
            self._marked.clear()
        field.value, field.display = "", False
        self.query_one(DataTable).focus()
        self._show()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._listing.next_order()
        self._show()

    def action_reverse(self) -> None:
        """The other way round."""
        listing = self._listing
        listing.reverse = not listing.reverse
        self._show()

    def action_metric(self, step: int) -> None:
        """Show the best of another metric."""
        self._listing.next_metric(step, self._all)
        self._best = {}
        self._show()
        self._begin_reading()

    def action_mark(self) -> None:
        """Mark the run, or take the mark away, and go on to the next."""
        if at := self._meant(self._at()):
            self._marked ^= {at}
            self._show()
            self.query_one(DataTable).action_cursor_down()

    # looking

    def action_open(self) -> None:
        """Look at the run under the cursor; at one that is at work, follow it. Marked ones are drawn on one chart."""
        if self._marked:
            self.action_overlay()
        elif run := self._meant(self._run):
            self.console_app.follow(run.path)

    def action_overlay(self) -> None:
        """Draw the marked runs on one chart."""
        from tui.screens.overlay import OverlayScreen

        if runs := self._meant(self._chosen()):
            self.app.push_screen(OverlayScreen([run.path for run in runs]))

    def action_compare(self) -> None:
        """In what the recipes differ: of the marked ones, of one and that under the cursor, or of this one and the default."""
        from tui.screens.differences import DifferencesScreen

        runs = self._meant(self._chosen())
        if len(runs) == 1 and self._run is not None and self._run not in runs:
            runs.append(self._run)
        config_of = self.engine.config_of
        alone = len(runs) == 1
        recipes = [
            (run.name, values) for run in runs if (values := (not alone and config_of(run.path)) or self._values_of(run.path))
        ]
        if len(recipes) < len(runs) or not runs:
            return
        if len(runs) == 1:
            if not self._loaded():
                return
            recipes.insert(0, ("default", self.engine.complete({})))
        self.app.push_screen(DifferencesScreen(recipes))

    def action_ghost(self) -> None:
        """Draw this run faint behind the one that is on the screen, or no longer."""
        run = self._meant(self._run)
        if run is None:
            return
        now = self.console_app.ghost
        taken = now is not None and now.paths[0] == run.path
        self.console_app.compare_with(None if taken else run.path)
        self.notify("no ghost" if taken else f"{run.name} is the ghost of the run on the screen", markup=False)
        self._show()

    # going on

    def action_resume(self) -> None:
        """Go on with the run under the cursor."""
        run = self._meant(self._run)
        if run is None or self._busy():
            return
        if run.state in ALIVE:
            where = f" on {run.host}" if elsewhere(run) else ""
            said = f"{run.name} is being trained by process {run.pid}{where}: Enter attaches to it"
            self.notify(said, severity="warning", markup=False)
        else:
            self._go_on(run.path, run.epoch if run.state == "finished" else None)

    def action_fork(self) -> None:
        """Begin a new run at one of its checkpoints."""
        run = self._meant(self._run)
        if run is None or self._busy() or (values := self._values_of(run.path)) is None or not self._loaded():
            return
        steps = self.engine.checkpoints(run.path)
        if not steps:
            self.notify(f"{run.name} has no checkpoint yet", severity="warning", markup=False)
            return

        def changed(text: str) -> Mapping[str, Any]:
            return self.engine.with_settings(values, settings(text))

        def begin(answer: tuple[int, Mapping[str, Any]] | None) -> None:
            if answer is not None:
                self.console_app.fork_run(run.path, *answer)

        self.app.push_screen(AskFork(run.name, steps, changed), begin)

    def action_queue(self) -> None:
        """Queue the marked runs, or this one, to be gone on with from their last checkpoints."""
        self._do(*(partial(self._enqueue, run.path) for run in self._meant(self._chosen())))

    def _enqueue(self, path: Path) -> str:
        try:
            return f"{self.engine.enqueue_run(path)} · Q shows the queue"
        except EpochalError as error:
            raise RunError(f"{error}: o opens its recipe, A there queues it") from error

    async def action_recipe(self) -> None:
        """Open the form with its recipe."""
        if (run := self._meant(self._run)) is not None and (values := self._values_of(run.path)) is not None:
            await self.console_app.propose(values, f"as in {run.name}")

    def _loaded(self) -> bool:
        """Whether torch is there; else it is being loaded from now on, and the person is told."""
        preload = self.console_app.preload
        preload.start()
        if not preload.ready.is_set():
            self.notify(_AGAIN)
        return preload.ready.is_set()


def settings(text: str) -> list[str]:
    """`optimizer.lr=3e-4 model.hidden=[64, 32]` as its settings."""
    return re.split(r"\s+(?=[A-Za-z_][\w.]*=)", text.strip()) if text.strip() else []
