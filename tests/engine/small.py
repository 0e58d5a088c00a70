"""A small model on digits, for tests of the trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Data = tuple[Tensor, Tensor]


def parts(seed: int = 0, lr: float = 0.1) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
        "device": "cpu",
    }


def some(digits: Data, count: int) -> Data:
    return digits[0][:count], digits[1][:count]
