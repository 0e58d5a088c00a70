"""Saver: when snapshots are written, and the thread that writes them while the training goes on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from engine.events import CheckpointFailed, CheckpointWritten, Event, Message
from engine.recipe import Checkpoint
from engine.training.snapshot import Snapshot

if TYPE_CHECKING:
    from engine.run import Run


class Saver:
    """Writes snapshots as often as the plan says, one at a time, in a thread of its own: the training waits for the copy alone.

    A snapshot that is the best but comes too soon after the last checkpoint is kept in memory and written with the next one, so
    that `best` is the best without a disk write for each short epoch. So is a best one that the disk did not take.

    `flush` returns when the journal is on the disk. What came of a write is told by `collect`. `agree` lets all the processes
    of a training know what the clock has decided here.
    """

    def __init__(
        self, run: Run, plan: Checkpoint, flush: Callable[[], None], agree: Callable[[bool], bool] = lambda due: due
    ) -> None:
        run.checkpoints.keep = plan.keep
        self.run = run
        self.plan = plan
        self._flush = flush
        self._agree = agree
        self._started_at = time.monotonic()
        self._best: Snapshot | None = None  # not yet on the disk
        self._not_taken: Snapshot | None = None  # a best one that the disk did not take
        self._thread: threading.Thread | None = None
        self._told: deque[Event] = deque()
        self._bug: BaseException | None = None

    def epoch_ended(self, epoch: int, best: bool, snapshot: Callable[[], Snapshot]) -> None:
        """Write if it is time; `snapshot` is called only where one is needed."""
        due = self._agree(epoch % self.plan.every == 0 and time.monotonic() - self._started_at >= self.plan.min_seconds)
        if due:
            self.wait()  # before the copy: there is never more than one beside the one that is being written
            self.write(snapshot(), best=best)
        elif best:
            self.keep_best(snapshot())

    def keep_best(self, snapshot: Snapshot) -> None:
        """The best so far; written with the next checkpoint."""
        self._best = snapshot

    def write(self, snapshot: Snapshot, *, best: bool = False) -> None:
        """Begin to write this snapshot, after one that is being written and after a best one that was waiting."""
        self.wait()
        self._started_at = time.monotonic()
        waiting, self._best, self._not_taken = self._best or self._not_taken, None, None
        if best or (waiting is not None and waiting.step >= snapshot.step):
            waiting = snapshot
        self._thread = threading.Thread(target=self._work, args=(snapshot, waiting), name="epochal-saver", daemon=True)
        self._thread.start()

    def write_best(self) -> None:
        """Begin to write a best one that is still waiting, for a run that ends without a checkpoint of its own."""
        self.wait()
        waiting = self._best or self._not_taken
        if waiting is not None:
            self.write(waiting, best=True)

    def forget(self) -> None:
        """The run goes back: a best one that waits is of a future that will be another."""
        self.wait()
        self._flush()  # lines that waited would come after what is now cut off
        self._best = self._not_taken = None

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the write under way, at most so long. Returns whether none is under way."""
        if self._thread is not None:
            self._thread.join(seconds)
        return not self.busy

    def collect(self) -> list[Event]:
        """What came of the writes since the last call. A bug in writing is raised here, in the training thread."""
        if self._bug is not None:
            raise self._bug
        return [self._told.popleft() for _ in range(len(self._told))]

    # In the saver's thread.

    def _work(self, snapshot: Snapshot, best: Snapshot | None) -> None:
        try:
            self._flush()  # first: a checkpoint must not outlive what led to it
            for event in self._written(snapshot, best):
                self._told.append(event)
        except OSError as error:
            self._failed(snapshot, best, error)
        except BaseException as error:
            self._bug = error

    def _written(self, snapshot: Snapshot, best: Snapshot | None) -> Iterator[Event]:
        if best is not None and best is not snapshot:
            yield from self._write(best, best=True, last=False)
        yield from self._write(snapshot, best=best is snapshot, last=True)

    def _write(self, snapshot: Snapshot, *, best: bool, last: bool) -> Iterator[Event]:
        started = time.perf_counter()
        path = self.run.checkpoints.write(snapshot.step, snapshot.tensors, snapshot.state, best=best, last=last)
        seconds = time.perf_counter() - started
        yield CheckpointWritten(step=snapshot.step, epoch=snapshot.epoch, path=str(path), best=best, seconds=seconds)
        yield from (Message(text=text, level="warning") for text in self.run.checkpoints.take_warnings())

    def _failed(self, snapshot: Snapshot, best: Snapshot | None, error: OSError) -> None:
        self._not_taken = best
        reason = error.strerror or str(error) if self.run.path.is_dir() else f"{self.run.path} is gone"
        self._told.append(CheckpointFailed(step=snapshot.step, reason=reason))
