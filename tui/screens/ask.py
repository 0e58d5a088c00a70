"""Small questions over a screen: a line of text, yes or no, what a fork changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import EpochalError
from tui.screens.base import Dialog


class AskText(Dialog[str | None]):
    """One line of text; None to leave all as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "cancel")]

    def __init__(self, title: str, help: str, value: str) -> None:
        super().__init__()
        self._title, self._help, self._value = title, help, value

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = "Enter takes it · Esc leaves all as it is"
            yield Static(self._help, classes="line", markup=False)
            yield Input(self._value, compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_submitted(self) -> None:
        self.dismiss(self.query_one(Input).value.strip())


class Confirm(Dialog[bool]):
    """Whether something that can't be taken back is to be done. Enter alone does not do it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("escape,n,q,enter", "dismiss(False)", "no"),
    ]

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title, self._lines = title, lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = "y yes · n or Esc no"
            yield Static("\n".join(self._lines), markup=False)


class AskFork(Dialog[tuple[int, Mapping[str, Any]] | None]):
    """From which checkpoint, and what is to be otherwise: the step and the new recipe's values."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel"),
        Binding("down", "to_list", "to the checkpoints", show=False),
    ]

    def __init__(self, name: str, steps: Sequence[tuple[int, str]], changed: Callable[[str], Mapping[str, Any]]) -> None:
        super().__init__()
        self._name, self._steps, self._changed = name, steps, changed
        self._step = steps[0][0]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(f"Fork {self._name}")
            box.border_subtitle = "Enter begins the new run · ↓ to the checkpoints · Esc leaves it"
            yield Static("What is otherwise, such as optimizer.lr=3e-4 training.epochs=40", classes="line", markup=False)
            yield Input(compact=True)
            yield Static(classes="line from", markup=False)
            yield Static("", classes="error", markup=False)
            yield OptionList(
                *(Option(Content(f"step {step:,}  {which}"), id=str(step)) for step, which in self._steps), compact=True
            )

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._say()

    def _say(self) -> None:
        self.query_one(".from", Static).update(f"from step {self._step:,}")

    def action_to_list(self) -> None:
        """From the text down to the checkpoints."""
        self.query_one(OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Take this checkpoint, and go back to the text."""
        self._step = int(str(event.option.id))
        self._say()
        self.query_one(Input).focus()

    def on_input_submitted(self) -> None:
        try:
            values = self._changed(self.query_one(Input).value)
        except EpochalError as error:
            self.query_one(".error", Static).update(str(error))
            return
        self.dismiss((self._step, values))


class AskRun(Dialog[Path | str | None]):
    """Which run is to be compared with: its path, "" for none, None to leave it as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(None)", "cancel")]

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = paths

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Compare with"
            box.border_subtitle = "Enter takes it · Esc leaves it"
            yield OptionList("no run", *(Option(Content(path.name)) for path in self._paths), compact=True)

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer it."""
        self.dismiss(self._paths[event.option_index - 1] if event.option_index else "")
