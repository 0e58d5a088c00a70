"""Data workers: the news that one was killed, brought at a moment when it can be taken; and how many would be enough."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from engine.control import Control

WAITING = 0.25  # share of the time that went to waiting for samples that is worth a word
_training: Control | None = None  # of the training under way in the main thread


@contextmanager
def only_while_waiting(control: Control) -> Iterator[None]:
    """While the block lasts, torch tells of a killed worker only where a batch is waited for.

    Its handler of SIGCHLD raises wherever the main thread is: in the middle of an optimizer's step, or of a write. What it
    keeps to itself now is found by the loader when it next waits for a batch, within seconds.
    """
    global _training
    before = _training
    if threading.current_thread() is threading.main_thread():
        _training = control
    try:
        yield
    finally:
        _training = before


def tame() -> None:
    """To be called when a loader may have started its workers: then torch has put its handler in place."""
    if _training is not None and threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and handler.__module__.startswith("torch."):
            signal.signal(signal.SIGCHLD, _tamed(handler))


def _tamed(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
    def heard(number: int, frame: FrameType | None) -> None:
        if _training is None or _training.waiting:
            handler(number, frame)

    return heard


def proposed(waited: float | None, workers: int, cores: int | None = None) -> int | None:
    """How many workers would end the waiting, by the share of the time that went to it with so many; None where it is short.

    Without workers loading and steps take turns, so that the share tells how many times as long as a step a batch takes to
    load. With workers a step has to wait because all of them together are slower. No more than there are CPUs are of use.
    """
    if waited is None or waited < WAITING:
        return None
    busy = max(1.0 - waited, 0.01)
    wanted = math.ceil(workers / busy if workers else waited / busy)
    most = cores or available_cpus()
    return min(wanted, most) if workers < min(wanted, most) else None


def available_cpus() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
