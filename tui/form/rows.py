"""The form's rows: mark and key, an editor one line high, and beside it what is wrong or what it means."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from engine.catalog.fields import REQUIRED, Field, Section
from tui.form.editors import Choice, Toggle, compact
from tui.form.model import NAMED, FormModel, dotted
from tui.widgets.formats import cut_middle

OWN = "own…"
ABSENT = "none"
KEY, EDITOR, PATH = 24, 26, 16  # cells, as console.tcss has them
LEAST = 18  # cells that a note needs
_SHOWN = re.compile(r"^[\w.]+ = ('[^']*'|\S+),? ")


class Line(Horizontal):
    """One line of the form: what rows and headings share. Mark, key and note are its own text, around the editor."""

    class Edited(Message):
        """A value was changed by the person."""

        def __init__(self, line: Line) -> None:
            super().__init__()
            self.line = line

    def __init__(self, key: str, title: str, help: str, classes: str) -> None:
        super().__init__(classes=classes)
        self.key = key  # dotted
        self.title = title
        self.help = help
        self.error = ""
        self.marked = title  # with what says that it differs from the default
        self.note = ""  # what stands beside the editor
        self.key_style = ""

    def render(self) -> Content:
        focused, wrong = self.has_focus_within, self.has_class("-wrong")
        key = "$text-error" if wrong else self.key_style or ("" if focused else "$text-muted")
        room = self.size.width - KEY - 2 - self.editor_cells
        note = self.note if wrong or (room >= LEAST and not self.screen.has_class("-small")) else ""
        if not note:
            return Content.styled(self.marked, f"{key} bold" if focused else key)
        return Content.assemble(
            (self.marked.ljust(KEY), f"{key} bold" if focused else key),
            " " * (2 + self.editor_cells),
            (note, "$text-error" if wrong else "$text-muted"),
        )

    @property
    def editor_cells(self) -> int:
        """What stands between key and note."""
        return EDITOR

    def on_descendant_focus(self) -> None:
        self.refresh()

    def on_descendant_blur(self) -> None:
        self.refresh()

    def matches(self, text: str) -> bool:
        """Whether a filter lets this line stand."""
        return text in self.key.lower() or text in self.help.lower()

    def focus_editor(self) -> None:
        """Give the line the keyboard."""
        for editor in self.query(".editor"):
            if editor.display and editor.focusable:
                self.screen.set_focus(editor)
                return

    def show_error(self, error: str) -> None:
        """Draw the line with this error beside it, or with none."""
        self.show(differs=False, error=error)

    def show(self, differs: bool, error: str, note: str = "") -> None:
        """Draw the mark and the note beside; an error takes the note's place."""
        self.error = error
        self.marked = cut_middle(("• " if differs else "  ") + self.title, KEY - 1)
        # The row shows key and value already: of the engine's "key is value; it must be …", "key = value can't …" the rest.
        self.note = "✗ " + _SHOWN.sub("", error.rpartition("; it ")[2]) if error else note
        self.set_class(bool(error), "-wrong")
        self.refresh()


def editor_of(field: Field, value: Any) -> type[Widget]:
    """What edits this field while it has this value; one that is no choice of it is text."""
    if field.kind == "boolean" and not field.optional and isinstance(value, bool):
        return Toggle
    choices = (True, False) if field.kind == "boolean" else () if field.kind == "list" else field.choices
    return Choice if choices and (value is None or value is REQUIRED or value in choices) else Input


def placeholder(field: Field) -> str:
    """What an empty text stands for."""
    return (
        "must be given"
        if field.default is REQUIRED
        else field.derived or (ABSENT if field.optional or field.kind == "list" else "")
    )


