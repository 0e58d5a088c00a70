"""What a run can be told while it trains. Any thread may ask; the trainer looks between two steps."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

from engine.changes import Change


class StopWaiting(BaseException):
    """Raised by a signal's handler in the training thread while it waits for data: a stop need not wait for the batch."""


class Control:
    """Requests to a running trainer.

    `pending` is what the trainer reads after each step: one attribute, true whenever there is something to look at.
    A request takes effect at the next step boundary; inside a validation pass, at its next batch.
    """

    def __init__(self) -> None:
        self.pending = False
        self.waiting = False  # whether the trainer waits for a batch that is being loaded: see StopWaiting
        self._changed = threading.Condition()
        self._paused = False
        self._stop: str | None = None
        self._checkpoint = False
        self._validate = False
        self._changes: tuple[Change, ...] = ()

    def pause(self) -> None:
        """Hold after the step under way, until `resume` or `stop`."""
        self._set(_paused=True)

    def resume(self) -> None:
        """Let a paused run go on."""
        self._set(_paused=False)

    def stop(self, reason: str = "stopped by the user") -> None:
        """End after the step under way, with a checkpoint. `reason` goes into the run's record."""
        self._set(_stop=reason or "stopped")

    def checkpoint(self) -> None:
        """Write a checkpoint after the step under way."""
        self._set(_checkpoint=True)

    def validate(self) -> None:
        """Validate after the step under way."""
        self._set(_validate=True)

    def change(self, change: Change) -> None:
        """Change a value of the plan after the step under way; see `engine.changes`."""
        with self._changed:
            self._changes = (*self._changes, change)
            self._refresh()
            self._changed.notify_all()

    @property
    def paused(self) -> bool:
        """Whether `pause` was asked for, and neither `resume` nor `stop` since."""
        return self._paused

    @property
    def stopping(self) -> str | None:
        """The reason given to `stop`, or None."""
        return self._stop

    # For the trainer.

    def take_checkpoint(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        with self._changed:
            asked, self._checkpoint = self._checkpoint, False
            self._refresh()
        return asked

    def take_validate(self) -> bool:
        """Whether a validation was asked for since the last call."""
        with self._changed:
            asked, self._validate = self._validate, False
            self._refresh()
        return asked

    def take_changes(self) -> tuple[Change, ...]:
        """The changes asked for since the last call, in their order."""
        with self._changed:
            asked, self._changes = self._changes, ()
            self._refresh()
        return asked

    def wait_while_paused(self, seconds: float) -> bool:
        """Sleep while paused, at most `seconds`, less when a request comes in. Returns whether still paused."""
        with self._changed:
            if self._holding():
                self._changed.wait(seconds)
            return self._paused and self._stop is None

    def _holding(self) -> bool:
        return self._paused and not (self._stop or self._checkpoint or self._validate or self._changes)

    def _set(self, **values: bool | str) -> None:
        with self._changed:
            for name, value in values.items():
                setattr(self, name, value)
            self._refresh()
            self._changed.notify_all()

    def _refresh(self) -> None:
        # Without a call, after which Python lets a signal's handler in: what it asks for would be overwritten.
        self.pending = self._paused or self._stop is not None or self._checkpoint or self._validate or self._changes != ()


class Asks(ABC):
    """The requests of a Control, for a run of another process: each goes to `tell`, as `Run.tell` takes it."""

    @abstractmethod
    def tell(self, ask: str, **values: Any) -> None:
        """Hand it on."""

    def pause(self) -> None:
        self.tell("pause")

    def resume(self) -> None:
        self.tell("resume")

    def stop(self, reason: str = "stopped by the user") -> None:
        self.tell("stop", reason=reason)

    def checkpoint(self) -> None:
        self.tell("checkpoint")

    def validate(self) -> None:
        self.tell("validate")

    def change(self, change: Change) -> None:
        self.tell("set", field=change.field, value=change.value, times=change.times)
