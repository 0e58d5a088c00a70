"""The form: a recipe filled in by keyboard, checked field by field, tried and started with one key each."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.widget import Widget
from textual.widgets import Input, Static

from engine.errors import Problem
from tui.background import Begun, Starting
from tui.dry_run import DryRun, Found
from tui.form.dry_pane import DryPane
from tui.form.finder_pane import FinderPane
from tui.form.model import FormModel, sentences
from tui.form.rows import Choice, Group, Heading, Line, Row
from tui.form.sketch import Sketch
from tui.keys import bindings
from tui.screens.base import Base, KeyLine
from tui.screens.script import ScriptScreen, repeating
from tui.session import Engine, Preload


class Fields(VerticalScroll, can_focus=False, inherit_bindings=False):
    """The scrolled column; the arrow keys are the form's."""


class FormScreen(Base):
    """One column of groups; fields that need torch come in when it is loaded, without disturbing what is typed."""

    NAME = "form"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings("form")]

    def __init__(self, engine: Engine, preload: Preload, values: Mapping[str, Any], source: str = "") -> None:
        super().__init__()
        self.engine = engine
        self.preload = preload
        self.source = source
        self.model = FormModel(values, engine.sections)
        self._from_file = bool(source)
        self._start_wanted: Callable[[], None] | None = None  # as soon as torch is loaded
        self._nothing_found = False
        self._edited_since = False  # since a run was started with it or its recipe was filled in
        self._of: Mapping[str, Any] = {}  # the recipe of that run
        self._dry: DryRun | None = None
        self._background: Starting | None = None
        self._before: Widget | None = None  # what had the keyboard before the dry run's pane
        self.complete = False  # whether all fields are there

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="banner", markup=False)
        yield Input(placeholder="part of a key or its help; Esc shows all", compact=True, id="filter")
        with Horizontal(id="body"):
            with Fields(id="fields"):
                yield Sketch(self.model)
            yield DryPane()
            yield FinderPane()
        yield Static(id="hint", markup=False)
        yield KeyLine("form")

    def on_mount(self) -> None:
        self._draw_title()
        self._draw_hint()
        self._waiting = self.set_interval(0.05, self._look_for_torch)

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self._begin)

    async def _begin(self) -> None:
        """The first frame is on the screen: make what edits the fields, then load torch. Keys wait for the former."""
        if self.is_current and self.query(Sketch):
            await self._mount_groups()
        self.console_app.load()

    async def _mount_groups(self) -> None:
        fields = self.query_one("#fields")
        with self.app.batch_update():
            await fields.mount_all(Group(self.model, group) for group in self.model.groups)
            await fields.remove_children(
                [child for child in fields.children if not isinstance(child, Group) or child.model is not self.model]
            )

    def on_unmount(self) -> None:
        if self._dry is not None:
            self._dry.cancel()

    # torch

    def _look_for_torch(self) -> None:
        if self.preload.ready.is_set():
            self.call_later(self._torch_is_here)
            self._waiting.stop()  # cancels the task that this runs in: last

    async def _torch_is_here(self) -> None:
        self._draw_title()
        if self.preload.failure:
            self._banner("torch can't be loaded: " + self.preload.failure.strip().splitlines()[-1])
            return
        self.model.light = False
        self.model.refresh()
        for group in self.query(Group):
            await group.sync(self.model.group(group.group.key), keep=True)
        self._filter()
        self.complete = True
        self._draw_title()
        if self._from_file:
            self.show_problems(self._check())
        if self._start_wanted is not None:
            start, self._start_wanted = self._start_wanted, None
            start()

    # what is on the screen

    async def fill(self, values: Mapping[str, Any], source: str, *, ask: bool = True) -> None:
        """Show the recipe of a run that is over; with `ask` not where the form was changed since that run began."""
        if values is self._of:
            return
        if self._edited_since and ask:
            self.notify("the form keeps what you changed in it")
            return
        self._of, self.source, self._edited_since = values, source, False
        self.model = FormModel(values, self.engine.sections)
        self.model.light = not self.complete
        self.model.refresh()
        await self._mount_groups()
        self._close_pane()
        self._filter()
        self._draw_title()

    def show_problems(self, problems: Sequence[Problem], *, jump: bool = True) -> None:
        """Put each sentence beside its field, those without one at the top, and give the first bad field the keyboard."""
        found = {**sentences(problems), **self.model.problems()}
        first: Line | None = None
        for line in self.query(Line):
            keys = (line.key, line.group.key) if isinstance(line, Heading) else (line.key,)
            sentence = next((found.pop(key) for key in keys if key and key in found), "")
            line.show_error(sentence)
            if sentence and first is None:
                first = line
        self._banner("  ".join(found.values()))
        if first is not None and jump:
            first.display = True
            first.focus_editor()
        self._draw_hint()

    def _check(self) -> Sequence[Problem]:
        """Every mistake there is; one's own code that can't be loaded is one, with its traceback in the output pane."""
        try:
            return self.engine.problems(self.model.values)
        except Exception as error:
            self.console_app.output.feed(traceback.format_exc())
            return [Problem("", f"own code can't be loaded: {type(error).__name__}: {error}")]

    def _banner(self, text: str) -> None:
        banner = self.query_one("#banner", Static)
        banner.update("✗ " + text if text else "")
        banner.display = bool(text)

    def _draw_title(self) -> None:
        changes = self.model.changes()
        parts = [
            self.source or "default recipe",
            f"{changes} differ{'s' if changes == 1 else ''} from the defaults" if changes else "",
        ]
        ready = self.preload.ready.is_set()
        state = "torch failed to load" if self.preload.failure else "ready" if ready else "loading torch …"
        if self._background is not None:
            state = "starting in the background …"
        if self._start_wanted:
            state = "starts as soon as torch is loaded …"
        symbol = ("✗ ", "$text-error") if self.preload.failure else ("● ", "$text-success") if ready else ("◌ ", "$text-muted")
        left = Content.assemble(
            (" epochal", "bold $primary"),
            ("  new run", "bold"),
            ("".join(f" · {part}" for part in parts if part), "$text-muted"),
        )
        right = Content.assemble(symbol, (state, "$text-muted"), " ")
        gap = max(1, self.size.width - left.cell_length - right.cell_length)
        self.query_one("#title", Static).update(Content.assemble(left, " " * gap, right))

    def _draw_hint(self) -> None:
        line = self._focused_line()
        if line is None:
            shown = Content.styled("\n Tab or ↓ goes to the fields, r starts as it stands", "$text-muted")
        else:
            said, help = (line.default(), line.help) if isinstance(line, Row) else (line.help, self._of_name(line))
            looking = isinstance(line, Heading) and line.looked is not None
            second = ("✗ " + line.error, "$text-error") if line.error and not looking else (help, "")
            shown = Content.assemble((f" {line.key}", "bold"), (f"  {said}", "$text-muted"), "\n ", second)
        self.query_one("#hint", Static).update(shown)

    def _of_name(self, line: Line) -> str:
        """What the catalog says of the name that is chosen there, or that the cursor of the open choices is on."""
        if not isinstance(line, Heading) or not line.named:
            return ""
        name = line.looked or self.model.name(line.group.key)
        if name is None or not (self.complete or line.group.key == "data"):
            return ""
        if line.looked and name in line.group.unfit:
            return line.group.unfit[name]
        summary = self.engine.summary(line.group.key, name)
        return f"{name}: {summary}" if summary else ""

    def _focused_line(self) -> Line | None:
        focused = self.focused
        return next((node for node in focused.ancestors if isinstance(node, Line)), None) if focused else None

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self._draw_title()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self._draw_hint()
        if event.widget.id == "filter":
            return
        line = self._focused_line()
        if line is not None and isinstance(line, Heading):
            self.query_one("#fields").scroll_to_widget(line, animate=False, top=False)

    def on_descendant_blur(self) -> None:
        self.call_later(self._draw_hint)

    # what the person does

    @on(Line.Edited)
    async def _edited(self, event: Line.Edited) -> None:
        self._changed()
        line = event.line
        if isinstance(line, Row) and line.section == "data" and (line.field.choices or line.field.kind == "boolean"):
            self.model.refresh()  # perhaps the data are for another task now: other names fit
            await self._sync_others("data")

    def _changed(self) -> None:
        self._edited_since = True
        self._draw_title()
        self._draw_hint()
        pane = self.query_one(DryPane)
        if pane.display and self._dry is None:
            pane.outdated()
        self.query_one(FinderPane).outdated()

    async def _sync_others(self, section: str) -> None:
        for group in self.query(Group):
            if group.group.key != section:
                await group.sync(self.model.group(group.group.key), keep=True)

    @on(Choice.Looked)
    def _looked(self) -> None:
        self._draw_hint()

    @on(Heading.Picked)
    async def _picked(self, event: Heading.Picked) -> None:
        self.model.pick(event.section, event.name)
        group = next(group for group in self.query(Group) if group.group.key == event.section)
        await group.sync(self.model.group(event.section), keep=False)
        group.heading.show_error("")
        await self._sync_others(event.section)
        self._changed()
        self._filter()

    @on(Input.Changed, "#filter")
    def _filter(self) -> None:
        text = self.query_one("#filter", Input).value.strip().lower()
        for group in self.query(Group):
            rows = list(group.rows.values())
            for row in rows:
                row.display = not text or row.matches(text)
            group.display = not text or group.heading.matches(text) or any(row.display for row in rows)
        none = not any(group.display for group in self.query(Group))
        if none or self._nothing_found:
            self._banner(f"no field has {text!r} in its key or help" if none else "")
        self._nothing_found = none

    @on(Input.Submitted, "#filter")
    def _filtered(self) -> None:
        first = next((row for row in self.query(Row) if row.display and row.query_ancestor(Group).display), None)
        if first is not None:
            first.focus_editor()

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)  # at once: the next letters are for it. Widget.focus() would let them pass as keys

    def action_leave(self) -> None:
        """Out of the field; when nothing is being edited: end or close the dry run, else show all fields again."""
        field, pane = self.query_one("#filter", Input), self.query_one(DryPane)
        finder = self.query_one(FinderPane)
        if (pane.display and self.focused in (None, pane)) or (finder.display and self.focused in (None, finder)):
            self._close_pane()
            return
        if self.focused is None or self.focused is field:
            field.value = ""
            field.display = False
        self.set_focus(None)

    def action_group(self, step: int) -> None:
        """Give the next or the previous group the keyboard."""
        groups = [group for group in self.query(Group) if group.display]
        inside = [i for i, group in enumerate(groups) if self.focused is not None and group in self.focused.ancestors]
        at = inside[0] + step if inside else 0 if step > 0 else -1
        self._focus_first(groups[at % len(groups)])

    @staticmethod
    def _focus_first(group: Group) -> None:
        for line in group.query(Line):
            if line.display and any(editor.display for editor in line.query(".editor")):
                line.focus_editor()
                return

    def action_default(self) -> None:
        """Put the focused field's default back."""
        line = self._focused_line()
        if isinstance(line, Row):
            line.reset()

    def _typing_a_name(self) -> bool:
        """Take the name of own code that is being typed; whether that has to be waited for."""
        own = self.focused
        if isinstance(own, Input) and own.has_class("own"):
            self.set_focus(None)
            return True
        return False

    async def action_dry_run(self) -> None:
        """Try the recipe in a process of its own: nothing here is touched, a training beside it least of all."""
        if self._typing_a_name():
            self.call_after_refresh(self.action_dry_run)
        elif self._dry is not None:
            self.notify("a dry run is under way; Esc cancels it")
        elif self.model.problems():
            self.show_problems(())
        else:
            pane = self.query_one(DryPane)
            self._make_room(pane)
            self._dry = self.engine.dry_run(self.model.values)
            await pane.begin()
            pane.focus()
            self._polling = self.set_interval(0.2, self._look_at_dry_run)

    def _make_room(self, pane: Widget) -> None:
        """One pane at a time stands beside the fields; the keyboard goes back to where it was before."""
        before = self.focused if self.focused is not pane else self._before
        if self.query_one(DryPane).display or self.query_one(FinderPane).display:
            before = self._before
            self._close_pane()
        self._before = before

    def action_find_lr(self) -> None:
        """Train a copy with a growing rate, in a process of its own, and draw its loss."""
        pane = self.query_one(FinderPane)
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

    @on(FinderPane.Refused)
    def _not_tested(self, event: FinderPane.Refused) -> None:
        self._close_pane()
        self.show_problems(event.problems)

    @on(FinderPane.Chosen)
    def _rate_chosen(self, event: FinderPane.Chosen) -> None:
        self._close_pane()
        line = self.line("optimizer.lr")
        line.query_one(".editor", Input).value = f"{event.lr:g}"
        line.focus_editor()

    def action_script(self) -> None:
        """Show the plain script of what is filled in, and the command that trains it."""
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
            self.query_one(DryPane).working(self._dry.seconds)
            return
        self._dry = None
        self.call_later(self._show_dry_run, found)
        self._polling.stop()  # cancels the task that this runs in: last

    async def _show_dry_run(self, found: Found) -> None:
        if found.problems:
            self._close_pane()
        else:
            await self.query_one(DryPane).show(found)
        self.show_problems(found.problems)

    def _close_pane(self) -> None:
        """End the dry run if it is under way, and take its pane away."""
        if self._dry is not None:
            self._dry.cancel()
            self._dry = None
            self._polling.stop()
        before = self._before
        for pane in (self.query_one(DryPane), self.query_one(FinderPane)):
            if pane.has_focus:
                self.set_focus(before if before is not None and before.is_attached and before.focusable else None)
            pane.display = False
        self.query_one(FinderPane).close()

    def action_start(self) -> None:
        """Check everything; train, or go to the first field that is wrong."""
        if self.console_app.training:
            self.notify("a run is training: t goes back to it, s there stops it; B starts beside it", severity="warning")
        elif self._checked(self.action_start):
            self._of, self._edited_since = self.engine.complete(self.model.values), False
            self.console_app.start(self._of)

    def action_background(self) -> None:
        """Check everything; train in a process of its own, and show that run."""
        if self._background is not None:
            self.notify("a run is being started; it takes some seconds")
        elif self._checked(self.action_background):
            self._of, self._edited_since = self.engine.complete(self.model.values), False
            self._background = self.engine.start_in_background(self._of)
            self._draw_title()
            self._starting = self.set_interval(0.1, self._look_at_background)

    def _checked(self, start: Callable[[], None]) -> bool:
        """Whether a run can begin; `start` is called again where that only has to be waited for."""
        if self._typing_a_name():
            self.call_after_refresh(start)
            return False
        if not self.preload.ready.is_set():
            self._start_wanted = None if self._start_wanted else start
            self._draw_title()
            return False
        problems = self._check()
        self.show_problems(problems)
        return not (problems or self.model.problems())

    def _look_at_background(self) -> None:
        begun = self._background.poll() if self._background is not None else None
        if begun is None:
            return
        self._background = None
        self.call_later(self._begun, begun)
        self._starting.stop()  # cancels the task that this runs in: last

    def _begun(self, begun: Begun) -> None:
        self._draw_title()
        if begun.path is not None:
            self.console_app.action_form()
            self.console_app.follow(begun.path)
        else:
            self.console_app.output.feed(begun.printed)
            self._banner(f"not started: {begun.failure}")
            self.notify(f"not started: {begun.failure}", severity="error", markup=False)

    def line(self, key: str) -> Line:
        """The line of this dotted key."""
        for line in self.query(Line):
            if line.key == key:
                return line
        raise NoMatches(f"no field {key}")
