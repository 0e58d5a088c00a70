"""The form: a recipe filled in by keyboard, checked field by field, tried, and started, swept or queued with one key each."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType

from engine.errors import EpochalError
from tui.background import Begun, Starting
from tui.door import Engine
from tui.keys import bindings
from tui.preload import Preload
from tui.screens.form_trying import FormTrying

if TYPE_CHECKING:
    from tui.screens.recipes import Chosen


class FormScreen(FormTrying):
    """The fields, what is tried beside them, and the ways to begin."""

    NAME = "form"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("form")]

    def __init__(self, engine: Engine, preload: Preload, values: Mapping[str, Any], source: str = "") -> None:
        super().__init__(engine, preload, values, source)
        self._background: Starting | None = None
        self._said: deque[tuple[str, bool]] = deque()  # by a thread: what came of queueing, and whether that is good

    def action_start(self) -> None:
        """Check everything; train, or go to the first field that is wrong. Several values are a sweep."""
        if self.console_app.training:
            self.notify("a run is training: t goes back to it, s there stops it; B starts beside it", severity="warning")
        elif self.model.several or self.searches or self._together:
            self.action_background()
        elif self._checked(self.action_start):
            self._of, self._edited_since = self.engine.complete(self.model.values), False
            self.console_app.start(self._of)

    @property
    def _together(self) -> bool:
        """Whether several processes are to train: those are begun by a process of their own, and attached to."""
        return bool(dict(self.model.values.get("training") or {}).get("processes", 1) not in (1, None))

    def action_background(self) -> None:
        """Check everything; train in a process of its own, and show that run, or the sweep among the queue."""
        if self._background is not None:
            self.notify("a run is being started; it takes some seconds")
        elif self._checked(self.action_background):
            values, axes = self._meant()
            if self.searches:
                self._background = self.engine.start_search(values)
            else:
                start = self.engine.start_sweep if axes else self.engine.start_in_background
                self._background = start(values, *axes)
            what = f"a sweep of {self._members():,} runs" if axes else "the search" if self.searches else "in the background"
            self._starting = f"starting {what} …"
            self._draw_title()
            self._waiting_for = self.set_interval(0.1, self._look_at_background)

    def action_queue(self) -> None:
        """Check everything; put it into the queue as it is now."""
        if self._checked(self.action_queue):
            threading.Thread(target=self._enqueue, args=self._meant(), name="epochal-queue", daemon=True).start()
            self._looking = self.set_interval(0.1, self._look_at_queue)

    def _meant(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What is begun or queued, as it is now: the values, and what makes a sweep of them."""
        self._of, self._edited_since = self.engine.complete(self.model.values), False
        values = dict(self.model.values if self.model.several else self._of)
        return {**values, "search": self.model.values["search"]} if self.searches else values, self._axes()

    def _enqueue(self, values: Mapping[str, Any], axes: tuple[str, ...]) -> None:
        try:
            self._said.append((self.engine.enqueue(values, axes), True))
        except EpochalError as error:
            self._said.append((str(error), False))

    def _look_at_queue(self) -> None:
        if self._said:
            text, good = self._said.popleft()
            self.notify(
                f"{text} · Q shows the queue" if good else text, severity="information" if good else "error", markup=False
            )
            self._looking.stop()  # cancels the task that this runs in: last

    def action_recipes(self) -> None:
        """Begin with a saved recipe, that of an earlier run, or an example."""
        from tui.screens.recipes import RecipesScreen

        self.app.push_screen(RecipesScreen(self.engine, self.engine.saved), self._opened)

    async def _opened(self, chosen: Chosen | None) -> None:
        if chosen is not None:
            values, source, several = chosen
            await self.fill(values, source, several, ask=False)

    def action_save(self) -> None:
        """Keep what is filled in under a name."""
        from tui.screens.ask import AskText

        if self._typing_a_name():
            self.call_after_refresh(self.action_save)
        elif self.model.problems():
            self.show_problems(())
        else:
            known = self.source if self.source in self.engine.saved.names() else str(self.model.values.get("name", ""))
            said = f"A name for it, kept in {self.engine.saved.where}"
            self.app.push_screen(AskText("Save this recipe", said, known), self._save)

    def _save(self, name: str | None) -> None:
        from tui.screens.ask import Confirm

        if not name:
            return
        if name in self.engine.saved.names() and name != self.source:
            question = Confirm("Save it in the place of the recipe of this name?", [name])
            self.app.push_screen(question, lambda sure: self._saved(name) if sure else None)
        else:
            self._saved(name)

    def _saved(self, name: str) -> None:
        try:
            self.engine.saved.save(name, self.model.values, self.model.several)
        except EpochalError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self.source = name
        self._draw_title()
        self.notify(f"saved as {name}: o opens it", markup=False)

    def _checked(self, start: Callable[[], None]) -> bool:
        """Whether a run can begin; `start` is called again where that only has to be waited for."""
        if self._typing_a_name():
            self.call_after_refresh(start)
            return False
        if not self.preload.ready.is_set():
            self._start_wanted = None if self._start_wanted else start
            self._draw_title()
            return False
        if self.searches and self.model.several:
            said = "several values are a sweep, and the recipe has a [search]: one of them at a time"
            self.notify(said, severity="warning")
            return False
        problems = self._check()
        self.show_problems(problems)
        if problems and self._focused_line() is None:  # the same line may have been there before the key
            self.notify("it can't begin: the line at the top says why", severity="warning")
        return not (problems or self.model.problems())

    def _look_at_background(self) -> None:
        begun = self._background.poll() if self._background is not None else None
        if begun is None:
            return
        self._background, self._starting = None, ""
        self.call_later(self._begun, begun)
        self._waiting_for.stop()  # cancels the task that this runs in: last

    def _begun(self, begun: Begun) -> None:
        self._draw_title()
        if begun.job is not None:
            self.console_app.action_queue(begun.job)
        elif begun.search is not None:
            self.console_app.action_searches(begun.search)
        elif begun.path is not None:
            self.console_app.action_form()
            self.console_app.follow(begun.path)
        else:
            self.console_app.output.feed(begun.printed)
            self._banner(f"not started: {begun.failure}")
            self.notify(f"not started: {begun.failure}", severity="error", markup=False)
