"""The news that a data worker was killed, brought at a moment when it can be taken."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from engine.control import Control

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
