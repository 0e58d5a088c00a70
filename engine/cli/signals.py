"""Ctrl-C, SIGTERM, SIGUSR1 and a hang-up while the command line trains."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from types import FrameType
from typing import Any

from engine.control import Control, StopWaiting
from engine.distributed.launched import LAUNCHER, rank, restarts_left, stopped_by, together

ENDS = "epochal: ends after this step, with a checkpoint; once more ends it at once\n"
_ECHO_SECONDS = 3.0  # in which a second signal is the first one again: Slurm signals a job's every process, torchrun its own
_ASKED = {signal.SIGINT: "interrupted (SIGINT)", signal.SIGTERM: "asked to end (SIGTERM)"}


class Signals:
    """While the block lasts: the first SIGINT or SIGTERM asks the run to stop after its step, a second one ends the program
    at once; SIGUSR1 (a scheduler's warning) writes a checkpoint after the step and lets it go on; a hang-up changes nothing.
    A signal that the caller has set to be ignored (a shell's `&`) stays ignored.

    Before `watch` there is nothing to save: the first of them ends the program, with the exit status that says so.
    """

    def __init__(self) -> None:
        self.received: int | None = None  # the number of the first one
        self._control: Control | None = None
        self._pid = os.getpid()
        self._before: dict[int, Any] = {}
        self._at = 0.0  # when it came

    def __enter__(self) -> Signals:
        for number, handle in ((signal.SIGINT, self._stop), (signal.SIGTERM, self._stop), (signal.SIGUSR1, self._save)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, handle)
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def watch(self, control: Control) -> None:
        """From now on a signal stops the run that `control` belongs to."""
        self._control = control

    @property
    def status(self) -> int:
        """The exit status that says which signal came: 130 or 143; 0 for none."""
        return 0 if self.received is None else 128 + self.received

    def status_of(self, reason: str) -> int:
        """The exit status of a run that was stopped for this reason.

        Of several processes a signal may have come to any of them, and all have stopped for it. The first tells, when the last
        checkpoint is written: torch's launcher ends the others as soon as one has another status than 0. Where it would also
        begin all of them once more, the status is 0: they were asked to stop.
        """
        if not together():
            return self.status
        number = next((number for number, said in _ASKED.items() if said == reason), None)
        if number is None or rank():
            return 0
        stopped_by(number)
        return 0 if LAUNCHER in os.environ or restarts_left() else 128 + number

    def _save(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return
        if self._control is None:
            tell("epochal: there is nothing to save yet\n")
        else:
            self._control.checkpoint()
            tell("epochal: writes a checkpoint after this step and goes on\n")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked process (one that loads samples): Ctrl-C reaches it too, its parent ends it
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.received = number
        for asked in _ASKED:
            if asked in self._before:
                signal.signal(asked, self._once_more if together() or "SLURM_JOB_ID" in os.environ else signal.SIG_DFL)
        self._at = time.monotonic()
        if self._control is None:
            # Not by KeyboardInterrupt: raised while torch is imported it may be lost in a callback, or leave a traceback.
            os._exit(128 + number)
        self._control.stop(_ASKED[signal.Signals(number)])
        if LAUNCHER not in os.environ:
            tell(ENDS)
        if self._control.waiting:
            raise StopWaiting

    def _once_more(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() > self._at + _ECHO_SECONDS or os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def tell(text: str) -> None:
    """Write to standard error past Python's streams, which the signal may have caught in the middle of a write."""
    with contextlib.suppress(OSError):  # a terminal that has gone
        os.write(2, (("\r\x1b[2K" if os.isatty(2) else "") + text).encode())
