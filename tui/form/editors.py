"""What edits a value in one line of the form, beside Textual's own Input: one of several, and yes or no.

A form has dozens of them, so each is one widget; the list of choices is made when it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input

if TYPE_CHECKING:
    from textual.widgets._select import SelectOverlay

ARROW = 24  # cells before it


def closed(label: str, arrow: str = "▼") -> str:
    """What a choice shows while it is closed."""
    return f"{label if len(label) < ARROW else label[: ARROW - 2] + '…':<{ARROW}}{arrow}"


def compact(field: Input) -> Input:
    """Make it one line high. Told so while it is made, it would have its style, and that of its parts, computed once more."""
    field.set_reactive(Input.compact, True)
    return field.add_class("-textual-compact", update=False)


class Choice(Widget, can_focus=True):
    """One of several values. The arrow keys are the form's while it is closed; open, it says which choice the cursor is on."""

    DEFAULT_CSS = """
    Choice { layout: vertical; }
    Choice > SelectOverlay {
        overlay: screen; constrain: none inside; width: 1fr; height: auto; offset-y: 1; overflow: hidden auto;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "show_overlay", "Show choices", show=False)]
    value: reactive[Any] = reactive(None, init=False)

    class Changed(Message):
        """Another value."""

        def __init__(self, choice: Choice) -> None:
            super().__init__()
            self.choice = choice
            self.value = choice.value

    class Looked(Message):
        """The cursor of the open choices is on this value; None when they are closed."""

        def __init__(self, value: Any) -> None:
            super().__init__()
            self.value = value

    def __init__(self, choices: Sequence[tuple[str | Text, Any]], value: Any, *, classes: str = "editor") -> None:
        super().__init__(classes=classes)
        self.choices = choices
        self.set_reactive(Choice.value, value)

    @property
    def expanded(self) -> bool:
        """Whether the choices are open."""
        return bool(self.query("SelectOverlay"))

    def render(self) -> Content:
        label = next((str(label) for label, value in self.choices if value == self.value), "")
        text = closed(label, "▲" if self.expanded else "▼")
        return Content.assemble((text[:ARROW], "$text-muted" if self.value is None else ""), (text[ARROW:], "$text-muted"))

    def watch_value(self) -> None:
        self.post_message(self.Changed(self))

    def action_show_overlay(self) -> None:
        """Open the choices."""
        from textual.widgets._select import SelectOverlay

        if self.expanded:
            return
        overlay = SelectOverlay()
        overlay.add_options(label for label, _ in self.choices)
        self.mount(overlay)
        values = [value for _, value in self.choices]
        overlay.select(values.index(self.value) if self.value in values else 0)
        self.watch(overlay, "highlighted", self._look)
        self.screen.set_focus(overlay)

    def _look(self, at: int | None) -> None:
        self.post_message(self.Looked(None if at is None else self.choices[at][1]))

    def on_select_overlay_dismiss(self, event: SelectOverlay.Dismiss) -> None:
        event.stop()
        self._close(keep=not event.lost_focus)

    def on_select_overlay_update_selection(self, event: SelectOverlay.UpdateSelection) -> None:
        event.stop()
        self._close(keep=True)
        self.value = self.choices[event.option_index][1]

    def _close(self, *, keep: bool) -> None:
        if keep:
            self.screen.set_focus(self)
        self.query("SelectOverlay").remove()
        self.refresh()
        self.post_message(self.Looked(None))

    def on_click(self, event: Click) -> None:
        event.stop()
        self.action_show_overlay()


class Toggle(Widget, can_focus=True):
    """Yes or no, told by sign and word."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "flip", "Change", show=False)]
    value: reactive[bool] = reactive(False, init=False)

    class Changed(Message):
        """Another value."""

    def __init__(self, value: bool) -> None:
        super().__init__(classes="editor")
        self.set_reactive(Toggle.value, value)

    def render(self) -> Content:
        return Content("● yes" if self.value else "○ no")

    def watch_value(self) -> None:
        self.post_message(self.Changed())

    def action_flip(self) -> None:
        """Change it."""
        self.value = not self.value

    def on_click(self) -> None:
        self.action_flip()
