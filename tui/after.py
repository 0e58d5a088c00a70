"""A run without its screen: plain rows on the terminal until it ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

from engine.cli.output import lasting
from engine.cli.rows import Rows
from engine.events import Event
from tui.session import Session

SECONDS = 0.2
ASKED = {signal.SIGINT: "interrupted (SIGINT)", signal.SIGTERM: "terminated (SIGTERM)"}


class Stops:
    """From now on Ctrl-C and SIGTERM stop and save the run; a second one ends at once. A hang-up changes nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.received: list[int] = []
        for number in ASKED:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        signal.signal(number, signal.SIG_DFL)
        self.session.control.stop(ASKED[signal.Signals(number)])


def _nothing(event: Event) -> None:
    """The terminal is gone."""


def wait(session: Session, stops: Stops, status: int | None = None, *, silent: bool = False) -> int:
    """Print a row an epoch as the command line does, until the run ends.

    What a lost terminal no longer takes is dropped; `silent` prints nothing from the start. Returns `status` if given (a
    signal came earlier), else 130 or 143 for one that came here, else the run's.
    """
    with lasting(sys.stdout, sys.stderr) as (out, err):
        rows: Callable[[Event], None] = _nothing if silent else Rows(out, "epochal", quiet=not session.alive)
        told = 0
        started = False
        while True:
            ended = session.join(SECONDS)  # asked before the last look: nothing is missed
            history = session.history
            if history.started is not None and not started:
                rows(history.started)
                started = True
            for event in history.epochs[told:]:
                rows(event)
            told = len(history.epochs)
            if ended:
                break
        if history.checkpoints:
            rows(history.checkpoints[-1])
        if history.ended is not None and history.started is not None:
            rows(history.ended)
        for problem in session.problems:
            err.line(f"epochal: {problem.message}")
        if session.failure:
            err.line(session.failure.rstrip())
    if status is not None:
        return status
    return 128 + stops.received[0] if stops.received else session.exit_status
