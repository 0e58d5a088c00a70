"""The best so far: at the end of an epoch, or in the middle of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.events import Validated
from engine.history import History


@dataclass(frozen=True, slots=True)
class Best:
    """The metrics that were best, and where: `where` in words."""

    step: int
    metrics: Mapping[str, float]
    where: str


def best_of(history: History, validated: Validated | None) -> Best | None:
    """The best of a run; `validated` is the best of its validations in the middle of an epoch."""
    epoch = history.best
    if validated is not None and (epoch is None or validated.step > epoch.step):  # a later best is a better one
        return Best(validated.step, validated.metrics, f"step {validated.step}")
    return Best(epoch.step, epoch.metrics, f"epoch {epoch.epoch}") if epoch is not None else None
