"""The choice of colours, shown at once on the screen behind it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui.screens.base import Dialog
from tui.themes import THEMES


class ThemeScreen(Dialog[str | None]):
    """Answers the name of a theme; None where all stays as before."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,T", "leave", "as before")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Colours"
            box.border_subtitle = "↓ ↑ shows them · Enter keeps them · Esc as before"
            width = max(map(len, THEMES))
            yield OptionList(
                *(
                    Option(Content.assemble((f"{name:<{width}}  ", "bold"), (words, "$text-muted")), id=name)
                    for name, (_, words) in THEMES.items()
                ),
                compact=True,
            )

    def on_mount(self) -> None:
        self._before = self.app.theme
        choices = self.query_one(OptionList)
        choices.focus()
        if self._before in THEMES:
            choices.highlighted = list(THEMES).index(self._before)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show it."""
        self.app.theme = str(event.option.id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Keep it."""
        self.dismiss(str(event.option.id))

    def action_leave(self) -> None:
        """The colours of before."""
        self.app.theme = self._before
        self.dismiss(None)
