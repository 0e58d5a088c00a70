from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from engine.training.pace import Pace


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """The next test meets neither a thread that still compiles, nor torch's handler of SIGCHLD: that is there for good, and
    may raise an error of data workers that are waste by then wherever some process ends."""
    yield
    for thread in threading.enumerate():
        if thread.name == "epochal-compile":
            thread.join()
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_DFL:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        torch.utils.data._utils.signal_handling._SIGCHLD_handler_set = False


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: inputs (1797, 64) in 0..1, targets (1797,)."""
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


@pytest.fixture
def in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and the environment of commands that are run as processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside a busy process more threads are many times slower
    return tmp_path


class Clock:
    """Stands still, but for what is slept by it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What a run measures is measured by it: how busy the machine is makes no difference."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(Pace.__init__, "__defaults__", (0.0, clock))
    return clock
