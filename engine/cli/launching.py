"""A training in several processes: begun here, told of as one."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.cli.background import Background
from engine.cli.output import Stream
from engine.cli.signals import ENDS, tell
from engine.distributed.launch import Death, Launch
from engine.distributed.launched import run_of
from engine.errors import RunError
from engine.events import RunEnded, to_dict
from engine.run import Run, Status, runs_root
from engine.run.journal import Journal
from engine.run.status import ENDED

_LOOK_SECONDS = 0.1


def launch(
    arguments: argparse.Namespace,
    processes: int,
    out: Stream,
    err: Stream,
    *,
    check: Callable[[], object],
    root: Path | None = None,
    run: Run | None = None,
) -> int:
    """Carry out the command in so many processes, of which the first prints; the exit status as of one process.

    check: raises what is wrong before any is begun. run: which one they go on with, a new one below `root` when left out.
    """
    begun: Callable[[Run], None] | None = None
    if arguments.background:
        background = Background(out, err)
        if background.process:
            return background.wait(arguments, out, err)
        begun = background.begun
    check()
    launching = Launch(arguments.argv, processes, restarts=arguments.restarts, prog=arguments.prog, heard=_heard)
    find = Found(launching, run, root or runs_root(arguments.runs))
    out.flush()
    err.flush()
    with find.watching(begun):
        death = launching.run()
    if death is None:
        return 0 if launching.received is None else 128 + launching.received
    return _told(death, find.run(), arguments, out, err)


def _heard(number: int) -> None:
    if number != signal.SIGUSR1:  # of a checkpoint rank 0 tells itself
        tell(ENDS)


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


def _told(death: Death, run: Run | None, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Tell of a death what the processes could not tell themselves; the exit status."""
    if death.code == 2:  # a mistake, which each of them finds
        if not death.together:
            err.write(death.printed)
        return 2
    if run is None:
        if not death.together:
            err.write(death.printed)
        if death.rank or death.code < 0:
            err.line(f"epochal: {death}")
        return 1
    with contextlib.suppress(OSError), run.output_path.open("a", encoding="utf-8") as log:
        log.write(f"{death.log}\n")
    said, ended = complete(run, death)
    if ended is not None and said is None and arguments.json:
        out.line(json.dumps(to_dict(ended), allow_nan=False))
    if ended is not None or said is None:
        err.line(f"epochal: {death}; see {run.output_path}")
    return 1


def complete(run: Run, death: Death) -> tuple[RunEnded | None, RunEnded | None]:
    """Write how the run ended where rank 0 could not, or knew no more than that another was gone.

    What rank 0 has written, and what is written now: nothing where that tells all, or another process trains the run.
    """
    said = None
    with contextlib.suppress(RunError, OSError):
        run.lock.acquire()
        try:
            said = Journal.end(run.journal.path)
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
