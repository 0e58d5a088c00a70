"""The live edit: values of the plan that change from the next step on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.changes import FIELDS, Change, parse_change
from engine.errors import RecipeError
from engine.history import History
from tui.screens.base import Dialog
from tui.widgets.formats import number, rate

HINT = "FIELD=VALUE, several with blanks between them; x0.5 multiplies, none takes a limit away"


class EditScreen(Dialog[tuple[Change, ...]]):
    """Answers the changes that are asked for, none when it is left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(())", "cancel", id="edit-cancel"),
        Binding("down", "to_list", "to the list", show=False),
    ]

    def __init__(self, values: Mapping[str, Any], history: History, proposed: str = "lr=x0.5") -> None:
        super().__init__()
        self._proposed = proposed
        self._now = now(values, history)
        self._most = (values.get("training") or {}).get("max_steps")

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Change from the next step on"
            box.border_subtitle = "Enter changes · Esc leaves all as it is"
            yield Input(self._proposed, compact=True, id="change")
            yield Static(HINT, classes="line", markup=False)
            yield Static("", classes="error", markup=False)
            yield OptionList(*(Option(self._line(field), id=field) for field in FIELDS), compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def _line(self, field: str) -> Content:
        value = self._now[field]
        said = rate if field == "optimizer.lr" else number
        shown = "none" if value is None else f"{value:,.0f}" if FIELDS[field].whole or not value else said(value)
        also = f"   but at most {self._most:,} steps" if field == "training.epochs" and self._most else ""
        return Content.assemble(f"{field:<26}", (f"{shown:>9}", "bold"), (also, "$text-muted"))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Say what the field is."""
        if self.query_one(OptionList).has_focus:
            self.query_one(".line", Static).update(FIELDS[str(event.option.id)].help)

    def action_to_list(self) -> None:
        """From the text down to the fields."""
        self.query_one(OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """The field goes into the text, with its present value."""
        field = str(event.option.id)
        value = self._now[field]
        text = self.query_one(Input)
        text.value = f"{field}={'none' if value is None else f'{value:g}'}"
        text.focus()

    def on_input_submitted(self) -> None:
        text = self.query_one(Input).value
        try:
            changes = tuple(map(parse_change, text.split()))
            for change in changes:  # as far as the screen knows: the trainer has the last word
                if not change.times or self._now[change.field] is not None:
                    change.of(self._now[change.field])
        except RecipeError as error:
            self.query_one(".error", Static).update(str(error))
            return
        self.dismiss(changes)


def now(values: Mapping[str, Any], history: History) -> dict[str, float | None]:
    """What each field is at present, as far as the screen knows: changed last, or as in the recipe; None for no limit."""
    present: dict[str, float | None] = {}
    for field in FIELDS:
        section, _, key = field.partition(".")
        value = (values.get(section) or {}).get(key)
        present[field] = float(value) if isinstance(value, int | float) else None
    present.update((event.field, event.value) for event in history.settings)
    if history.progress is not None:
        present["optimizer.lr"] = history.progress.lr
    return present
