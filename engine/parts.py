"""Parts: what a recipe is assembled into, and what one's own objects are brought into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.data.batches import Batches
from engine.loop import Count
from engine.metrics import Metric
from engine.schedule import Schedule


@dataclass(slots=True, kw_only=True)
class Parts:
    """The live objects of one training, all on `device`."""

    model: nn.Module
    loss: Callable[[Any, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None
    train: Batches
    validation: Batches | None
    metrics: dict[str, Metric] | None  # None: the usual ones for the first validation batch
    count: Callable[[Tensor], Count]  # what the loss divides by
    device: torch.device

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
