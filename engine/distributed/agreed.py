"""What a run is told, agreed upon: every rank hears the same at the same step, whoever was told."""

from __future__ import annotations

from engine.changes import Change
from engine.control import Control
from engine.distributed.ranks import Ranks


class Agreed(Control):
    """The control that a trainer looks at where several processes train. What is asked of it, or of `own`, waits there.

    `heard` is called on all ranks at the same step, with what their sum has told; then they exchange what each was asked.
    """

    def __init__(self, own: Control, ranks: Ranks) -> None:
        super().__init__()
        self.own, self.ranks = own, ranks

    # A step is not cut short by one process alone: the others would wait for its share.
    waiting = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]

    def pause(self) -> None:
        self.own.pause()

    def resume(self) -> None:
        self.own.resume()

    def stop(self, reason: str = "stopped by the user") -> None:
        self.own.stop(reason)

    def checkpoint(self) -> None:
        self.own.checkpoint()

    def validate(self) -> None:
        self.own.validate()

    def change(self, change: Change) -> None:
        self.own.change(change)

    def heard(self, asked: bool, due: bool) -> None:
        """Some rank was asked for something, or has something to tell; `due`: rank 0's clock has come to a report."""
        if asked:
            self.exchange()
        self.pending = self.pending or due

    def exchange(self) -> None:
        """Take what every rank was asked."""
        own = self.own
        mine = own.paused, own.stopping, own.take_checkpoint(), own.take_validate(), own.take_changes()
        paused, stops, checkpoint, validate, changes = zip(*self.ranks.gather(mine), strict=True)
        with self._changed:
            self._paused = any(paused)
            self._stop = next(filter(None, stops), None)
            self._checkpoint = self._checkpoint or any(checkpoint)
            self._validate = self._validate or any(validate)
            self._changes = (*self._changes, *(change for each in changes for change in each))
            self._refresh()

    def wait_while_paused(self, seconds: float) -> bool:
        self.own.wait_while_paused(seconds)
        self.exchange()
        return self._paused and self._stop is None
