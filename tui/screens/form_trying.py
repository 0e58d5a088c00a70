"""What is tried beside the form: a dry run, a learning-rate range test, the plain script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual.widget import Widget
from textual.widgets import Input, Static

from tui.door import Engine
from tui.form.rail import Rail
from tui.form.rows import Line
from tui.preload import Preload
from tui.screens.form_fields import FormFields

if TYPE_CHECKING:
    from tui.dry_run import DryRun, Found
    from tui.form.dry_pane import DryPane
    from tui.form.finder_pane import FinderPane


class FormTrying(FormFields):
    """Each in a process of its own; one pane at a time."""

    def __init__(self, engine: Engine, preload: Preload, values: Mapping[str, Any], source: str = "") -> None:
        super().__init__(engine, preload, values, source)
        self.dry_pane: DryPane  # both are made once the first frame is on the screen
        self.finder: FinderPane
        self._panes: tuple[DryPane, FinderPane] | tuple[()] = ()
        self._dry: DryRun | None = None
        self._before: Widget | None = None  # what had the keyboard before the dry run's pane

    async def _mount_groups(self) -> None:
        from tui.form.dry_pane import DryPane
        from tui.form.finder_pane import FinderPane

        await super()._mount_groups()
        if not self._panes:
            self._panes = self.dry_pane, self.finder = DryPane(), FinderPane()
            await self.query_one("#body").mount_all(self._panes)

    def on_unmount(self) -> None:
        if self._dry is not None:
            self._dry.cancel()

    def outdate(self) -> None:
        if self.dry_pane.display and self._dry is None:
            self.dry_pane.outdated()
        self.finder.outdated()

    def action_leave(self) -> None:
        """Out of the field; when nothing is being edited: end or close the dry run, else show all fields again."""
        if any(pane.display and self.focused in (None, pane) for pane in self._panes):
            self.close_pane()
        else:
            super().action_leave()

    async def action_dry_run(self) -> None:
        """Try the recipe in a process of its own: nothing here is touched, a training beside it least of all."""
        if self._typing_a_name():
            self.call_after_refresh(self.action_dry_run)
        elif self._dry is not None:
            self.notify("a dry run is under way; Esc cancels it")
        elif self.model.problems():
            self.show_problems(())
        else:
            pane = self.dry_pane
            self._make_room(pane)
            self._dry = self.engine.dry_run(self.model.values, self._axes())
            await pane.begin()
            pane.focus()
            self._polling = self.set_interval(0.2, self._look_at_dry_run)

    def _make_room(self, pane: Widget) -> None:
        """One pane at a time stands beside the fields; the keyboard goes back to where it was before."""
        before = self.focused if self.focused is not pane else self._before
        if any(beside.display for beside in self._panes):
            before = self._before
            self.close_pane()
        self._before = before
        self.query_one(Rail).give_way(True)

    def action_find_lr(self) -> None:
        """Train a copy with a growing rate, in a process of its own, and draw its loss."""
        pane = self.finder
        if self._typing_a_name():
            self.call_after_refresh(self.action_find_lr)
        elif pane.working:
            self.notify("a search is under way; Esc cancels it")
        elif self.model.problems():
            self.show_problems(())
        else:
            self._make_room(pane)
            pane.begin(self.engine.find_lr(self.model.values))
            pane.focus()

    def on_finder_pane_refused(self, event: FinderPane.Refused) -> None:
        self.close_pane()
        self.show_problems(event.problems)

    def on_finder_pane_chosen(self, event: FinderPane.Chosen) -> None:
        from engine.recipe import rate_field

        self.close_pane()
        line = self.line(rate_field(self.model.values))
        line.query_one(".editor", Input).value = f"{event.lr:g}"
        line.focus_editor()

    def copies(self) -> list[tuple[str, str]]:
        """The command that trains what is filled in, and what is wrong with it."""
        from tui.screens.script import repeating

        wrong = [line.error for line in self.query(Line) if line.error]
        banner = self.query_one("#banner", Static)
        return [
            ("command", "" if self.model.problems() else repeating(self.model.values)),
            ("mistakes", "\n".join([*wrong, str(banner.visual) if banner.display else ""])),
        ]

    def action_script(self) -> None:
        """Show the plain script of what is filled in, and the command that trains it."""
        from tui.screens.script import ScriptScreen, repeating

        if self._typing_a_name():
            self.call_after_refresh(self.action_script)
        elif self.model.problems():
            self.show_problems(())
        else:
            values = self.model.values
            where = Path(f"{values.get('name', 'recipe')}.py")
            self.app.push_screen(ScriptScreen(self.engine, values, where, repeating(values)))

    def _look_at_dry_run(self) -> None:
        if self._dry is None:
            return
        found = self._dry.poll()
        if found is None:
            self.dry_pane.working(self._dry.seconds)
            return
        self._dry = None
        self.call_later(self._show_dry_run, found)
        self._polling.stop()  # cancels the task that this runs in: last

    async def _show_dry_run(self, found: Found) -> None:
        if found.problems:
            self.close_pane()
        else:
            await self.dry_pane.show(found)
            self.query_one(Rail).take(found.facts)
        self.show_problems(found.problems)

    def close_pane(self) -> None:
        """End the dry run if it is under way, and take its pane away."""
        if self._dry is not None:
            self._dry.cancel()
            self._dry = None
            self._polling.stop()
        before = self._before
        for pane in self._panes:
            if pane.has_focus:
                self.set_focus(before if before is not None and before.is_attached and before.focusable else None)
            pane.display = False
        self.finder.close()
        self.query_one(Rail).give_way(False)
