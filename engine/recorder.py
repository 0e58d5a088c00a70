"""Recorder: what a run states goes into its directory, as journal and status."""

from __future__ import annotations

import contextlib
import time

from engine.errors import RunError
from engine.events import EpochEnded, Event, Progress, RunEnded, RunPaused, RunStarted
from engine.run import Run

HEARTBEAT_SECONDS = 1.0


class Recorder:
    """Listens to all events of one run: `trainer.on(Event, Recorder(run).take)`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plan: RunStarted | None = None
        self._started, self._best = time.time(), dict[str, float]()
        with contextlib.suppress(RunError):  # a run that is continued keeps its beginning and its best
            before = run.status.read(run.status.path)
            self._started, self._best = before["started"], before["best"]
        self._written = 0.0

    def take(self, event: Event) -> None:
        """One event, in the training thread."""
        self._run.journal.append(event)
        match event:
            case RunStarted():
                self._plan = event
                self._status("running", event.step, event.epoch)
            case Progress() if time.monotonic() - self._written >= HEARTBEAT_SECONDS:
                state = "paused" if event.phase == "paused" else "running"
                self._status(state, event.step, event.epoch - 1, event.elapsed)
            case RunPaused():
                self._written = 0.0  # the progress that follows goes into the status at once
            case EpochEnded() if event.best:
                self._best = {"epoch": event.epoch, **event.metrics}
            case RunEnded():
                self._run.journal.sync()
                self._run.journal.close()
                self._best = dict(event.best)
                self._status(event.state, event.step, event.epoch, event.seconds, event.reason)

    def _status(self, state: str, step: int, epoch: int, seconds: float = 0.0, reason: str = "") -> None:
        assert self._plan is not None  # every run begins with it
        self._written = time.monotonic()
        self._run.status.write(
            state,
            step=step,
            epoch=epoch,
            epochs=self._plan.epochs,
            best=self._best,
            monitor=self._plan.monitor,
            mode=self._plan.mode,
            started=self._started,
            seconds=seconds,
            reason=reason,
        )
