"""One's own PyTorch objects -> Parts. They are used as they are; nothing is reseeded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from engine import execution
from engine.data.batches import Batches, LoaderBatches, ResidentBatches, StreamedBatches
from engine.measure import counter
from engine.metrics import Metric
from engine.parts import Parts
from engine.recipe import Training
from engine.schedule import Schedule


def own_parts(
    model: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    train: Any,
    validation: Any,
    scheduler: Any,
    metrics: dict[str, Metric] | None,
    plan: Training,
    batch_size: int,
    seed: int,
) -> Parts:
    """See `Trainer`. The model is moved to the device in place, so that the optimizer keeps its parameters."""
    device = execution.find_device(plan.device)
    model.to(device)
    if isinstance(loss, nn.Module):
        loss.to(device)
    return Parts(
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=scheduler if scheduler is None or isinstance(scheduler, Schedule) else Schedule(scheduler),
        train=as_batches(train, batch_size, seed, True, device),
        validation=None if validation is None else as_batches(validation, batch_size, seed, False, device),
        metrics=metrics,
        count=counter(loss, _targets(train, validation)),
        device=device,
        threads=plan.threads,
    )


def _targets(*data: Any) -> Tensor | None:
    """All targets, where they are at hand."""
    given = [part for part in data if part is not None]
    if not all(isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], Tensor) for part in given):
        return None
    return torch.cat([part[1].flatten() for part in given])


def as_batches(data: Any, batch_size: int, seed: int, shuffle: bool, device: torch.device) -> Batches:
    """Batches from a pair of tensors, a Dataset, a DataLoader or any other iterable of (inputs, targets)."""
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return ResidentBatches(*data, batch_size=batch_size, seed=seed, shuffle=shuffle, device=device)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return StreamedBatches(data, batch_size=batch_size, seed=seed, shuffle=shuffle, device=device)
    if isinstance(data, DataLoader) or hasattr(data, "__iter__"):
        return LoaderBatches(data, device)
    if hasattr(data, "epoch"):
        return data  # type: ignore[no-any-return]  # Batches of the user's own
    raise TypeError(f"train and validation take tensors, a Dataset or an iterable of batches, not {type(data).__name__}")
