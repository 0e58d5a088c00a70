"""The question before leaving while a run trains."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from tui.screens.base import Dialog

CHOICES = {
    "s": ("stop", "stop and save", "finishes the step, then writes a checkpoint"),
    "d": ("detach", "detach", "training goes on; epochal attach comes back"),
    "k": ("kill", "kill now", "loses what came after the last checkpoint"),
    "escape": ("cancel", "cancel", "back to the run"),
}


class QuitScreen(Dialog[str]):
    """Answers "stop", "detach", "kill" or "cancel"."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"answer('{answer}')", label, id=f"quit-{answer}", tooltip=help)
            for key, (answer, label, help) in CHOICES.items()
        ),
        Binding("q,ctrl+c", "answer('cancel')", "cancel", show=False),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "A run is training"
            yield OptionList(
                *(
                    Option(
                        f"[bold $text-accent]{'esc' if key == 'escape' else key:>3}[/]  {label:<17} [$text-muted]{help}[/]",
                        id=answer,
                    )
                    for key, (answer, label, help) in CHOICES.items()
                ),
                compact=True,
            )

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.action_answer(str(event.option.id))

    def action_answer(self, answer: str) -> None:
        """Close with this answer."""
        self.dismiss(answer)


class AskEpochs(Dialog[int | None]):
    """How many epochs a finished run is to have when it goes on; None to leave it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "cancel")]

    def __init__(self, ended: int) -> None:
        super().__init__()
        self.ended = ended

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "The run had finished"
            box.border_subtitle = "Enter goes on · Esc leaves it"
            yield Static(f"It has {self.ended} epochs. How many in all?", classes="line")
            yield Input(str(2 * self.ended), compact=True, id="epochs")
            yield Static("", classes="error")

    def on_mount(self) -> None:
        self.query_one("#epochs").focus()

    def on_input_submitted(self) -> None:
        text = self.query_one("#epochs", Input).value.strip()
        if text.isdigit() and int(text) > self.ended:
            self.dismiss(int(text))
        else:
            self.query_one(".error", Static).update(f"a whole number above {self.ended}, not {text!r}")
