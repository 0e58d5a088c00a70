"""The tutorial's loop, written by hand: the reference that the engine is held to."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


def train(
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    *,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    validation: tuple[Tensor, Tensor] | None = None,
    each_step: Callable[[], None] = lambda: None,
    each_epoch: Callable[[], None] = lambda: None,
) -> tuple[list[float], list[float]]:
    """Losses of all steps, and the validation loss of each epoch. The documented order: seeded by (seed, epoch)."""
    dataset = TensorDataset(*data)
    shuffle = torch.Generator()
    loader = DataLoader(dataset, batch_size, sampler=RandomSampler(dataset, generator=shuffle), generator=torch.Generator())
    losses, validated = [], []
    for epoch in range(1, epochs + 1):
        shuffle.manual_seed(int(numpy.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            output = model(inputs)
            loss = loss_fn(output, targets)
            loss.backward()
            optimizer.step()
            each_step()
            losses.append(loss.item())
        if validation is not None:
            model.eval()
            total = 0.0
            with torch.no_grad():
                for inputs, targets in DataLoader(TensorDataset(*validation), batch_size, generator=torch.Generator()):
                    total += loss_fn(model(inputs), targets).item() * len(targets)
            validated.append(total / len(validation[0]))
        each_epoch()
    return losses, validated


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts are equal to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
