"""What is trained: the same data, initial weights and optimizer for every contender."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from engine.models import MODELS


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table. The targets are what issue 5 asks for, as multiples of the tutorial's step rate."""

    title: str
    data: Callable[[], tuple[Tensor, Tensor]]
    model: Callable[[], nn.Module]
    loss: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    batch_size: int
    eager: float
    compiled: float

    def begin(self) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
        """Model, loss and optimizer, with the weights that every contender begins with."""
        torch.manual_seed(0)
        model = self.model()
        return model, self.loss(), self.optimizer(model.parameters())

    def loader(self) -> DataLoader:
        """The tutorial's."""
        return DataLoader(TensorDataset(*self.data()), self.batch_size, shuffle=True)

    def final_loss(self, model: Any) -> float:
        """Over all data, in evaluation mode."""
        inputs, targets = self.data()
        model.eval()
        with torch.no_grad():
            return float(self.loss()(model(inputs), targets))


def _line() -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1, 1, 32 * 1024)[:, None]
    return x, 2 * x + 1 + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def _digits(images: bool = False) -> tuple[Tensor, Tensor]:
    """Eight times over, cut to whole batches."""
    from sklearn.datasets import load_digits

    data = load_digits()
    inputs = torch.tensor(data.data / 16, dtype=torch.float32).repeat(8, 1)[:14336]
    return inputs.view(-1, 1, 8, 8) if images else inputs, torch.tensor(data.target).repeat(8)[:14336]


def _wide() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(256 * 8, 784, generator=generator), torch.randint(0, 10, (256 * 8,), generator=generator)


CASES = {
    "line": Case(
        title="straight line, `Linear(1, 1)`, SGD, batch 32",
        data=_line,
        model=lambda: nn.Linear(1, 1),
        loss=nn.MSELoss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        batch_size=32,
        eager=3,
        compiled=25,
    ),
    "mlp": Case(
        title="digits MLP 64-128-10, Adam, batch 32",
        data=_digits,
        model=lambda: MODELS["mlp"](input_shape=(64,), output_size=10, hidden=(128,)),
        loss=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        batch_size=32,
        eager=2.5,
        compiled=7,
    ),
    "cnn": Case(
        title="digits CNN, Adam, batch 64",
        data=lambda: _digits(images=True),
        model=lambda: MODELS["cnn"](input_shape=(1, 8, 8), output_size=10),
        loss=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        batch_size=64,
        eager=1.3,
        compiled=1.9,
    ),
    "wide": Case(
        title="wide MLP 784-1024-1024-10, Adam, batch 256",
        data=_wide,
        model=lambda: MODELS["mlp"](input_shape=(784,), output_size=10, hidden=(1024, 1024)),
        loss=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        batch_size=256,
        eager=1.15,
        compiled=1.2,
    ),
}
