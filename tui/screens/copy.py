"""What of a screen can be copied to the terminal's clipboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.errors import plain
from tui.screens.base import Dialog
from tui.widgets.formats import cut


class CopyScreen(Dialog[str | None]):
    """Answers the text that is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,k", "dismiss(None)", "leave it")]

    def __init__(self, texts: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._texts = texts

    def compose(self) -> ComposeResult:
        width = max(len(label) for label, _ in self._texts)
        with Vertical(classes="box") as box:
            box.border_title = "Copy"
            box.border_subtitle = "Enter copies · Esc leaves it"
            yield OptionList(
                *(
                    Option(Content.assemble((f"{label:<{width}}  ", "bold"), (_begin(text, 66 - width), "$text-muted")))
                    for label, text in self._texts
                ),
                compact=True,
            )

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer it."""
        self.dismiss(self._texts[event.option_index][1])


def _begin(text: str, room: int) -> str:
    line, *more = text.strip().splitlines() or [""]
    line = plain(line)
    return cut(f"{line} …" if more else line, room)
