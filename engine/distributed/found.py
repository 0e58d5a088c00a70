"""The run that the processes of a launcher train, seen by the launcher: when it has begun, and how it has ended."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.distributed.launch import Death, Launch
from engine.distributed.launched import run_of
from engine.errors import RunError
from engine.events import RunEnded
from engine.run import Run, Status
from engine.run.journal import Journal
from engine.run.status import ENDED

_LOOK_SECONDS = 0.1


class Found:
    """The run that the processes of a launch train."""

    def __init__(self, launching: Launch, run: Run | None, root: Path) -> None:
        self._launching, self._run, self._root = launching, run, root

    def run(self) -> Run | None:
        """None where there is none yet."""
        return self._run or run_of(self._root, os.getpid())

    @contextlib.contextmanager
    def watching(self, begun: Callable[[Run], None] | None) -> Iterator[None]:
        """Call `begun` once, from a thread, when they have begun to train."""
        over = threading.Event()

        def watch() -> None:
            while begun is not None and not over.wait(_LOOK_SECONDS):
                if (run := self.run()) is not None and self._trained(run):
                    begun(run)
                    return

        thread = threading.Thread(target=watch, name="epochal-launch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if begun is not None and (run := self.run()) is not None and self._ended(run):  # so quickly over
                begun(run)

    def _trained(self, run: Run) -> bool:
        with contextlib.suppress(RunError):
            status = Status.read(run.status.path)
            return status["state"] != "starting" and status["pid"] in self._launching.workers()
        return False

    @staticmethod
    def _ended(run: Run) -> bool:
        with contextlib.suppress(RunError):
            return Status.read(run.status.path)["state"] in ENDED
        return False


def complete(run: Run, death: Death) -> tuple[RunEnded | None, RunEnded | None]:
    """Write how the run ended where rank 0 could not, or knew no more than that another was gone.

    What rank 0 has written, and what is written now: nothing where that tells all, or another process trains the run.
    """
    said = None
    with contextlib.suppress(RunError, OSError):
        run.lock.acquire()
        try:
            said = Journal.end(run.journal.path) if run.journal.path.exists() else None  # or it had not begun
            if said is not None and (said.state != "failed" or death.rank == 0 or (death.error and death.error in said.reason)):
                return said, None
            status = Status.read(run.status.path)
            same = {key: status[key] for key in ("step", "epoch", "seconds", "best")}
            ended = RunEnded(state="failed", reason=str(death), **same)
            run.journal.append(ended)
            run.journal.close()
            kept = {key: status[key] for key in ("epochs", "monitor", "mode", "started")}
            run.status.write("failed", reason=str(death), **same, **kept)
            return said, ended
        finally:
            run.lock.release()
    return said, None