class Row(Line):
    """A field."""

    class Swept(Message):
        """Enter behind several values: the sweep is to begin."""

    def __init__(self, model: FormModel, section: str, field: Field) -> None:
        super().__init__(dotted(section, field.key), field.key, field.help, "row")
        self.model = model
        self.section = section
        self.field = field

    def compose(self) -> ComposeResult:
        yield self._editor()

    def on_mount(self) -> None:
        self.show_error("")

    def show_error(self, error: str) -> None:
        """Show the present state with this error."""
        self.show(self.model.differs(self.section, self.field), error, self.help)

    def adopt(self, field: Field) -> bool:
        """Stand for this field from now on, if it is edited in the same way; what is being typed stays."""
        if field != self.field:
            editor = self.query_one(".editor")
            if not (isinstance(editor, Input) and editor_of(field, self.model.value(self.section, field)) is Input):
                return False
            self.field, self.help = field, field.help
            self.show_error("")
        return True

    def default(self) -> str:
        """The default in words."""
        if self.field.default is REQUIRED:
            return "must be given"
        if self.field.default is None:
            return f"default: {self.field.derived}" if self.field.derived else "default: none"
        return f"default {self.field.show(self.field.default)}"

    def reset(self) -> None:
        """Put the default back, on the screen too."""
        error = self.model.set(self.section, self.field, None)
        editor = self.query_one(".editor")
        value = self.model.value(self.section, self.field)
        with self.prevent(Input.Changed, Choice.Changed, Toggle.Changed):
            if isinstance(editor, Input):
                editor.value = self.model.text(self.section, self.field)
            elif isinstance(editor, Choice):
                editor.value = None if value is REQUIRED else value
            elif isinstance(editor, Toggle):
                editor.value = value
        self.show_error(error)
        self.post_message(self.Edited(self))

    def _editor(self) -> Widget:
        field, value = self.field, self.model.value(self.section, self.field)
        kind = editor_of(field, value)
        if kind is Toggle:
            return Toggle(value)
        empty = value is None or value is REQUIRED
        if kind is Choice:
            choices: list[tuple[str | Text, Any]] = [(field.show(choice), choice) for choice in field.choices or (True, False)]
            if field.optional or empty:
                choices.insert(0, (field.derived or (ABSENT if field.optional else "choose"), None))
            return Choice(choices, None if empty else value)
        hint = placeholder(field)
        return compact(Input(self.model.text(self.section, field), placeholder=hint, validate_on=[], classes="editor"))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.value == self.model.text(self.section, self.field):
            return  # no person typed it: an Input says its first value too
        error = self.model.write(self.section, self.field, event.value)
        self.show_error(error if self.error else "")  # a new error waits until the field is left
        self.post_message(self.Edited(self))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self.key in self.model.several:
            self.post_message(self.Swept())
        else:
            self.screen.focus_next()

    def on_input_blurred(self, event: Input.Blurred) -> None:
        event.stop()
        self.show_error(self.model.problem(self.section, self.field))

    def on_choice_changed(self, event: Choice.Changed) -> None:
        event.stop()
        self._take(event.value)

    def on_toggle_changed(self, event: Toggle.Changed) -> None:
        event.stop()
        self._take(self.query_one(Toggle).value)

    def _take(self, value: Any) -> None:
        if value == self.model.value(self.section, self.field):
            return
        self.show_error(self.model.set(self.section, self.field, value))
        self.post_message(self.Edited(self))


