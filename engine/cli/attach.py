"""`attach`: a run of another process, as if it were trained in this terminal."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import time

from engine.cli.output import Stream
from engine.cli.telling import telling
from engine.events import Event, RunStarted

POLL_SECONDS = 0.25


def attach(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Tell a run from its beginning until it ends. Ctrl-C leaves it to itself."""
    from engine.run import Run, runs_root
    from engine.run.follow import following

    run = Run.open(arguments.run, runs_root(arguments.runs))
    # Once its reader has gone (`| head`) this, unlike a training, has nothing left to do.
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with telling(arguments, out, err) as tell:

            def here(event: Event) -> None:
                """A run that was renamed, or copied, is where it is now; as JSON it is as its journal has it."""
                if isinstance(event, RunStarted) and not arguments.json:
                    event = dataclasses.replace(event, path=str(run.path))
                tell(event)

            follower = following(run, here)
            follower.poll()
            while follower.history.ended is None:
                time.sleep(POLL_SECONDS)
                follower.poll()
    except KeyboardInterrupt:
        if not arguments.json:
            out.line(f"left      {run.path}, which goes on by itself")
    finally:
        signal.signal(signal.SIGPIPE, before)
    return 0
