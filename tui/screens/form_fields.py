"""The form's fields: the groups that a recipe calls for, filled in by keyboard and checked one by one."""

from __future__ import annotations

import traceback
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.css.query import NoMatches
from textual.widgets import Input, Static

from engine.errors import EpochalError, Problem
from tui.door import Engine
from tui.form.editors import Choice
from tui.form.model import FormModel, sentences
from tui.form.rail import Rail
from tui.form.rows import Group, Heading, Line, Row
from tui.form.sketch import Sketch
from tui.preload import Preload
from tui.screens.base import Base, Dialog, KeyLine


class Fields(VerticalScroll, can_focus=False, inherit_bindings=False):
    """The scrolled column; the arrow keys are the form's."""


class FormFields(Base):
    """One column of groups; fields that need torch come in when it is loaded, without disturbing what is typed."""

    def __init__(self, engine: Engine, preload: Preload, values: Mapping[str, Any], source: str = "") -> None:
        super().__init__()
        self.engine = engine
        self.preload = preload
        self.source = source
        self.model = FormModel(values, engine.sections)
        self._from_file = bool(source)
        self._start_wanted: Callable[[], None] | None = None  # as soon as torch is loaded
        self._nothing_found = False
        self._starting = ""  # what is being begun in another process
        self._edited_since = False  # since a run was started with it or its recipe was filled in
        self._of: Mapping[str, Any] = {}  # the recipe of that run
        self.complete = False  # whether all fields are there
        self.takes_keys = False  # until there are fields that they could go to

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Input(placeholder="part of a key or its help; Esc shows all", compact=True, id="filter")
        yield Static(id="banner", markup=False)  # below the filter: where nothing is found, what is typed stays in its place
        with Horizontal(id="body"):
            with Fields(id="fields"):
                yield Sketch(self.model)
            yield Rail(self.engine)
        yield Static(id="hint", markup=False)
        yield KeyLine("form")

    def on_mount(self) -> None:
        self._draw_title()
        self._draw_hint()
        self._waiting = self.set_interval(0.05, self._look_for_torch)

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self._begin)

    async def _begin(self) -> None:
        """The first frame is on the screen: make what edits the fields, then load torch. Keys wait for the former.

        Under a run that the console is opened on neither is needed before somebody comes back to the form.
        """
        if (self.app.screen is self or isinstance(self.app.screen, Dialog)) and self.query(Sketch):
            await self._mount_groups()
        self.console_app.load()
        self._measure()

    def on_screen_suspend(self) -> None:
        self.query_one(Rail).end()

    async def _mount_groups(self) -> None:
        fields = self.query_one("#fields")
        with self.app.batch_update():
            await fields.mount_all(Group(self.model, group) for group in self.model.groups)
            await fields.remove_children(
                [child for child in fields.children if not isinstance(child, Group) or child.model is not self.model]
            )
        self.takes_keys = True
        self.app.call_later(self.console_app.go_on)

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
        start, self._start_wanted = self._start_wanted, None
        self._draw_title()
        self._measure()
        if self._from_file:
            self.show_problems(self._check())
        if start is not None:
            start()

    # what is on the screen

    async def fill(
        self, values: Mapping[str, Any], source: str, several: Mapping[str, str] | None = None, *, ask: bool = True
    ) -> None:
        """Show the recipe of a run that is over; with `ask` not where the form was changed since that run began."""
        if values is self._of:
            return
        if self._edited_since and ask:
            self.notify("the form keeps what you changed in it")
            return
        self._of, self.source, self._edited_since = values, source, False
        self.model = FormModel(values, self.engine.sections)
        self.model.light = not self.complete
        self.model.several.update(several or {})
        self.model.refresh()
        await self._mount_groups()
        self.close_pane()
        self._filter()
        self._draw_title()
        self._draw_hint()
        self._measure()

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
            f"a sweep of {self._members():,} runs" if self.model.several else "a search" if self.searches else "",
            self.source or "default recipe",
            f"{changes} differ{'s' if changes == 1 else ''} from the defaults" if changes else "",
        ]
        ready = self.complete  # not before the fields that came with torch can be filled in
        state = "torch failed to load" if self.preload.failure else "ready" if ready else "loading torch …"
        if self._starting:
            state = self._starting
        if self._start_wanted:
            state = "starts as soon as torch is loaded …"
        symbol = ("✗ ", "$text-error") if self.preload.failure else ("● ", "$text-success") if ready else ("◌ ", "$text-muted")
        right = Content.assemble(symbol, (state, "$text-muted"), " ")
        parts = [f" · {part}" for part in parts if part]
        while parts and sum(map(len, parts)) + len(" epochal  new run ") + right.cell_length > self.size.width:
            parts.pop()
        left = Content.assemble((" epochal", "bold $primary"), ("  new run", "bold"), ("".join(parts), "$text-muted"))
        gap = max(1, self.size.width - left.cell_length - right.cell_length)
        self.query_one("#title", Static).update(Content.assemble(left, " " * gap, right))

    def _draw_hint(self) -> None:
        line = self._focused_line()
        if line is None:
            usual = "the search" if self.searches else "as it stands"
            what = f"the sweep of {self._members():,} runs" if self.model.several else usual
            shown = Content.styled(f"\n Tab or ↓ goes to the fields, r starts {what}", "$text-muted")
        else:
            said, help = (line.default(), line.help) if isinstance(line, Row) else (line.help, self._of_name(line))
            if line.key in self.model.several:
                said = f"Enter starts the sweep of {self._members():,} runs · Tab goes on"
            elif isinstance(line, Row) and line.field.kind in ("integer", "number"):
                said += " · 1, 2 or 1..8 or 1e-4..1e-1 x 4 is a sweep"
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
        self.query_one(KeyLine).of = "field" if isinstance(event.widget, Input) else "form"
        if event.widget.id == "filter":
            return
        line = self._focused_line()
        if line is not None and isinstance(line, Heading):
            self.query_one("#fields").scroll_to_widget(line, animate=False, top=False)

    def on_descendant_blur(self) -> None:
        self.call_later(self._draw_hint)
        if not isinstance(self.focused, Input):
            self.query_one(KeyLine).of = "form"

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
        self.outdate()
        self._measure()

    def _measure(self) -> None:
        """Have the rail say what is filled in now."""
        if self.complete:
            self.query_one(Rail).of(self.model)

    @abstractmethod
    def outdate(self) -> None:
        """What stands beside the form is of before the last change."""

    @abstractmethod
    def close_pane(self) -> None:
        """Take away what stands beside the form."""

    def _axes(self) -> tuple[str, ...]:
        return tuple(f"{key}={text}" for key, text in self.model.several.items())

    @property
    def searches(self) -> bool:
        """Whether the recipe has a [search]."""
        return bool(self.model.values.get("search"))

    def _members(self) -> int:
        from engine.sweep import count

        try:
            return count(self.model.axes)
        except EpochalError:  # stands beside its field
            return 0

    async def _sync_others(self, section: str) -> None:
        for group in self.query(Group):
            if group.group.key != section:
                await group.sync(self.model.group(group.group.key), keep=True)

    @on(Row.Swept)
    async def _swept(self) -> None:
        self.set_focus(None)
        await self.run_action("start")

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
        text = self.query_one("#filter", Input).value.strip().lower()
        found = (line for group in self.query(Group) if group.display for line in group.query(Line))
        first = next((line for line in found if line.display and line.matches(text) and line.query(".editor")), None)
        if first is not None:
            first.focus_editor()

    def action_filter(self) -> None:
        """Open the filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)  # at once: the next letters are for it. Widget.focus() would let them pass as keys

    def action_leave(self) -> None:
        """Out of the field; when nothing is being edited: show all fields again."""
        field = self.query_one("#filter", Input)
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

    def line(self, key: str) -> Line:
        """The line of this dotted key."""
        for line in self.query(Line):
            if line.key == key:
                return line
        raise NoMatches(f"no field {key}")
