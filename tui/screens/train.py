"""The training screen: what a run does, polled from its history; keys that steer it."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from engine.errors import EpochalError
from engine.history import History
from engine.verdict import verdict
from tui.followed import Followed
from tui.keys import bindings
from tui.others import Others
from tui.screens.after import AfterKeys
from tui.screens.arranging import BESIDE, LAST, Arranging
from tui.screens.ask import AskRun
from tui.screens.base import KeyLine
from tui.screens.charting import ChartKeys
from tui.screens.script import ScriptScreen, repeating
from tui.screens.steering import Steering
from tui.screens.table import TableScreen
from tui.screens.verdict import VerdictScreen
from tui.session import Session
from tui.widgets.chart import Chart
from tui.widgets.device import DevicePane
from tui.widgets.epochs import EpochLog
from tui.widgets.formats import number
from tui.widgets.layers import LayersPane
from tui.widgets.output import OutputPane
from tui.widgets.progress import RunProgress, TitleLine, Trouble
from tui.widgets.recipe_pane import RecipePane
from tui.widgets.rows import Rows
from tui.widgets.step import StepPane
from tui.widgets.summary import Summary
from tui.widgets.verdict import VerdictLine

PANES: dict[int, tuple[str, type[Widget]]] = {
    1: ("Chart", Chart),
    2: ("Recipe", RecipePane),
    3: ("Epochs", EpochLog),
    4: ("Device", DevicePane),
    5: ("Output", OutputPane),
    6: ("Summary", Summary),
    7: ("Step", StepPane),
    8: ("Layers", LayersPane),
}


class TrainScreen(AfterKeys, ChartKeys, Arranging, Steering):
    """One run. Polls, never waits; repaints what changed; stays open at the end with the summary."""

    NAME = "train"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("train")]

    def __init__(self, shown: Session | Followed) -> None:
        super().__init__(classes="-page1")
        self.shown = shown
        self.session = shown if isinstance(shown, Session) else None
        self._seen: tuple[object, ...] = ()
        self._read = shown.output_start  # of the printed text
        self._page = 1
        self._over = False
        self._chart: Chart | None = None
        self._origin: Others | None = None  # of a fork, to be drawn with it
        self._spent = time.thread_time()
        self._sent = 0  # to the terminal, at the last look

    def compose(self) -> ComposeResult:
        title = TitleLine(every=self.console_app.pace.tick)
        title.expected = str(self.shown.values.get("name") or title.expected)
        yield title
        yield RunProgress()
        yield Trouble()
        yield Static(id="tiny", markup=False)
        yield Static(self._tabs(), id="tabs")
        with Vertical(id="panes"):
            with Horizontal(id="top"):
                chart = Chart(self.console_app.view)
                chart.aliases = {"run1": "other"}
                yield chart
                with Vertical(id="right"):
                    yield self._recipe()
                    yield DevicePane()
            with Horizontal(id="middle"):
                yield EpochLog()
                yield StepPane()
                yield LayersPane()
                yield Summary()
            yield VerdictLine()
            yield OutputPane()
        yield KeyLine("train")

    def on_mount(self) -> None:
        self._chart = chart = self.query_one(Chart)
        chart.window, chart.cursor = self.console_app.parts.get(self.shown.path or self.shown, (None, None))
        self.put_beside(None)
        self.call_after_refresh(self.poll)

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self.lay_out()
        self._seen = ()
        self.call_after_refresh(self._show_now)  # panes that came into view

    def on_screen_resume(self) -> None:
        self._seen = ()

    def on_unmount(self) -> None:
        if self._chart is not None:
            self.console_app.parts[self.shown.path or self.shown] = self._chart.window, self._chart.cursor
        if isinstance(self.shown, Followed):
            self.shown.close()
        if self._origin is not None:
            self._origin.close()

    # drawing

    def poll(self) -> None:
        """Show what is new, then sleep so long that the screen keeps to its share of the time and of the link."""
        began, self._spent = self._spent, time.thread_time()
        before, self._sent = self._sent, self.console_app.sent
        # All this thread did since the last look: drawing, painting, keys. It ran while the training could not.
        cost, sent = self._spent - began, self._sent - before
        history, seen = self.shown.history, self._sight()
        looked_at = self.is_current or self.app.screen.has_class("-beside")  # the tour stands on it
        if looked_at and seen != self._seen and not self.console_app.suspended:
            self._seen = seen
            with self.app.batch_update():
                self._show(history)
        if self.is_current:
            self._show_output()
        self._tell()
        if not self._over and self.session is not None and not self.session.alive:
            self._end()
        self.set_timer(self.console_app.pace.after(cost, sent), self.poll)

    def _sight(self) -> tuple[object, ...]:
        """All that it depends on what is to be seen."""
        history = self.shown.history
        beside = [(name, other.version) for name, other in self._ghost()]
        panes = [rows for rows in self.query(Rows) if rows.is_on_screen]  # one may have come only now, laid out after its key
        return id(history), history.version, self._page, self.size, beside, panes, self.still_asked()

    def _show_now(self) -> None:
        self._show(self.shown.history)  # which may be another one by the time that this is called

    def _show(self, history: History) -> None:
        if self.has_class("-tiny"):
            self.query_one("#tiny", Static).update(one_line(history))
            return
        if (history.ended is not None) != self.has_class("-ended"):
            self.set_class(history.ended is not None, "-ended")
            self.put_beside(None)
            self.query_one(KeyLine).of = "train" if history.ended is None else "over"
            self.query_one("#tabs", Static).update(self._tabs())
        self.query_one(TitleLine).wanted = self.asked
        if isinstance(self.shown, Followed):
            self._place(self.shown.place)
        ghost = self._ghost()
        self.query_one(Chart).others = ghost
        self.query_one(EpochLog).other = ghost[0][1] if ghost else None
        for rows in self.query(Rows):
            if rows.is_on_screen or isinstance(rows, Summary | Trouble | VerdictLine):  # those that come and go
                rows.guarded(rows.show, history)

    def _ghost(self) -> tuple[tuple[str, History], ...]:
        """The run that this one is compared with: the one that the person chose, else the parent of a fork."""
        app, path = self.console_app, self.shown.path
        if not app.ghost_chosen and self._origin is None and path is not None and self.shown.history.started is not None:
            of = app.engine.parent_of(path)
            self._origin = Others(app.engine, [of] if of is not None else [])
        chosen = app.ghost if app.ghost_chosen else self._origin
        return tuple(other for other in chosen.named if path is None or other[0] != path.name) if chosen is not None else ()

    @property
    def followed(self) -> Followed | None:
        """The run, if another process trains it."""
        return self.shown if isinstance(self.shown, Followed) else None

    @property
    def chart_path(self) -> Path | None:
        """Where a chart of this run is written."""
        return self.shown.path

    def _place(self, place: tuple[str, int] | None) -> None:
        """Say which process trains the run that is attached to."""
        host, process = place or ("", None)
        here = host in ("", platform.node())
        self.query_one(TitleLine).attached = f"attached to process {process}{'' if here else f' on {host}'}" if place else ""
        self.query_one(DevicePane).process = process if here else None

    def _show_output(self) -> None:
        end = self.shown.output.end
        if end != self._read:
            text, self._read = self.shown.output.since(self._read), end
            pane = self.query_one(OutputPane)
            pane.guarded(pane.add, text)

    @on(Rows.Failed)
    def _pane_failed(self, event: Rows.Failed) -> None:
        """Its part of the screen is out of use, the rest goes on, and the run knows nothing of it."""
        self.shown.output.feed(event.traceback)
        self.notify(f"a part of the screen failed: {event.reason}; its traceback is in pane 5", severity="error", markup=False)

    def _tell(self) -> None:
        while self.shown.news:
            message = self.shown.news.popleft()
            self.notify(message.text, severity="error" if message.level == "error" else "warning", timeout=10, markup=False)

    def _end(self) -> None:
        self._over = True
        self._seen = ()
        if self.session is not None:
            self.console_app.ended(self.session)

    def _tabs(self) -> Content:
        parts: list[tuple[str, str]] = []
        for n, (title, _) in PANES.items():
            if n != LAST or self.has_class("-ended"):
                parts.append((f" {n} {title} ", "reverse bold" if n == self._page else "$text-muted"))
        return Content.assemble(" ", *parts)

    def _recipe(self) -> RecipePane:
        pane = RecipePane()
        # The defaults of names need torch: an attached console has it only once the form was needed.
        ready = self.console_app.preload.ready.is_set()
        values = self.shown.values or (self.shown.config if isinstance(self.shown, Followed) else {})
        pane.show_recipe(values, self.console_app.engine.complete({}) if ready and self.shown.values else None)
        return pane

    # keys

    def action_leave(self) -> None:
        """Take the cursor away; without one, back to the list that the run was opened from."""
        if not self.query_one(Chart).drop_cursor() and isinstance(self.app.screen_stack[-2], TableScreen):
            self.app.pop_screen()

    def action_pane(self, n: int) -> None:
        """Give pane n the keyboard; on a small screen show it."""
        if n == LAST and not self.has_class("-ended"):
            self.notify("the summary comes at the end of the run")
            return
        self.remove_class(f"-page{self._page}")
        self._page = n
        self.add_class(f"-page{n}")
        self.query_one("#tabs", Static).update(self._tabs())
        self._seen = ()
        if n in BESIDE:
            self.put_beside(n)
        pane: Widget = self.query_one(PANES[n][1])
        self.show_pane(PANES[n][1])
        self.set_focus(pane)
        self.call_after_refresh(self._show_now)

    def action_verdict(self) -> None:
        """Explain what the run's history says of it, and make the change ready that it proposes."""
        found = verdict(self.shown.history)
        if found is None:
            self.notify("there is nothing to say of this run yet")
            return
        change = found.change if self.shown.history.ended is None else ""
        proposal = found.recipe if self.shown.values else {}

        async def take(wanted: bool | None) -> None:
            if wanted and change:
                self.action_edit(change)
            elif wanted:
                await self._propose(proposal, f"because {found.text}")

        self.app.push_screen(VerdictScreen(found, change, proposal), take)

    @property
    def run_path(self) -> Path | None:
        """This run."""
        if self.shown.path is None:
            self.notify("this run has no directory: nothing of it is kept")
        return self.shown.path

    def action_resume(self) -> None:
        """Go on with the run, once it has ended."""
        ended = self.shown.history.ended
        if ended is None:
            self.notify("it has not ended: space pauses it, s stops it")
        elif (path := self.run_path) is not None and not self._busy():
            self._go_on(path, ended.epoch if ended.state == "finished" else None)

    def action_script(self) -> None:
        """Show the plain script of this run, and the command that repeats it."""
        if not self.shown.values:
            self.notify("this run has no recipe: it trained objects that were made in Python")
            return
        path = self.shown.path
        command = f"epochal train {shlex.quote(str(path / 'recipe.toml'))}" if path else repeating(self.shown.values)
        edits = ", ".join(f"{event.field} after step {event.step}" for event in self.shown.history.settings)
        note = f"This is the recipe as it was. The run was changed on its way: {edits}." if edits else ""
        where = Path(f"{path.name if path else self.shown.values.get('name', 'recipe')}.py")
        self.app.push_screen(ScriptScreen(self.console_app.engine, self.shown.values, where, command, note))

    async def action_proposal(self) -> None:
        """Open the form with the recipe as it would have worked; where there is none, clip outliers."""
        ended = self.shown.history.ended
        if ended is None or not ended.proposal or not self.shown.values:
            self.action_outliers()
            return
        await self._propose(ended.proposal)

    async def _propose(self, changes: Mapping[str, Any], why: str = "") -> None:
        values = with_fields(self.shown.values, changes)
        said = ", ".join(f"{field} {value}" for field, value in changes.items())
        name = self.shown.path.name if self.shown.path else "the run"
        await self.console_app.propose(values, f"as in {name}, but {said}{f', {why}' if why else ''}")

    def copies(self) -> list[tuple[str, str]]:
        """Where it is, how it is reached or repeated, what is under the cursor, why it failed."""
        path, ended, figure = self.shown.path, self.shown.history.ended, self.query_one(Chart).figure
        what = "resume" if ended is not None else "attach"
        reading = "".join(text for row in figure.reading(10**6, 1) for text, _ in row)
        failed = ended is not None and ended.state in ("failed", "died")
        return [
            ("run", str(path or "")),
            ("command", f"epochal {what} {shlex.quote(self.console_app.engine.named(path))}" if path else ""),
            ("cursor", reading),
            ("error", (self.session.failure if self.session else "") or (ended.reason if ended is not None and failed else "")),
            ("recipe", repeating(self.shown.values) if self.shown.values else ""),
            ("output", self.shown.output.since(max(0, self.shown.output.end - 20_000))),
        ]

    def action_ghost(self) -> None:
        """Choose a run to compare this one with."""

        def chosen(path: Path | str | None) -> None:
            if path is not None:
                self.console_app.compare_with(path if isinstance(path, Path) else None)

        own = self.shown.path.name if self.shown.path is not None else ""
        try:
            runs = self.console_app.engine.list_runs()
        except EpochalError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self.app.push_screen(AskRun([run.path for run in runs if run.name != own]), chosen)


def with_fields(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values with some of them changed; `changes` has dotted keys."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for field, value in changes.items():
        section, _, key = field.rpartition(".")
        (result.setdefault(section, {}) if section else result)[key] = value
    return result


def one_line(history: History) -> str:
    """All there is room for on a very small screen."""
    parts = [history.state]
    if history.failed_save is not None:
        parts.append("checkpoint not written")
    if history.started is not None and history.progress is not None:
        of, now = history.started.epochs, history.progress
        epoch = history.epochs[-1].epoch if history.ended is not None and history.epochs else now.epoch
        parts.append(f"epoch {epoch}{f'/{of}' if of else ''}" if of or epoch else f"step {now.step}")
    if history.epochs:
        parts += [
            f"{name.removesuffix('/loss')} {number(value)}" for name, value in list(history.epochs[-1].metrics.items())[:2]
        ]
    return " · ".join(parts)
