"""The form as its first frame shows it: its lines as text. The hundreds of widgets that edit them take longer to make."""

from __future__ import annotations

from collections.abc import Iterator

from textual.content import Content
from textual.widget import Widget

from engine.catalog.fields import REQUIRED, Field, Section
from tui.form.editors import Choice, Toggle, closed
from tui.form.model import NAMED, FormModel
from tui.form.rows import ABSENT, EDITOR, KEY, OWN, editor_of, placeholder
from tui.screens.base import SMALL


class Sketch(Widget):
    """A text that looks as the groups of a model do once they are there."""

    DEFAULT_CSS = """
    Sketch { height: auto; text-wrap: nowrap; text-overflow: ellipsis; padding: 0 1 0 0; }
    """

    def __init__(self, model: FormModel) -> None:
        super().__init__()
        self._model = model

    def render(self) -> Content:
        width, height = self.app.size
        return Content("\n").join(self._lines(notes=width >= SMALL[0] and height >= SMALL[1]))

    def _lines(self, notes: bool) -> Iterator[Content]:
        for group in self._model.groups:
            yield self._heading(group)
            for field in group.fields:
                yield self._row(group, field, notes)
            yield Content()

    def _heading(self, group: Section) -> Content:
        named = group.key in NAMED
        name = self._model.name(group.key)
        own = name is not None and name not in (*group.names, *group.unfit)
        mark = "• " if named and self._model.renamed(group.key) else "  "
        chosen = (f"{closed(OWN)}  {name}" if own else closed(name or ABSENT)) if named else ""
        return Content.assemble((f"{mark}{group.title}".ljust(KEY), "bold $primary"), chosen)

    def _row(self, group: Section, field: Field, notes: bool) -> Content:
        value = self._model.value(group.key, field)
        kind, empty = editor_of(field, value), value is None or value is REQUIRED
        if kind is Toggle:
            shown = "● yes" if value else "○ no"
        elif kind is Choice:
            absent = field.derived or (ABSENT if field.optional else "choose")
            shown = closed(absent if empty else field.show(value))
        else:
            shown = self._model.text(group.key, field) or placeholder(field)
        key = ("• " if self._model.differs(group.key, field) else "  ") + field.key
        note = "  " + field.help if notes else ""
        return Content.assemble((key.ljust(KEY), "$text-muted"), shown[:EDITOR].ljust(EDITOR), (note, "$text-muted"))
