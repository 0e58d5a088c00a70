"""Snapshot: everything a checkpoint holds, copied at one instant. Saver: when snapshots are written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from engine.events import CheckpointWritten
from engine.recipe import Checkpoint

if TYPE_CHECKING:
    from engine.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run after `step` steps. `state` is JSON values; the tensors are copies in host memory."""

    step: int
    epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


class Saver:
    """Writes snapshots as often as the plan says.

    An epoch that is the best but comes too soon after the last checkpoint is kept in memory and written with the next one, so
    that `best` is the best without a disk write for each short epoch.
    """

    def __init__(self, run: Run, plan: Checkpoint) -> None:
        run.checkpoints.keep = plan.keep
        self.run = run
        self.plan = plan
        self._saved_at = time.monotonic()
        self._best: Snapshot | None = None  # not yet on the disk

    def epoch_ended(self, epoch: int, best: bool, take: Callable[[], Snapshot]) -> list[CheckpointWritten]:
        """Write if it is time; `take` is called only where a snapshot is needed."""
        due = epoch % self.plan.every == 0 and time.monotonic() - self._saved_at >= self.plan.min_seconds
        if due:
            return self.write(take(), best=best)
        if best:
            self._best = take()
        return []

    def write(self, snapshot: Snapshot, *, best: bool = False) -> list[CheckpointWritten]:
        """Write now, after a best one that was waiting."""
        waiting, self._best = self._best, None
        written = []
        if waiting is not None and not best and waiting.step < snapshot.step:
            written.append(self._write(waiting, best=True, last=False))
        elif waiting is not None and waiting.step == snapshot.step:
            best = True
        written.append(self._write(snapshot, best=best, last=True))
        self._saved_at = time.monotonic()
        return written

    def flush(self) -> list[CheckpointWritten]:
        """Write a best one that is still waiting, for a run that ends without a checkpoint of its own."""
        waiting, self._best = self._best, None
        return [self._write(waiting, best=True, last=True)] if waiting is not None else []

    def _write(self, snapshot: Snapshot, *, best: bool, last: bool) -> CheckpointWritten:
        started = time.perf_counter()
        self.run.journal.sync()  # first: a checkpoint must not outlive what led to it
        tensors = {"model": snapshot.model, "optimizer": snapshot.optimizer}
        path = self.run.checkpoints.write(snapshot.step, tensors, snapshot.state, best=best, last=last)
        seconds = time.perf_counter() - started
        return CheckpointWritten(step=snapshot.step, epoch=snapshot.epoch, path=str(path), best=best, seconds=seconds)
