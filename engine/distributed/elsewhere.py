"""The saver of the ranks that write nothing."""

from __future__ import annotations

from collections.abc import Callable

from engine.distributed.ranks import Ranks
from engine.events import Event
from engine.recipe import Checkpoint
from engine.training.snapshot import Snapshot


class Elsewhere:
    """Has `Saver`'s face. Every rank takes part in a snapshot, of which it may hold a shard; rank 0 writes it."""

    def __init__(self, plan: Checkpoint, ranks: Ranks) -> None:
        self.plan, self._ranks = plan, ranks

    def epoch_ended(self, epoch: int, best: bool, snapshot: Callable[[], Snapshot]) -> None:
        if self._ranks.first() or best:
            snapshot()

    def keep_best(self, snapshot: Snapshot) -> None:
        pass

    def write(self, snapshot: Snapshot, *, best: bool = False) -> None:
        pass

    def write_best(self) -> None:
        pass

    def forget(self) -> None:
        pass

    def wait(self, seconds: float | None = None) -> bool:
        return True

    def collect(self) -> list[Event]:
        return []
