"""How long a run is: epochs and steps, from the plan and the length of an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.recipe import Training


@dataclass(frozen=True, slots=True)
class Length:
    """`steps_per_epoch` and `steps` (of the whole run) are None when an epoch's length is not known."""

    epochs: int
    steps_per_epoch: int | None
    steps: int | None


def length(plan: Training, batches: int | None) -> Length:
    """The length of a run over `batches` batches an epoch. A budget of steps replaces the number of epochs."""
    each = None if batches is None else math.ceil(batches / plan.accumulate)
    if plan.max_steps is None:
        return Length(plan.epochs, each, None if each is None else each * plan.epochs)
    # Without a known length an epoch has at least one step.
    return Length(math.ceil(plan.max_steps / max(1, each or 1)), each, plan.max_steps)
