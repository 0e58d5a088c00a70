"""Keys in the order in which they were typed: each is handled before the next one is sent anywhere."""

from __future__ import annotations

from collections import deque
from typing import Any

from textual import events, on
from textual.app import App
from textual.message import Message
from textual.message_pump import MessagePump


class InOrder(App[str]):
    """Sends a key to who has the keyboard once the key before it was handled.

    Textual sends it at once, also while the one before it, which may move the keyboard, still waits for a busy screen. What is
    typed quickly, or while torch is loaded, then goes to the field that was left, acts as a key, or is lost.
    """

    class Handled(Message):
        """Follows a key on its way up; where it arrives at the app, the key was handled."""

        at: MessagePump

        def _bubble_to(self, widget: MessagePump) -> None:
            self.at = widget
            super()._bubble_to(widget)

        @property
        def lost(self) -> bool:
            """Whether it is with a widget that has gone: it will not arrive."""
            return self.at._closing or self.at._closed or not self.at.is_attached

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._typed: deque[events.Key | events.Paste] = deque()  # that wait
        self._under_way: InOrder.Handled | None = None
        self._to_screen = False  # the key under way was sent to a screen on which nothing had the keyboard

    def on_mount(self) -> None:
        self.set_interval(1.0, self._unstick)

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, events.Key | events.Paste) or event.is_forwarded:
            await super().on_event(event)
        else:
            self._typed.append(event)
            await self.go_on()

    async def go_on(self) -> None:
        """Send what waits, as far as nothing is in its way."""
        while self._typed and self._under_way is None and getattr(self.screen, "takes_keys", True):
            await self._send(self._typed.popleft())

    async def _send(self, event: events.Key | events.Paste) -> None:
        await super().on_event(event)
        if event.is_forwarded:
            self._follow()

    def _follow(self) -> None:
        self._to_screen = self.focused is None
        self._under_way = self.Handled()
        self._under_way._bubble_to(self.focused or self.screen)

    async def _on_key(self, event: events.Key) -> None:
        if self._to_screen and self.focused is not None:  # a field got the keyboard meanwhile, as in a question that was opened
            event.prevent_default()
            self.focused._forward_event(events.Key(event.key, event.character))
            self._follow()

    @on(Handled)
    async def _handled(self, message: Handled) -> None:
        if message is self._under_way:
            self._under_way = None
            await self.go_on()

    async def _unstick(self) -> None:
        if self._under_way is not None and self._under_way.lost:
            self._under_way = None
            await self.go_on()
