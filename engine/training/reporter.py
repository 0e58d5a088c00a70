"""Reporter: emits events to the history and to all who listen."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from engine.errors import EpochalError, named
from engine.events import Event, Message
from engine.history import History


class Reporter:
    """Listeners are called in the training thread, in the order in which they came."""

    def __init__(self) -> None:
        self.history = History()
        self._listeners: list[tuple[type[Event], Callable[[Any], None]]] = []

    def on(self, kind: type[Event], listener: Callable[[Any], None]) -> None:
        """Call `listener(event)` for each event of that class; `Event` itself stands for all."""
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            raise EpochalError(
                f"on() takes a class of events, such as engine.EpochEnded, and then the listener; not {named(kind)}"
            )
        if not callable(listener):
            raise EpochalError(
                f"on() takes a class of events and then the listener, a function of the event; not {named(listener)}"
            )
        self._listeners.append((kind, listener))

    def emit(self, *events: Event) -> None:
        """Tell the history and the listeners. One that fails is switched off with a message; the training goes on."""
        for event in events:
            self.history.apply(event)
            for entry in list(self._listeners):
                kind, listener = entry
                if isinstance(event, kind):
                    try:
                        listener(event)
                    except Exception as error:  # a listener's bug ends the listener, not the training
                        self._listeners.remove(entry)
                        traceback.print_exc(file=sys.stderr)
                        self.emit(Message(text=f"a listener failed and is switched off: {error}", level="error"))

    def messages(self, texts: Iterable[str], level: str) -> None:
        """Emit a `Message` for each of these sentences."""
        self.emit(*(Message(text=text, level=level) for text in texts))
