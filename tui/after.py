"""A run without its screen: plain rows on the terminal while there is one, and in silence without."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING

from tui.attention import Attention
from tui.terminal import lead

if TYPE_CHECKING:
    from tui.session import Session

SECONDS = 0.2
TOGETHER = 0.5  # seconds within which two signals are one: sent to the process group, and passed on by the launcher
ASKED = {signal.SIGINT: "interrupted (SIGINT)", signal.SIGTERM: "terminated (SIGTERM)"}


class Stops:
    """From now on Ctrl-C and SIGTERM stop and save the run, a second one ends at once; SIGUSR1 writes a checkpoint. A hang-up
    changes nothing."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.received: int | None = None
        self._first = 0.0
        self._process = os.getpid()
        for number in ASKED:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGUSR1, lambda *_: session.control.checkpoint())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None and os.getpid() == self._process:
            self.received, self._first = number, now
            self.session.control.stop(ASKED[signal.Signals(number)])
        elif os.getpid() == self._process and now - self._first < TOGETHER:
            return
        elif os.getpid() == self._process or number == signal.SIGTERM:  # a data worker leaves Ctrl-C to us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def wait(session: Session, stops: Stops, attention: Attention, status: int | None = None) -> int:
    """Print a row an epoch as the command line does, until the run ends. What a lost terminal no longer takes is dropped.

    Returns `status` if given (a signal came earlier), else 130 or 143 for one that came here, else the run's.
    """
    from engine.cli.output import lasting
    from engine.cli.rows import Rows

    with lasting(sys.stdout, sys.stderr) as (out, err):
        rows = Rows(out, "epochal", quiet=not session.alive)
        told = 0
        started = False
        while True:
            ended = session.join(SECONDS)  # asked before the last look: nothing is missed
            attention.look(session)
            history = session.history
            if history.started is not None and not started:
                rows(history.started)
                started = True
            for event in history.epochs:
                if event.epoch > told:
                    rows(event)
                    told = event.epoch
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
        attention.finish()
        for sentence in attention.problems:
            err.line(f"epochal: {sentence}")
    if status is not None:
        return status
    return 128 + stops.received if stops.received is not None else session.exit_status


def outlive(session: Session, stops: Stops, attention: Attention) -> None:
    """Be there until the run ends, with nobody to tell but a command or webhook. One that is paused stays paused, and is saved
    now."""
    if session.control.paused:
        session.control.checkpoint()
    logged = session.path is not None
    while not session.join(SECONDS):
        if not logged and session.path is not None:  # the run has begun only now
            lead(session.path / "output.log", 1, 2)
            logged = True
        attention.look(session)
    attention.look(session)
    attention.finish()
    for sentence in attention.problems:
        print(f"epochal: {sentence}", file=sys.stderr, flush=True)
