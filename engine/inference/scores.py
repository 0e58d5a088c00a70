"""Scores of predictions: the confusion matrix and what follows from it, errors of numbers, the worst samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MOST = 1000  # classes up to which the whole matrix is counted


class Tally:
    """How often which class was taken for which. Sums stay on the device."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._pairs: Tensor | None = None
        self._counts: Tensor | None = None  # right, predicted, there: for each class

    def update(self, targets: Tensor, predicted: Tensor) -> None:
        """Two tensors of class numbers of the same shape."""
        targets, predicted = targets.flatten(), predicted.flatten()
        each = [targets[targets == predicted], predicted, targets]
        counts = torch.stack([torch.bincount(numbers, minlength=self.classes) for numbers in each])
        self._counts = counts if self._counts is None else self._counts + counts
        if self.classes <= MOST:
            pairs = torch.bincount(targets * self.classes + predicted, minlength=self.classes**2)
            self._pairs = pairs if self._pairs is None else self._pairs + pairs

    def update_labels(self, targets: Tensor, predicted: Tensor) -> None:
        """Labels (N, K), each there or not."""
        counts = torch.stack([(targets & predicted).sum(0), predicted.sum(0), targets.sum(0)])
        self._counts = counts if self._counts is None else self._counts + counts

    @property
    def matrix(self) -> list[list[int]] | None:
        """Rows are the targets' classes, columns the predicted ones; None where there are too many."""
        return None if self._pairs is None else self._pairs.reshape(self.classes, self.classes).tolist()

    def report(self, classes: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Precision, recall, F1 and support of each class, and their averages, as scikit-learn's classification_report.

        "accuracy", "macro avg" and "weighted avg" are of the classes that occur in targets or predictions; what would be 0 / 0
        is 0.
        """
        if self._counts is None:
            return [], {}
        counts = self._counts.cpu().double().numpy()
        right, predicted, there = counts
        scores = {
            "precision": _share(right, predicted),
            "recall": _share(right, there),
            "f1": _share(2 * right, predicted + there),
        }
        rows = [
            {"class": name, **{key: float(value[i]) for key, value in scores.items()}, "support": int(there[i])}
            for i, name in enumerate(classes)
        ]
        occurs, total = (predicted + there) > 0, float(there.sum())
        averages: dict[str, Any] = {
            "macro avg": {key: float(value[occurs].mean()) if occurs.any() else 0.0 for key, value in scores.items()},
            "weighted avg": {key: float((value * there).sum() / total) if total else 0.0 for key, value in scores.items()},
        }
        if self._pairs is not None or self.classes > MOST:
            averages["accuracy"] = float(right.sum() / total) if total else 0.0
        return rows, averages


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[Any]:
    shares: NDArray[Any] = numpy.divide(part, whole, out=numpy.zeros_like(part), where=whole > 0)
    return shares


def residuals(errors: NDArray[Any]) -> list[dict[str, float]]:
    """Of each column of output minus target: mean, deviation, mean size, root mean square, quartiles and extremes."""
    return [
        {
            "mean": float(column.mean()),
            "std": float(column.std()),
            "mae": float(numpy.abs(column).mean()),
            "rmse": float(numpy.sqrt(numpy.square(column).mean())),
            **dict(
                zip(
                    ("min", "25%", "median", "75%", "max"),
                    numpy.quantile(column, [0, 0.25, 0.5, 0.75, 1]).tolist(),
                    strict=True,
                )
            ),
        }
        for column in errors.T
    ]


def each_loss(loss: Any) -> Callable[[Any, Tensor], Tensor | None]:
    """The loss of each sample of a batch, as `loss` would give it for the sample alone; None where that can't be told.

    For torch's losses without averaging: with class weights each is multiplied by its own.
    """
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn.") and hasattr(loss, "reduction"):
        single = copy.copy(loss)
        single.reduction = "none"  # type: ignore[assignment]

        def each(output: Any, targets: Tensor) -> Tensor | None:
            found: Tensor = single(output, targets)
            return found.reshape(len(targets), -1).cpu().double().mean(1)

        return each

    def alone(output: Any, targets: Tensor) -> Tensor | None:
        if not isinstance(output, Tensor) or len(output) != len(targets):
            return None
        losses = [loss(output[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]
        if any(not isinstance(value, Tensor) or value.ndim for value in losses):
            return None
        return torch.stack(losses).cpu().double()

    return alone


class Worst:
    """The samples with the largest losses so far; NaN is the largest of all."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.losses = torch.empty(0, dtype=torch.float64)
        self.places = torch.empty(0, dtype=torch.int64)
        self.held: list[tuple[Any, Any]] = []  # output and target of each
        self._seen = 0

    def update(self, losses: Tensor, output: Tensor, targets: Tensor) -> None:
        first, self._seen = self._seen, self._seen + len(losses)
        if not self.count:
            return
        losses = losses.cpu()
        keep = min(self.count, len(losses))
        found = _size(losses).topk(keep).indices
        merged = torch.cat([self.losses, losses[found]])
        places = torch.cat([self.places, found + first])
        held = [*self.held, *((output[i].cpu(), targets[i].cpu()) for i in found.tolist())]
        order = sorted(range(len(merged)), key=lambda i: (-float(_size(merged)[i]), int(places[i])))[: self.count]
        self.losses, self.places, self.held = merged[order], places[order], [held[i] for i in order]


def _size(losses: Tensor) -> Tensor:
    return torch.nan_to_num(losses, nan=float("inf"), posinf=float("inf"))
