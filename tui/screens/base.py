"""What the screens share: the line of keys at the bottom and the classes that say how much room there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import RenderResult
from textual.binding import BindingType
from textual.content import Content
from textual.geometry import Size
from textual.reactive import reactive
from textual.screen import ModalScreen, Screen, ScreenResultType
from textual.widget import Widget

from engine.errors import plain
from tui.keys import footer

if TYPE_CHECKING:
    from tui.app import Console
    from tui.followed import Followed

SMALL = (100, 30)  # below: tabs instead of panes side by side
LEAST = (80, 24)  # below: a page alone, without its tabs
TINY = (40, 10)  # below: one line of status
SHORT = 16  # rows; below, what the chart can do without is away
LOW = 36  # rows; below, panes side by side are lower than usual


class KeyLine(Widget):
    """The keys of a screen, as many as fit in one line."""

    of: reactive[str] = reactive("")

    def __init__(self, screen: str) -> None:
        super().__init__()
        self.of = screen

    def render(self) -> RenderResult:
        parts: list[tuple[str, str]] = []
        for key, word in footer(self.of, self.size.width):
            parts += [(f" {key}", "bold $text-accent"), (f" {word} ", "$text-muted")]
        return Content.assemble(*parts)


class Still(Screen[ScreenResultType]):
    """Is laid out and painted when something of it has changed, and not more often, as Textual would."""

    _stale = False  # its widgets have not been told of their new sizes yet

    def _compositor_refresh(self) -> None:
        if self._stale:
            return
        super()._compositor_refresh()
        if self is not self.app.screen:
            self._repaint_required = False  # under a dialog it is marked anew each time

    def _on_screen_resume(self, event: events.ScreenResume) -> None:
        event.prevent_default()
        new = self._compositor.size != self.app.size
        super()._on_screen_resume(event)
        if new and not self.app._batch_count:
            self._repaint_required = False  # it was laid out and painted as a whole

    def _on_timer_update(self) -> None:
        if self._layout_required and self._repaint_required:
            self._dirty_widgets.add(self)  # painted as it is laid out, and not once more after that
            self._repaint_required = False
        super()._on_timer_update()

    def _screen_resized(self, size: Size) -> None:
        if size != self._compositor.size:  # a new screen is told up to four times, and lays itself out as often
            self._stale = bool(self._compositor.size)
            super()._screen_resized(size)
            if self._stale:
                self._stale = False
                self.refresh(layout=True)  # painted once with what the widgets make of it


class Dialog(ModalScreen[ScreenResultType], Still[ScreenResultType]):
    """Stands on another screen and answers."""


class Base(Still[None]):
    """A screen that knows its room: `-small`, `-slim` and `-tiny` are set by its size."""

    NAME: ClassVar[str] = ""
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = []
    takes_keys = True  # False: they wait

    @property
    def console_app(self) -> Console:
        """The app, typed."""
        return cast("Console", self.app)

    @property
    def followed(self) -> Followed | None:
        """The run of another process that it shows."""
        return None

    def copies(self) -> list[tuple[str, str]]:
        """What can be copied: what it is, and the text."""
        return []

    def action_copy(self) -> None:
        """Copy something to the terminal's clipboard."""
        from tui.screens.copy import CopyScreen

        def copy(text: str | None) -> None:
            if text is not None:
                self.notify(f"copied: {plain(text.strip().splitlines()[0])[:100]}", markup=False)
                self.app.copy_to_clipboard(text)

        if texts := [(label, text) for label, text in self.copies() if text.strip()]:
            self.app.push_screen(CopyScreen(texts), copy)
        else:
            self.notify("there is nothing to copy here yet")

    def on_resize(self, event: events.Resize) -> None:
        width, height = event.size
        self.set_class(width < SMALL[0] or height < SMALL[1], "-small")
        self.set_class(width < LEAST[0] or height < LEAST[1], "-slim")
        self.set_class(width < TINY[0] or height < TINY[1], "-tiny")
        self.set_class(height < LOW, "-low")
        self.set_class(height < SHORT, "-short")
