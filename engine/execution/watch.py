"""Watch: how long each phase of a step took, on the CPU by its clock, on a GPU by marks in its stream that are read later."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch


class Watch:
    """Runs from one `switch` to the next. On a GPU the host goes on at once: `seconds` is None until the device is there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, float, Any]] = []  # phase, the host's clock, the stream's mark

    def switch(self, phase: str) -> None:
        """From here on it is this phase."""
        mark = None
        if self._device.type == "cuda":
            mark = torch.cuda.Event(enable_timing=True)
            mark.record()
        elif self._device.type == "mps":  # it has no such marks: the host waits
            torch.mps.synchronize()
        self._marks.append((phase, time.perf_counter(), mark))

    def switch_anew(self, phase: str) -> None:
        """From here on it is this phase, and what was said of it just before does not count: the last time it is said does."""
        if self._marks and self._marks[-1][0] == phase:
            self._marks.pop()
        self.switch(phase)

    def seconds(self) -> dict[str, float] | None:
        """By phase, the last one left out: it ends nowhere. None while the device is still at it."""
        if self._marks and self._marks[-1][2] is not None and not self._marks[-1][2].query():
            return None
        return self._summed(
            lambda began, ended: ended[1] - began[1] if ended[2] is None else began[2].elapsed_time(ended[2]) / 1000
        )

    def of_host(self) -> dict[str, float]:
        """The same by the host's clock, at once."""
        return self._summed(lambda began, ended: ended[1] - began[1])

    def _summed(self, between: Callable[[Any, Any], float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for began, ended in pairwise(self._marks):
            found[began[0]] = found.get(began[0], 0.0) + between(began, ended)
        return found
