"""Losses and metrics, accumulated on the device and read late.

The hot path only appends to lists; `read` waits for the device once for all steps since the last time.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine import metrics
from engine.events import Trained
from engine.loop import Count, NonFiniteLoss, Taken


def counter(loss: Any, targets: Tensor | None = None) -> Callable[[Tensor], Count]:
    """What `loss` divides by when it takes the mean over `targets`.

    The number of targets; for a class-weighted loss the sum of the targets' weights, and without those that `ignore_index`
    leaves out (torch.nn.CrossEntropyLoss, NLLLoss). When all `targets` are at hand and none is to be ignored, nothing is
    counted on the device.
    """
    ignored = getattr(loss, "ignore_index", None)
    weight = getattr(loss, "weight", None)
    if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return torch.numel
    if weight is None and (targets is not None and (targets.is_floating_point() or ignored not in targets)):
        return torch.numel

    def count(targets: Tensor) -> Count:
        if targets.is_floating_point():  # class probabilities: the mean is over samples
            return len(targets)
        counted = targets[targets != ignored]
        return counted.numel() if weight is None else weight[counted].sum()

    return count


def mean(total: float, count: float) -> float:
    return total / count if count else math.nan


def _counts(taken: Taken) -> list[float]:
    """What the loss of each of its steps was divided by."""
    several = isinstance(taken.count, Tensor) and taken.count.ndim > 0
    return taken.count.tolist() if several else [float(taken.count)] * taken.steps  # type: ignore[union-attr]


@dataclass(frozen=True, slots=True)
class Read:
    """What `LossMeter.read` took in."""

    loss: float  # mean of the steps' losses
    steps: int
    samples: int


class LossMeter:
    """The training losses of an epoch: points for the chart, and the epoch's mean over samples.

    A point covers `every` steps of one epoch. `state_dict` holds what a checkpoint in mid-epoch needs to go on exactly.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.lr = math.nan  # what the last step used
        self._pending: list[Taken] = []
        self._points: list[tuple[float, ...]] = []  # mean, low, high, lr and, where it is measured, norm
        self._first = 1  # the step at which the next event's first point begins
        self.start_epoch(0)

    def start_epoch(self, step: int) -> None:
        """`step` steps have been taken before this epoch."""
        self.total = 0.0
        self.count = 0.0
        self._step = step
        self._first = step + 1
        self._bucket: list[float] = []
        self._norms: list[float] = []

    def add(self, taken: Taken) -> None:
        self._pending.append(taken)

    def read(self, sound: int | None = None) -> Read | None:
        """Wait for the device and take in the steps since the last time; None without any.

        `sound` is the last step that was taken, where the device decided that. Raises NonFiniteLoss at the step after it, and
        at the first step whose loss is not a number; that one is the last to be taken in.
        """
        if not self._pending:
            return None
        pending, self._pending = self._pending, []
        losses = torch.cat([taken.loss.reshape(-1) for taken in pending]).tolist()
        steps = [taken for taken in pending for _ in range(taken.steps)]
        counts = [count for taken in pending for count in _counts(taken)]
        measured = [taken.norm.reshape(-1) for taken in pending if taken.norm is not None]
        norms = iter(torch.cat(measured).tolist() if measured else [])
        for loss, count, taken in zip(losses, counts, steps, strict=True):
            self.total += loss * count
            self.count += count
            self._step += 1
            self._bucket.append(loss)
            if taken.norm is not None:
                self._norms.append(next(norms))
            if len(self._bucket) == self.every:
                self._close_point(taken.lr)
            self.lr = taken.lr
            if not math.isfinite(loss) or (sound is not None and self._step > sound):
                raise NonFiniteLoss(loss, self._step)
        return Read(sum(losses) / len(losses), len(losses), sum(taken.samples for taken in pending))

    def end_epoch(self) -> None:
        """Close the last point, however few steps it covers."""
        if self._bucket:
            self._close_point(self.lr)

    def take_points(self, epoch: int) -> Trained | None:
        """The points since the last call as an event, None when there are none."""
        if not self._points:
            return None
        points, self._points = self._points, []
        loss, low, high, lr, *norm = zip(*points, strict=True)
        many = self.every > 1
        first, self._first = self._first, self._step + 1 - len(self._bucket)
        return Trained(
            epoch=epoch,
            first=first,
            step=self._first - 1,
            every=self.every,
            loss=loss,
            low=low if many else (),
            high=high if many else (),
            lr=lr,
            norm=norm[0] if norm else (),
        )

    def _close_point(self, lr: float) -> None:
        values, self._bucket = self._bucket, []
        whole = sum(values)
        low, high = (math.nan, math.nan) if math.isnan(whole) else (min(values), max(values))
        norms, self._norms = self._norms, []
        self._points.append((whole / len(values), low, high, lr, *([max(norms)] if norms else [])))

    @property
    def mean(self) -> float:
        """The epoch's mean loss so far."""
        return mean(self.total, self.count)

    def state_dict(self) -> dict[str, Any]:
        """To be called when everything is read and all points are taken."""
        return {
            "every": self.every,
            "total": self.total,
            "count": self.count,
            "step": self._step,
            "bucket": list(self._bucket),
            "norms": list(self._norms),
            "lr": self.lr,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.every, self.total, self.count = state["every"], state["total"], state["count"]
        self._pending, self._points = [], []
        self._step, self._bucket, self.lr = state["step"], list(state["bucket"]), state["lr"]
        self._norms = list(state["norms"])
        self._first = self._step + 1 - len(self._bucket)


class ValidationMeter:
    """Mean loss and metrics of one validation pass. Without named metrics, the usual ones for the first batch's tensors.

    A metric that raises is NaN from then on, in this pass and, by `failed`, in later ones; `problems` says why.
    """

    def __init__(
        self, count: Callable[[Tensor], Count], chosen: dict[str, metrics.Metric] | None, failed: set[str] | None = None
    ) -> None:
        self._count = count
        self._chosen = chosen
        self._failed = set() if failed is None else failed
        self.problems: list[str] = []
        self._losses: list[Tensor] = []
        self._counts: list[Count] = []
        self.metrics: dict[str, metrics.Metric] = {}

    def update(self, output: Any, targets: Tensor, loss: Tensor) -> None:
        if not self._losses:
            self.metrics = self._chosen if self._chosen is not None else metrics.usual(output, targets)
            for name, metric in self.metrics.items():
                self._try(name, metric.reset)
        self._losses.append(loss)
        self._counts.append(self._count(targets))
        for name, metric in self.metrics.items():
            self._try(name, metric.update, output, targets)

    def compute(self) -> dict[str, float]:
        """ "val/loss" and "val/…" of each metric; waits for the device."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        counts = [float(count) for count in self._counts]
        total = sum(loss * count for loss, count in zip(losses, counts, strict=True))
        values = {"val/loss": mean(total, sum(counts))}
        return values | {
            f"val/{name}": self._try(name, lambda m=metric: float(m.compute())) for name, metric in self.metrics.items()
        }

    def _try(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """What the call returns; NaN for a metric that fails, or has failed before: it must not end the training."""
        if name in self._failed:
            return math.nan
        try:
            return call(*arguments)
        except Exception as error:
            self._failed.add(name)
            self.problems.append(f"the metric {name} failed and is switched off: {type(error).__name__}: {error}")
            traceback.print_exc(file=sys.stderr)
            return math.nan
