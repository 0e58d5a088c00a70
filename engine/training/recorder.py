"""Recorder: what a run states goes into its directory, as journal and status, as soon as the disk takes it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.errors import RunError
from engine.events import (
    EpochEnded,
    Event,
    Logged,
    Message,
    Progress,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    Validated,
)
from engine.run import Run

HEARTBEAT_SECONDS = 0.5


class Recorder:
    """Listens to all events of one run: `trainer.on(Event, Recorder(run, reporter.emit).take)`.

    A disk that does not take lines ends nothing: they wait in memory, in their order. `emit` is how that is told, and its end.
    `take` is for the training thread; `flush` may be called from any.
    """

    def __init__(self, run: Run, emit: Callable[[Event], None] | None = None) -> None:
        self._run = run
        self._emit = emit or (lambda event: None)
        self._plan: RunStarted | None = None
        self._progress: Progress | None = None
        self._started, self._best, self._seconds = time.time(), dict[str, float](), 0.0
        with contextlib.suppress(RunError):  # a run that is continued keeps its beginning and its best
            before = run.status.read(run.status.path)
            self._started, self._best, self._seconds = before["started"], before["best"], before["seconds"]
        self._written = 0.0
        self._writing = threading.RLock()
        self._waiting: deque[Event] = deque()
        self._failing, self._waited = False, 0  # whether the disk refuses lines, and how many it has refused
        self._telling = False
        self._last_status: dict[str, Any] | None = None  # where the disk has not taken it; no heartbeat follows it
        self._ended = False

    def take(self, event: Event) -> None:
        """One event, in the training thread."""
        self._record(event)
        match event:
            case RunStarted():
                self._plan, self._progress = event, None
                self._status("running", event.step, event.epoch)
            case Progress():
                self._progress, self._seconds = event, event.elapsed
                if time.monotonic() - self._written >= HEARTBEAT_SECONDS:
                    self._status("paused" if event.phase == "paused" else "running", event.step, max(0, event.epoch - 1))
            case RunPaused() | RunContinued():
                self._written = 0.0  # the progress that follows goes into the status at once
            case EpochEnded() if event.best:
                self._best = {"epoch": event.epoch, **event.metrics}
            case Validated() if event.best:
                self._best = {"epoch": event.epoch, "step": event.step, **event.metrics}
            case Logged() if event.best:
                self._best = dict(event.best)
            case RunEnded():
                self._end(event)

    def flush(self) -> None:
        """Return when all that was stated is on the disk. OSError when the disk does not take it; it may be tried again."""
        with self._writing:
            self._write_waiting()
            if self._last_status is not None:
                self._run.status.write(**self._last_status)
                self._last_status = None
        if self._ended:
            self._run.journal.close()
        else:
            self._run.journal.sync()

    def _record(self, event: Event) -> None:
        """Write the line, after those that wait; tell when that begins to fail, and when it is over."""
        problem: OSError | None = None
        with self._writing:
            if event.in_journal:
                self._waiting.append(event)
            try:
                self._write_waiting()
            except OSError as error:
                problem = error
                self._waited += event.in_journal
        if problem is not None and not self._failing:
            self._tell(
                f"the journal can't be written ({problem.strerror}): it waits in memory until the disk takes it", "error"
            )
        elif problem is None and self._failing:
            waited, self._waited = self._waited, 0
            self._tell(f"the journal is written again; {waited} lines had to wait", "info")

    def _tell(self, text: str, level: str) -> None:
        if not self._telling:  # the message is a line as well, and a disk that comes and goes must not keep us here
            self._failing, self._telling = level == "error", True
            try:
                self._emit(Message(text=text, level=level))
            finally:
                self._telling = False

    def _write_waiting(self) -> None:
        while self._waiting:
            event = self._waiting[0]
            try:
                self._run.journal.append(event)
            except (TypeError, ValueError) as error:  # no disk will ever take it, and the others must not wait for it
                self._waiting[0] = Message(text=f"{type(event).__name__} can't be written: {error}", level="error")
            else:
                self._waiting.popleft()

    def _end(self, event: RunEnded) -> None:
        self._best, self._seconds, self._ended = dict(event.best), event.seconds, True
        self._status(event.state, event.step, event.epoch, event.reason)
        try:
            self.flush()
        except OSError as error:
            self._emit(Message(text=f"the end of the run is not on the disk ({error.strerror})", level="error"))

    def _status(self, state: str, step: int, epoch: int, reason: str = "") -> None:
        assert self._plan is not None  # every run begins with it
        self._written = time.monotonic()
        values: dict[str, Any] = {
            "state": state,
            "step": step,
            "epoch": epoch,
            "epochs": self._plan.epochs,
            "best": self._best,
            "monitor": self._plan.monitor,
            "mode": self._plan.mode,
            "started": self._started,
            "seconds": self._seconds,
            "reason": reason,
            "progress": self._progress,
        }
        if self._ended:
            self._last_status = values  # written by `flush`, after the last line
            return
        with contextlib.suppress(OSError):  # the next heartbeat is near
            self._run.status.write(**values)
