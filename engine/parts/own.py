"""One's own PyTorch objects -> Parts. They are used as they are; nothing is reseeded."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from numbers import Integral
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from engine import execution
from engine.data.batches import Batches, LoaderBatches, ResidentBatches, StreamedBatches
from engine.errors import Problem, RecipeError, named, nearest
from engine.measure import counter
from engine.metrics import Metric
from engine.parts import Parts
from engine.parts.freezing import Freezing
from engine.parts.schedule import Schedule
from engine.parts.weights import load_weights
from engine.recipe import Training


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
    _refuse(model, loss, optimizer, scheduler, metrics, batch_size, seed)
    said = () if plan.weights is None else (load_weights(model, plan.weights, plan.weights_except),)
    freezing = Freezing.of(model, plan)
    _refuse_untrained(optimizer, freezing)
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
        warnings=said,
        freezing=freezing,
        threads=plan.threads,
    )


def own_plan(**plan: Any) -> Training:
    """The plan of these fields. RecipeError, in one sentence each, for one that there is not or a value that it can't have."""
    from engine.catalog import fields_of_options

    fields = {field.key: field for field in fields_of_options(Training)}
    given = [*fields, *(name for name in signature(own_parts).parameters if name not in ("plan", "metrics"))]
    unknown = [Problem(key, f"Trainer takes no {key!r}{nearest(key, given)}") for key in plan if key not in fields]
    wrong = [fields[key].problem("training", value) for key, value in plan.items() if key in fields]
    if problems := [problem for problem in (*unknown, *wrong) if problem is not None]:
        raise RecipeError(problems)
    return Training(**plan)


def _refuse(model: Any, loss: Any, optimizer: Any, scheduler: Any, metrics: Any, batch_size: Any, seed: Any) -> None:
    """What is taken for something else, or would train nothing."""
    wants = {
        "model": (isinstance(model, nn.Module), model, "an nn.Module"),
        "loss": (callable(loss) and not isinstance(loss, type), loss, "a function of (output, targets), or a loss of torch.nn"),
        "optimizer": (isinstance(optimizer, torch.optim.Optimizer), optimizer, "an optimizer made with the model's parameters"),
        "metrics": (metrics is None or isinstance(metrics, dict), metrics, "a dict of metrics by name"),
        "scheduler": (
            scheduler is None or isinstance(scheduler, Schedule) or hasattr(scheduler, "optimizer"),
            scheduler,
            "a scheduler made with the optimizer, or None",
        ),
        "batch_size": (
            type(batch_size) is not bool and isinstance(batch_size, int) and batch_size > 0,
            batch_size,
            "a whole number from 1 on",
        ),
        "seed": (isinstance(seed, Integral) and int(seed) >= 0, seed, "a whole number from 0 on"),
    }
    problems = [
        Problem(key, f"{key} is {named(value)}; it must be {what}") for key, (fits, value, what) in wants.items() if not fits
    ]
    if not problems:
        parts = [part for part in (model, loss) if isinstance(part, nn.Module)]
        theirs = {id(parameter) for part in parts for parameter in part.parameters()}
        if theirs and not any(id(parameter) in theirs for group in optimizer.param_groups for parameter in group["params"]):
            words = (
                "the optimizer has none of the model's parameters, so that nothing would be trained: make it with this model's"
            )
            problems = [Problem("optimizer", words)]
    if problems:
        raise RecipeError(problems)


def _refuse_untrained(optimizer: torch.optim.Optimizer, freezing: Freezing) -> None:
    """Parameters that are to be trained one day, and of which the optimizer would know nothing."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if freezing.epochs is not None and any(id(parameter) not in known for parameter in freezing.parameters):
        words = "training.freeze_epochs needs an optimizer of all parameters: make it with model.parameters()"
        raise RecipeError([Problem("optimizer", words)])


def _targets(*data: Any) -> Tensor | None:
    """All targets, where they are at hand."""
    given = [part for part in data if part is not None]
    if not all(isinstance(part, tuple) and len(part) == 2 and isinstance(part[1], Tensor) for part in given):
        return None
    return torch.cat([part[1].flatten() for part in given])


def as_batches(data: Any, batch_size: int, seed: int, shuffle: bool, device: torch.device) -> Batches:
    """Batches from a pair of tensors, a Dataset, a DataLoader or any other iterable of (inputs, targets)."""
    pair = isinstance(data, tuple) and len(data) == 2
    if isinstance(data, Tensor) or (pair and any(isinstance(part, ndarray) for part in data)):
        given = "a tensor" if isinstance(data, Tensor) else "a pair of arrays"
        words = f"the data are {given}: a pair of tensors is wanted, (inputs, targets), such as torch.from_numpy makes"
        raise RecipeError([Problem("train", words)])
    if pair and all(isinstance(part, Tensor) for part in data):
        if len(data[0]) != len(data[1]) or not len(data[0]):
            words = f"the data have {len(data[0])} inputs and {len(data[1])} targets: it must be as many, and one at least"
            raise RecipeError([Problem("train", words)])
        return ResidentBatches(*data, batch_size=batch_size, seed=seed, shuffle=shuffle, device=device)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return StreamedBatches(data, batch_size=batch_size, seed=seed, shuffle=shuffle, device=device)
    if isinstance(data, DataLoader) or hasattr(data, "__iter__"):
        return LoaderBatches(data, device)
    if hasattr(data, "epoch"):
        return data  # type: ignore[no-any-return]  # Batches of the user's own
    words = f"train and validation take tensors, a Dataset or an iterable of batches, not {named(data)}"
    raise RecipeError([Problem("train", words)])
