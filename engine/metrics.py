"""Metrics of a validation pass. All have torchmetrics' face: `update(output, targets)`, `compute()`, `higher_is_better`.

Sums stay on the device until `compute`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.errors import Problem, RecipeError, nearest


class Metric(Protocol):
    @property
    def higher_is_better(self) -> bool | None: ...

    def update(self, output: Tensor, targets: Tensor) -> None: ...

    def compute(self) -> Any: ...

    def reset(self) -> None: ...


Gather = Callable[[Any], list[Any]]  # what every process has given, in each


class _Mean:
    """What is summed up over the number of targets."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.total: Tensor | float = 0
        self.count = 0

    def across(self, gather: Gather) -> None:
        """Take in what the other processes have seen."""
        total, count = zip(*gather((float(self.total), self.count)), strict=True)
        self.total, self.count = sum(total), sum(count)

    def compute(self) -> float:
        return float(self.total) / self.count if self.count else float("nan")


class Accuracy(_Mean):
    """Share of targets for which the largest logit is the right one. Logits (B, C, …), targets (B, …)."""

    higher_is_better = True

    def update(self, output: Tensor, targets: Tensor) -> None:
        self.total = self.total + (output.argmax(1) == targets).sum()
        self.count += targets.numel()


class MAE(_Mean):
    """Mean absolute error over all numbers."""

    higher_is_better = False

    def update(self, output: Tensor, targets: Tensor) -> None:
        self.total = self.total + (_wide(output) - _wide(targets)).abs().sum()
        self.count += targets.numel()


class R2:
    """Coefficient of determination, 1 - residual / total sum of squares, as scikit-learn's r2_score.

    Several targets count alike, by the mean of theirs.
    The total is summed around the first batch's mean, which keeps it exact where the targets are far from zero. A target that
    is constant counts 1 when met exactly and 0 otherwise.
    """

    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.center: Tensor | None = None
        self.count = 0

    def update(self, output: Tensor, targets: Tensor) -> None:
        wide = _wide(targets)
        if self.center is None:
            self.center = wide.mean(0)
            self.residual = torch.zeros_like(self.center)
            self.first = torch.zeros_like(self.center)
            self.second = torch.zeros_like(self.center)
        shifted = wide - self.center
        self.residual += (_wide(output) - wide).square().sum(0)
        self.first += shifted.sum(0)
        self.second += shifted.square().sum(0)
        self.count += len(targets)

    def across(self, gather: Gather) -> None:
        """Take in what the other processes have seen, each around a center of its own."""
        mine = None
        if self.center is not None:
            mine = tuple(held.cpu() for held in (self.center, self.residual, self.first, self.second)), self.count
        parts = [part for part in gather(mine) if part is not None]
        if not parts:
            return
        self.count = sum(count for _, count in parts)
        sums = torch.stack([first + count * center for (center, _, first, _), count in parts])
        self.center = sums.sum(0) / self.count
        self.residual = torch.stack([residual for (_, residual, _, _), _ in parts]).sum(0)
        self.first = torch.zeros_like(self.center)
        self.second = torch.zeros_like(self.center)
        for (center, _, first, second), count in parts:
            moved = self.center - center
            self.second += second - 2 * moved * first + count * moved.square()

    def compute(self) -> float:
        if self.count < 2:
            return float("nan")
        total = self.second - self.first.square() / self.count
        constant = (self.residual == 0).to(total.dtype)
        return float(torch.where(total > 0, 1 - self.residual / total, constant).mean())


def _wide(values: Tensor) -> Tensor:
    """Double precision where the device has it: a sum over a large validation set must not lose its small terms."""
    return values if values.device.type == "mps" else values.double()


OWN: dict[str, type[Metric]] = {"accuracy": Accuracy, "mae": MAE, "r2": R2}


def usual(output: Any, targets: Tensor) -> dict[str, Metric]:
    """What fits these tensors: accuracy for class targets, MAE and R2 for numbers of the output's shape, else nothing."""
    if not isinstance(output, Tensor):
        return {}
    if not targets.is_floating_point() and output.ndim == targets.ndim + 1:
        return {"accuracy": Accuracy()}
    if targets.is_floating_point() and output.shape == targets.shape:
        # Over the pixels of an image, R2 would be ruled by those that hardly ever change.
        return {"mae": MAE(), "r2": R2()} if targets.ndim <= 2 else {"mae": MAE()}
    return {}


def monitored(monitor: str, validated: bool, chosen: dict[str, Metric] | None) -> tuple[str, str]:
    """The name of the metric that decides which epoch is best ("auto" resolved) and its direction, "min" or "max"."""
    name = monitor if monitor != "auto" else "val/loss" if validated else "train/loss"
    short = name.removeprefix("val/")
    metric = (chosen or {}).get(short) or OWN.get(short)
    return name, "max" if metric is not None and metric.higher_is_better else "min"


def named(names: Sequence[str], task: str, classes: int, device: torch.device) -> dict[str, Metric]:
    """The metrics of these names: "accuracy", "mae", "r2", or a class of torchmetrics ("F1Score").

    Raises RecipeError for a name that neither knows, and where torchmetrics is not installed.
    """
    return {name: OWN[name]() if name in OWN else _torchmetric(name, task, classes, device) for name in names}


def _torchmetric(name: str, task: str, classes: int, device: torch.device) -> Metric:
    def refused(why: str) -> RecipeError:
        return RecipeError([Problem("training.metrics", f"training.metrics names {name!r}, {why}")])

    try:
        import torchmetrics
    except ModuleNotFoundError:
        raise refused(
            f"but only {', '.join(OWN)} are built in; others need torchmetrics: pip install 'epochal[metrics]'"
        ) from None
    cls = getattr(torchmetrics, name, None)
    if cls is None:
        raise refused(f"which torchmetrics does not have{nearest(name, [*OWN, *torchmetrics.__all__])}")
    arguments = {"task": "multiclass", "num_classes": classes} if task == "classification" else {}
    try:
        metric: Metric = cls(**arguments).to(device)
    except (TypeError, ValueError) as error:
        raise refused(f"which can't be made for {task} without more arguments: {error}") from None
    return metric
