"""Best: which epoch is the best so far, and for how many there was none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def gains(value: float, than: float, mode: str, delta: float = 0.0) -> bool:
    """Whether it is better by more than `delta`. Only a number is (no NaN, no infinity), and any is better than none."""
    if not math.isfinite(value) or not math.isfinite(than):
        return math.isfinite(value)
    return value < than - delta if mode == "min" else value > than + delta


class Best:
    """Keeps the best epoch's row; NaN or an infinity is no best.

    `patience` epochs in a row that do not gain more than `min_delta` make `exhausted` true.
    """

    def __init__(self, monitor: str, mode: str, patience: int | None = None, min_delta: float = 0.0) -> None:
        self.monitor, self.mode = monitor, mode
        self.patience, self.min_delta = patience, min_delta
        self.row: dict[str, float] = {}
        self.value = math.nan
        self._reference = math.nan  # what patience measures against
        self.waited = 0

    def update(self, row: Mapping[str, float]) -> bool:
        """Take in an epoch's row; whether it is the best so far."""
        value = row[self.monitor]
        if gains(value, self._reference, self.mode, self.min_delta):
            self._reference, self.waited = value, 0
        else:
            self.waited += 1
        better = gains(value, self.value, self.mode)
        if better:
            self.value, self.row = value, dict(row)
        return better

    @property
    def exhausted(self) -> bool:
        """Whether there was no gain for as long as `patience` allows."""
        return self.patience is not None and self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"row": self.row, "value": self.value, "reference": self._reference, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.row, self.value = dict(state["row"]), state["value"]
        self._reference, self.waited = state["reference"], state["waited"]
