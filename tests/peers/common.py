"""What every adapter shares: data, model, a watched optimizer, and what a case expects of `fit`."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

Data = tuple[Tensor, Tensor]
LENGTH = 15  # steps of the runs that are stopped: 3 epochs of 5

SCHEDULERS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 4},
    "MultiStepLR": {"milestones": [3, 9]},
    "LinearLR": {"total_iters": 10},
    "ExponentialLR": {"gamma": 0.9},
    "PolynomialLR": {"total_iters": LENGTH},
    "CosineAnnealingLR": {"T_max": LENGTH},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": LENGTH + 1},
}


class Missing(Exception):
    """The library has no such feature; the text says what it has instead."""


@dataclass
class Plan:
    """One training, to be done the way the library's documentation does it, with its default settings."""

    data: Data
    batch_size: int
    epochs: int = 1
    lr: float = 0.1
    momentum: float = 0.0
    accumulate: int = 1
    shuffle: bool = False
    dropout: float = 0.0
    validation: Data | None = None
    scheduler: str = ""  # a class of torch.optim.lr_scheduler, stepped once an optimizer step
    save_at: int = 0  # leave a checkpoint of that step in `place`; or the nearest one that the library can make
    place: Path = Path()
    resume: bool = False  # continue from the checkpoint in `place`


@dataclass
class Fitted:
    """What came out. `loss` is the epoch's training loss as the library reports it; `saved` the checkpoint's step."""

    model: nn.Module
    loss: float = float("nan")
    saved: int = 0
    rates: list[float] = field(default_factory=list)  # of each optimizer step that was taken
    steps: int = 0


RATES: list[float] = []


class Watched(torch.optim.SGD):
    """SGD that notes the learning rate of each step."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register_step_pre_hook(lambda *_: RATES.append(float(self.param_groups[0]["lr"])))


def begin(plan: Plan) -> tuple[nn.Module, Watched, Any]:
    """Seeded model, optimizer and scheduler; a resume is the same script again, with the same seed at its top."""
    RATES.clear()
    random.seed(0)
    numpy.random.seed(0)
    net = network(plan.dropout)
    torch.manual_seed(0)
    optimizer = Watched(net.parameters(), lr=plan.lr, momentum=plan.momentum)
    return net, optimizer, scheduler(plan, optimizer)


def scheduler(plan: Plan, optimizer: torch.optim.Optimizer) -> Any:
    if not plan.scheduler:
        return None
    return getattr(lr_scheduler, plan.scheduler)(optimizer, **SCHEDULERS[plan.scheduler])


def network(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def samples(count: int, seed: int = 1) -> Data:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def loader(plan: Plan, data: Data | None = None) -> DataLoader:
    """The tutorial's loader of the training data, or of others in their order."""
    return DataLoader(TensorDataset(*(data or plan.data)), plan.batch_size, shuffle=plan.shuffle and data is None)
