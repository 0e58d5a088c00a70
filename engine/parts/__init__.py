"""Parts: what a recipe is assembled into, and what one's own objects are brought into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.data.batches import Batches
from engine.data.preprocessing import Preprocessing
from engine.execution import gradient_scaler, precision_context
from engine.loop import Count, Loop
from engine.metrics import Metric
from engine.parts.freezing import Freezing
from engine.parts.schedule import Schedule
from engine.recipe import Training


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
    fingerprint: str = ""  # of the training data; empty where it is the user's own affair
    preprocessing: Preprocessing | None = None  # of a recipe's data: what is kept with the run
    warnings: tuple[str, ...] = ()  # sentences for the person
    freezing: Freezing = field(default_factory=Freezing)
    threads: int | None = None  # CPU threads for one operation; None: as torch chooses

    @property
    def parameters(self) -> int:
        """How many numbers are trained now."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    @property
    def frozen(self) -> int:
        """How many are not."""
        return sum(parameter.numel() for parameter in self.model.parameters() if not parameter.requires_grad)

    @property
    def needs_closure(self) -> bool:
        """Whether the optimizer evaluates the loss itself (LBFGS): its `step` can't be called without a closure."""
        import inspect

        closure = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        return closure is not None and closure.default is closure.empty

    def loop(self, plan: Training) -> Loop:
        """The loop over these parts, eager, as the plan has it; what only a whole training needs is added by `TrainerState`."""
        return Loop(
            model=self.model,
            module=self.model,
            loss=self.loss,
            optimizer=self.optimizer,
            count=self.count,
            precision=precision_context(plan.precision, self.device),
            scaler=gradient_scaler(plan.precision, self.device),
            closure=self.needs_closure,
            clip_norm=plan.clip_norm,
            clip_value=plan.clip_value,
            measure_norm=plan.gradient_norm,
        )
