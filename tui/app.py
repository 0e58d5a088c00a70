"""The console: the app around its screens."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from rich.console import Console as RichConsole
from textual import events
from textual.binding import BindingType
from textual.screen import Screen

from engine.errors import EpochalError
from engine.preferences import Preferences
from tui.attention import PRESENT, Attention
from tui.door import Engine
from tui.guest import Guest
from tui.kept import Keeper, view_of
from tui.keys import bindings
from tui.launch import Launcher
from tui.pacing import pace
from tui.preload import Preload
from tui.printable import Printable
from tui.screens.base import Base
from tui.screens.form import FormScreen
from tui.terminal import Output, Terminal
from tui.themes import DARK, LIGHT, ROLES, THEMES, chosen

if TYPE_CHECKING:
    from textual.command import Provider

    from tui.listing import Listing
    from tui.others import Others
    from tui.session import Session


def _palette() -> type[Provider]:
    from tui.palette import KeyCommands

    return KeyCommands


class Console(Guest):
    """`app.run()` returns why it ended: "quit", "detach", "kill", "hangup", "interrupted" or "terminated"; None after a crash.

    `left` is then what to tell of a run of another process that was on the screen.
    """

    CSS_PATH = "console.tcss"
    TITLE = "epochal"
    COMMANDS = {_palette}  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("app")]

    def __init__(
        self,
        engine: Engine,
        values: Mapping[str, Any],
        *,
        source: str = "",
        terminal: Terminal | None = None,
        launcher: Launcher | None = None,
        attach: Path | None = None,  # a run to open on
        lists: bool = False,  # whether to open on the list of runs
        welcome: bool = False,  # whether to begin with the first steps
        preferences: Preferences | None = None,  # None: the defaults, and nothing is kept
    ) -> None:
        super().__init__(terminal, launcher)
        self._filters.append(Printable())
        self.engine = engine
        self.left = ""
        self.output = terminal.output if terminal else Output()
        self.preload = Preload(engine)
        self.preferences = preferences or Preferences()
        kept = {key: self.preferences[f"attention.{key}"] for key in ("terminal", "command", "webhook", "stall_seconds")}
        self.attention = Attention(self._to_terminal, self._present, settings=kept)
        self.view = view_of(self.preferences)  # of every chart
        self.keeper = Keeper(self.preferences, self.view)
        self.parts: dict[object, tuple[tuple[float, float] | None, float | None]] = {}  # of charts: window and cursor, by run
        self._touched = time.monotonic()  # when a key was pressed last
        self.ghost: Others | None = None  # the run that the one on the screen is compared with
        self.ghost_chosen = False  # whether the person said so: a fork is else compared with its parent
        self.form = FormScreen(engine, self.preload, values, source)
        self._opens_on = attach
        self._lists = lists
        self._welcome = welcome
        self._tour = False  # with the run that is about to be shown
        self._leaving: str | None = None  # set while the app waits for the run's end to close
        for theme, _ in THEMES.values():
            self.register_theme(theme)
        self.theme, said = chosen(self.preferences["theme"], self.available_themes)
        self.pace, unfit = pace(self.preferences["link"])
        self._mistakes = [*self.preferences.problems, *filter(None, [said, unfit])]  # in the settings; told on the first screen

    @cached_property
    def listing(self) -> Listing:
        """Of the runs."""
        from tui.listing import Listing

        return Listing()

    @property
    def training(self) -> bool:
        """Whether a run of this console is under way."""
        return self.session is not None and self.session.alive

    def tell_errors_to(self, stream: TextIO) -> None:
        """Where a traceback of the console itself is written once the screen is gone."""
        self.error_console = RichConsole(file=stream, markup=False, highlight=False)

    def get_default_screen(self) -> Screen[Any]:
        return self.form

    @property
    def _background_screens(self) -> list[Screen[Any]]:
        # Textual lays out and paints the screen under another one also where that one lets nothing through.
        covered = self._screen_stack and self._screen_stack[-1].styles.background.a == 1
        return [] if covered else super()._background_screens

    def on_mount(self) -> None:
        if self._opens_on is not None:
            self.follow(self._opens_on)
            self._opens_on = None
        elif self._lists:
            self.action_runs()
        self.set_interval(1.0, self._attend)
        if not gc.isenabled():
            self.call_after_refresh(self._collect_garbage)
        if self._welcome and self.preferences["guide.welcome"]:
            self.preferences["guide.welcome"] = False
            self.call_after_refresh(self.action_first_steps)
        for sentence in self._mistakes:
            self.notify(sentence, severity="warning", markup=False, timeout=15)

    def _collect_garbage(self) -> None:
        gc.freeze()  # what is there by now stays: going through it takes longer than drawing a frame
        gc.enable()

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """The roles' colours for a theme that has none of its own."""
        theme = self.get_theme(self.theme)
        own, _ = THEMES[LIGHT if theme is not None and not theme.dark else DARK]
        return {role: own.variables[role] for role in (*ROLES, "other", "frame")}

    def refresh_css(self, animate: bool = True) -> None:
        # While there is no screen Textual would parse all of it twice: for the theme, and for the first screen.
        if self._is_mounted:
            super().refresh_css(animate)
        else:
            self.stylesheet.set_variables(self.get_css_variables())

    def load(self) -> None:
        """The form is there: load torch, unless the console is being opened on a run, which needs none."""
        if self.screen_stack[-1] is self.form and self._opens_on is None:
            self.preload.start()

    # attention

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Key | events.MouseEvent):
            self._touched = time.monotonic()
        await super().on_event(event)

    def _present(self) -> bool:
        """Whether somebody is at the keyboard, and this is the window that they see."""
        return self.app_focus and not self.suspended and time.monotonic() - self._touched < PRESENT

    def _to_terminal(self, codes: str) -> None:
        if self.suspended and self.terminal is not None:
            with contextlib.suppress(OSError):
                self.terminal.screen.write(codes)
                self.terminal.screen.flush()
        elif self._driver is not None:
            self._driver.write(codes)
            self._driver.flush()

    def _attend(self) -> None:
        """Call for what happened in the run of this console, and in those that are attached to."""
        runs = [self.session, *(screen.followed for screen in self.screen_stack if isinstance(screen, Base))]
        self.attention.look(*(run for run in runs if run is not None))
        self.keeper.look()
        if self.keeper.failure:
            self.notify(self.keeper.failure, severity="warning", markup=False)
            self.keeper.failure = ""
        while self.attention.problems:
            self.notify(self.attention.problems.popleft(), severity="warning", markup=False)

    def copy_to_clipboard(self, text: str) -> None:
        """By OSC 52; a text that is too long for that is left, and the person is told."""
        from tui.clipboard import osc52

        self._clipboard = text
        if codes := osc52(text, os.environ):
            self._to_terminal(codes)
        else:
            self.notify("that is too long for a terminal's clipboard", severity="warning")

    # runs

    def start(self, values: Mapping[str, Any]) -> None:
        """Train this recipe and show it."""
        self._show().start(values)

    def resume_run(self, path: Path, epochs: int | None, values: Mapping[str, Any]) -> None:
        """Go on with a run and show it."""
        self._show().resume(path, epochs, values)

    def fork_run(self, path: Path, step: int, values: Mapping[str, Any]) -> None:
        """Begin a new run at a checkpoint of another, and show it."""
        self._show().fork(path, step, values)

    def _show(self) -> Session:
        """The screen of a run that is about to begin."""
        from tui.screens.train import TrainScreen
        from tui.session import Session

        self.session = session = Session(self.engine, self.output, self.attention.notifier)
        self.attention.expect(session)
        self.action_form()
        self.push_screen(TrainScreen(session))
        if self._tour:
            self._tour = False
            self.call_after_refresh(self.action_first_steps)
        return session

    def follow(self, path: Path) -> None:
        """Show a run that is on disk, and go on showing it while another process trains it."""
        from tui.followed import Followed
        from tui.screens.train import TrainScreen

        own = self.session.path if self.session is not None and self.training else None
        if own is not None and own.resolve() == path.resolve():
            self.action_training()
            return
        try:
            followed = Followed(self.engine, path)
        except (EpochalError, OSError, ValueError) as error:
            said = f"can't be read: {error}" if path.exists() else "is not there any more"
            self.notify(f"{path.name} {said}", severity="error", markup=False)
            return
        self.push_screen(TrainScreen(followed))

    def compare_with(self, path: Path | None) -> None:
        """Make this run the ghost of the one on the screen, or have none."""
        from tui.others import Others

        if self.ghost is not None:
            self.ghost.close()
        self.ghost = None if path is None else Others(self.engine, [path])
        self.ghost_chosen = True

    def ended(self, session: Session) -> None:
        """The train screen saw that its session's thread has ended."""
        if session.problems and session.history.started is None:
            self.action_form()
            self.form.show_problems(session.problems)
        if self._leaving is not None:
            self.exit(self._leaving)

    # actions of everywhere

    def action_form(self) -> None:
        """The form; a run that trains goes on."""
        while len(self.screen_stack) > 1:
            self.pop_screen()

    async def action_new(self) -> None:
        """The form; from a run that is over with its recipe filled in."""
        from tui.screens.train import TrainScreen

        shown = self.screen.shown if isinstance(self.screen, TrainScreen) else None
        self.action_form()
        self.form.set_focus(None)  # its keys act: a text field would take them
        if shown is not None and shown.history.ended is not None and shown.values:
            await self.form.fill(shown.values, f"as in {shown.path.name}" if shown.path else "")

    async def propose(self, values: Mapping[str, Any], source: str) -> None:
        """The form with these values, whatever was in it."""
        self.action_form()
        await self.form.fill(values, source, ask=False)

    def action_training(self) -> None:
        """Back to the run of this console."""
        from tui.screens.train import TrainScreen

        if self.session is None:
            self.notify("nothing has been trained here yet: r in the form starts a run")
            return
        self.action_form()
        self.push_screen(TrainScreen(self.session))

    def action_runs(self) -> None:
        """The list of runs."""
        from tui.screens.runs import RunsScreen

        self._open(RunsScreen())

    def action_queue(self, job: int | None = None) -> None:
        """What is trained one after another; with `job` on that one."""
        from tui.screens.queue import QueueScreen

        self._open(QueueScreen(job))

    def action_searches(self, path: Path | None = None) -> None:
        """The leaderboard of a search: of this one, of that whose trial the cursor is on, else of the newest."""
        from engine.search.folder import search_of
        from tui.screens.runs import RunsScreen
        from tui.screens.search import SearchScreen
        from tui.screens.train import TrainScreen

        shown = self.screen.shown.path if isinstance(self.screen, TrainScreen) else None
        run = self.screen.under_cursor if isinstance(self.screen, RunsScreen) else shown
        self._open(SearchScreen(path or (run and search_of(run))))

    def _open(self, page: Screen[None]) -> None:
        """Over the run or the list that it was opened from, to which Esc then leads back; over the form where it is open."""
        if any(isinstance(screen, type(page)) for screen in self.screen_stack):
            self.action_form()
        self.push_screen(page)

    def action_first_steps(self) -> None:
        """Ready experiments for who never trained a model; on a run a tour of its screen."""
        from tui.screens.train import TrainScreen
        from tui.screens.welcome import TourScreen, WelcomeScreen

        if isinstance(self.screen, TrainScreen):
            self.preferences["guide.tour"] = False
            self.push_screen(TourScreen())
        else:
            self.push_screen(WelcomeScreen(), self._experiment)

    async def _experiment(self, values: Mapping[str, Any] | None) -> None:
        if values is not None:
            await self.propose(values, "first steps")
            self._tour = self.preferences["guide.tour"]
            self.form.action_start()

    def action_help(self) -> None:
        """All keys."""
        from tui.screens.help import HelpScreen

        self.push_screen(HelpScreen(self.screen.NAME if isinstance(self.screen, Base) else ""))

    def action_themes(self) -> None:
        """Choose the colours."""
        from tui.screens.theme import ThemeScreen

        self.push_screen(ThemeScreen(), self.action_colours)

    def action_colours(self, name: str | None) -> None:
        """Take these colours, from now on."""
        if name is not None:
            self.theme = self.preferences["theme"] = name

    async def action_quit(self) -> None:
        """Textual's own, by Ctrl-Q."""
        self.action_ask_quit()

    def action_ask_quit(self) -> None:
        """Leave; ask first while a run trains."""
        from tui.screens.quit import QuitScreen

        if self.training:
            self.push_screen(QuitScreen(), self._answered)
        else:
            self._leave()

    def action_detach(self) -> None:
        """Take the screen away and give the shell its prompt back; the run goes on."""
        from tui.screens.train import TrainScreen

        if self.session is not None and self.training:
            if self.session.path is not None or self.terminal is None:
                self.exit("detach")
            else:
                self.notify("the run has not begun yet: once more in a moment")
        elif isinstance(self.screen, TrainScreen) and self.screen.shown.alive:
            self._leave()
        else:
            self.notify("nothing is being trained here: q leaves")

    def _leave(self) -> None:
        from tui.screens.train import TrainScreen

        shown = next((screen.shown for screen in self.screen_stack[::-1] if isinstance(screen, TrainScreen)), None)
        if shown is not None and shown.alive and shown.path is not None:
            self.left = f"{shown.path.name} goes on: epochal attach {shlex.quote(self.engine.named(shown.path))}"
        self.exit("quit")

    def _answered(self, answer: str | None) -> None:
        if answer == "stop" and self.session is not None:
            self._leaving = "quit"
            self.session.control.stop()
            self.notify("stopping after this step, then saving")
            self.action_training()
        elif answer == "detach":
            self.action_detach()
        elif answer == "kill":
            self.exit(answer)
