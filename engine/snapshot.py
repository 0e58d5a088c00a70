"""Snapshot: everything a checkpoint holds, copied at one instant. Saver: when snapshots are written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from engine import state
from engine.errors import CheckpointError
from engine.events import CheckpointWritten
from engine.loop import Loop
from engine.parts import Parts
from engine.recipe import Checkpoint

if TYPE_CHECKING:
    from engine.run import Run
    from engine.run.checkpoints import Saved


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run after `step` steps. `state` is JSON values; the tensors, by file name, are copies in host memory."""

    step: int
    epoch: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def take(parts: Parts, loop: Loop, position: dict[str, Any]) -> Snapshot:
    """Copy everything that a resume needs. `position` are the trainer's own counters, as JSON values."""
    optimizer: dict[str, Tensor] = {}
    held = {
        **position,
        "optimizer": state.pack_optimizer(parts.optimizer, parts.model, optimizer),
        "schedule": parts.schedule and state.pack(parts.schedule.state_dict(), optimizer, "$schedule"),
        "scaler": loop.scaler and loop.scaler.state_dict(),
        "random": state.random_state(parts.device),
        "fingerprint": parts.fingerprint,
    }
    tensors = {"model": state.copied(parts.model.state_dict()), "optimizer": state.copied(optimizer)}
    if loop.average is not None:
        tensors["average"] = state.copied(loop.average.state_dict())
    return Snapshot(step=position["step"], epoch=position["epoch"], tensors=tensors, state=held)


def restore(saved: Saved, parts: Parts, loop: Loop) -> None:
    """Put back what `take` copied, all but the trainer's counters. Raises CheckpointError when it does not fit."""
    held, tensors = saved.state, saved.tensors
    if held["fingerprint"] != parts.fingerprint:
        raise CheckpointError(
            f"the training data is not that of {saved.path}: an exact resume is not possible; start a new run instead"
        )
    state.load_model(parts.model, tensors["model"])
    state.load_optimizer(parts.optimizer, parts.model, held["optimizer"], tensors["optimizer"])
    if parts.schedule is not None and held["schedule"]:
        parts.schedule.load_state_dict(state.unpack(held["schedule"], tensors["optimizer"]))
    if loop.scaler is not None and held["scaler"]:
        loop.scaler.load_state_dict(held["scaler"])
    if loop.average is not None:
        state.load_model(loop.average, tensors.get("average", {}))
    state.set_random_state(held["random"], parts.device)


class Saver:
    """Writes snapshots as often as the plan says.

    One that is the best but comes too soon after the last checkpoint is kept in memory and written with the next one, so that
    `best` is the best without a disk write for each short epoch.
    """

    def __init__(self, run: Run, plan: Checkpoint) -> None:
        run.checkpoints.keep = plan.keep
        self.run = run
        self.plan = plan
        self._saved_at = time.monotonic()
        self._best: Snapshot | None = None  # not yet on the disk

    def epoch_ended(self, epoch: int, best: bool, snapshot: Callable[[], Snapshot]) -> list[CheckpointWritten]:
        """Write if it is time; `snapshot` is called only where one is needed."""
        due = epoch % self.plan.every == 0 and time.monotonic() - self._saved_at >= self.plan.min_seconds
        if due:
            return self.write(snapshot(), best=best)
        if best:
            self.keep_best(snapshot())
        return []

    def keep_best(self, snapshot: Snapshot) -> None:
        """The best so far; written with the next checkpoint."""
        self._best = snapshot

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
        path = self.run.checkpoints.write(snapshot.step, snapshot.tensors, snapshot.state, best=best, last=last)
        seconds = time.perf_counter() - started
        return CheckpointWritten(step=snapshot.step, epoch=snapshot.epoch, path=str(path), best=best, seconds=seconds)
