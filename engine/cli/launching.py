"""A training in several processes: begun here, told of as one."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

from engine.cli.background import Background
from engine.cli.output import Stream
from engine.cli.signals import ENDS, tell
from engine.distributed.found import Found, complete
from engine.distributed.launch import Death, Launch
from engine.events import to_dict
from engine.run import Run, runs_root


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