class Heading(Line):
    """A group's title and, where there is one, the choice of its name: from the catalog or one's own code."""

    class Picked(Message):
        """Another name was chosen: the group's fields follow."""

        def __init__(self, section: str, name: str | None) -> None:
            super().__init__()
            self.section = section
            self.name = name

    def __init__(self, model: FormModel, group: Section) -> None:
        self.named = group.key in NAMED
        key = dotted(group.key, "name") if self.named else group.key
        help = "Enter: choices; own…: file.py:Name or package.module:Name"
        super().__init__(key, group.title, help if self.named else "", "heading")
        self.key_style = "$primary bold"
        self.model = model
        self.group = group
        self._refused = ""  # the sentence shown for a choice that was not taken
        self.looked: str | None = None  # the name under the cursor of the open choices

    def compose(self) -> ComposeResult:
        if self.named:
            name = self.model.name(self.group.key)
            own = name is not None and name not in (*self.group.names, *self.group.unfit)
            names: list[tuple[str | Text, str]] = [(item, item) for item in self.group.names]
            names += [(Text(f"{item} ✗", "dim"), item) for item in self.group.unfit]
            if self.group.optional:
                names.insert(0, (ABSENT, ABSENT))
            yield Choice([*names, (OWN, OWN)], OWN if own else name or ABSENT)
            path = compact(Input(name or "" if own else "", placeholder="file.py:Name", validate_on=[], classes="editor own"))
            path.display = own
            yield path

    @property
    def editor_cells(self) -> int:
        own = self.query(".own")
        return EDITOR + (1 + PATH if own and own.first().display else 0)

    def matches(self, text: str) -> bool:
        return text in self.key.lower() or text in self.title.lower()

    def on_mount(self) -> None:
        self.show_error("")

    def show_error(self, error: str) -> None:
        """Show the present state with this error."""
        self.show(self.named and self.model.renamed(self.group.key), error)

    def on_choice_looked(self, event: Choice.Looked) -> None:
        self.looked = event.value if event.value not in (ABSENT, OWN) else None

    def on_choice_changed(self, event: Choice.Changed) -> None:
        event.stop()
        present = self.model.name(self.group.key)
        if event.value in self.group.unfit and event.value != present:
            self._refuse(event.choice, self.group.unfit[str(event.value)])
            return
        if self._refused:
            self.show_error("")
            self._refused = ""
        path = self.query_one(".own", Input)
        path.display = event.value == OWN
        if event.value != OWN:
            self._pick(None if event.value == ABSENT else str(event.value))
        elif path.value:
            self._pick(path.value)
        else:
            self.screen.set_focus(path)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.screen.focus_next()

    def on_input_blurred(self, event: Input.Blurred) -> None:
        event.stop()
        if event.value.strip():
            self._pick(event.value.strip())

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()

    def _refuse(self, choice: Choice, sentence: str) -> None:
        """Leave the choice as it was and say why, until the person goes on."""
        present = self.model.name(self.group.key)
        known = present is None or present in (*self.group.names, *self.group.unfit)
        with choice.prevent(Choice.Changed):
            choice.value = (present or ABSENT) if known else OWN
        self.show_error(sentence)
        self._refused = sentence
        self.post_message(self.Edited(self))

    def on_descendant_blur(self) -> None:
        self.refresh()
        self.call_after_refresh(self._left)

    def _left(self) -> None:
        if self._refused and self.error == self._refused and not self.has_focus_within:
            self.show_error("")
            self._refused = ""

    def _pick(self, name: str | None) -> None:
        if name != self.model.name(self.group.key):
            self.post_message(self.Picked(self.group.key, name))


class Group(Vertical):
    """One group of the form; `sync` follows the model and leaves rows that stay untouched."""

    def __init__(self, model: FormModel, group: Section) -> None:
        super().__init__(classes="group")
        self.model = model
        self.group = group
        self.heading = Heading(model, group)
        self.rows = {field.key: Row(model, group.key, field) for field in group.fields}

    def compose(self) -> ComposeResult:
        yield self.heading
        yield from self.rows.values()

    async def sync(self, group: Section, *, keep: bool) -> None:
        """Show another set of fields. `keep`: where a field is edited as before, its row stays, with what is typed."""
        if not self.heading.is_attached:
            return  # the app is closing
        old, old_heading = self.rows, self.heading
        focused = next((key for key, row in old.items() if row.has_focus_within), None)
        wait: list[Awaitable[object]] = []
        if (group.names, group.unfit) != (self.group.names, self.group.unfit):  # torch came, or the data are for another task
            self.heading = Heading(self.model, group)
            wait.append(self.mount(self.heading, before=old_heading))
            wait.append(old_heading.remove())
        self.group, self.rows = group, {}
        after: Line = self.heading
        for field in group.fields:
            row = old.get(field.key)
            if row is None or not keep or not row.adopt(field):
                row = Row(self.model, group.key, field)
                wait.append(self.mount(row, after=after))
            self.rows[field.key] = after = row
        wait.append(self.remove_children([row for row in old.values() if row not in self.rows.values()]))
        refocus = old_heading is not self.heading and old_heading.has_focus_within
        for each in wait:
            await each
        if refocus:
            self.heading.focus_editor()
        elif keep and focused in self.rows and self.rows[focused] is not old[focused]:  # else the person may have gone on
            self.rows[focused].focus_editor()
