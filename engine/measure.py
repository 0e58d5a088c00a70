"""Losses and metrics, accumulated on the device and read late.

The hot path only appends to lists; `read` waits for the device once for all steps since the last time.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import numpy.typing
import torch
from torch import Tensor, nn

from engine import metrics
from engine.events import Trained
from engine.loop import Count, NonFiniteLoss, Taken

Numbers = numpy.typing.NDArray[numpy.float64]


def counter(loss: Any, targets: Tensor | None = None) -> Callable[[Tensor], Count]:
    """What `loss` divides by when it takes the mean over `targets`.

    The number of targets; for a class-weighted loss the sum of the targets' weights, and without those that `ignore_index`
    leaves out (torch.nn.CrossEntropyLoss, NLLLoss). When all `targets` are at hand and none is to be ignored, nothing is
    counted on the device.
    """
    ignored: Any = getattr(loss, "ignore_index", None)
    weight = getattr(loss, "weight", None)
    if not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return torch.numel
    if weight is None and (targets is not None and (targets.is_floating_point() or ignored not in targets)):
        return torch.numel

    def count(targets: Tensor) -> Count:
        if targets.is_floating_point():  # class probabilities: the mean is over samples
            return len(targets)
        if targets.device.type != "cpu":  # nothing of a size that the host would have to ask for
            kept = targets.ne(ignored)
            return kept.sum() if weight is None else (weight[torch.where(kept, targets, 0)] * kept).sum()
        counted = targets[targets != ignored]
        return counted.numel() if weight is None else weight[counted].sum()

    return count


def mean(total: float, count: float) -> float:
    """NaN of nothing."""
    return total / count if count else math.nan


@dataclass(frozen=True, slots=True)
class Read:
    """What `LossMeter.read` took in."""

    loss: float  # mean of the steps' losses
    steps: int
    samples: int


class LossMeter:
    """The training losses of an epoch: points for the chart, and the epoch's mean over samples.

    A point covers `every` steps of one epoch. Where nobody knows the run's length that is doubled, between two epochs, whenever
    there are `most` points. `state_dict` holds what a checkpoint in mid-epoch needs to go on exactly.
    """

    def __init__(self, every: int = 1, most: int | None = None) -> None:
        self.every, self._most = every, most
        self.lr = math.nan  # what the last step used
        self._pending: list[Taken] = []
        self._points: list[list[float]] = []  # mean, low, high, lr and, where it is measured, norm
        self._first = 1  # the step at which the next event's first point begins
        self.start_epoch(0)

    def start_epoch(self, step: int) -> None:
        """`step` steps have been taken before this epoch."""
        if self._most is not None and step >= self._most * self.every:
            self.every *= 2
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
        losses = torch.cat([taken.loss.reshape(-1) for taken in pending]).to("cpu", torch.float64).numpy()
        limit = math.inf if sound is None else sound
        found = numpy.flatnonzero(~numpy.isfinite(losses) | (self._step + 1 + numpy.arange(len(losses)) > limit))
        taken_in = int(found[0]) + 1 if len(found) else len(losses)
        counts = _for_each(pending, [taken.count for taken in pending])[:taken_in]
        rates = _for_each(pending, [taken.lr for taken in pending])[:taken_in]
        measured = [taken.norm.reshape(-1) for taken in pending if taken.norm is not None]
        norms = torch.cat(measured).to("cpu", torch.float64).numpy()[:taken_in] if measured else None
        take_in([self], losses[None, :taken_in], counts[None], rates[None], None if norms is None else norms[None])
        if len(found):
            raise NonFiniteLoss(float(losses[found[0]]), self._step)
        return Read(float(_sums(losses[None], [0.0])[0]) / len(losses), len(losses), sum(taken.samples for taken in pending))

    def end_epoch(self) -> None:
        """Close the last point, however few steps it covers."""
        if self._bucket:
            norms = numpy.array([self._norms]) if self._norms else None
            rates = numpy.full((1, len(self._bucket)), self.lr)
            self._points += _points(numpy.array([self._bucket]), rates, norms, len(self._bucket))[0]
            self._bucket, self._norms = [], []

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


def take_in(meters: Sequence[LossMeter], losses: Numbers, counts: Numbers, rates: Numbers, norms: Numbers | None) -> None:
    """Let meters that stand at the same step take in as many steps each: rows of losses, counts, learning rates and norms."""
    first = meters[0]
    with numpy.errstate(all="ignore"):
        totals = _sums(losses * counts, [meter.total for meter in meters])
        counted = _sums(counts, [meter.count for meter in meters])
    for i, meter in enumerate(meters):
        meter.total, meter.count, meter.lr = float(totals[i]), float(counted[i]), float(rates[i, -1])
        meter._step += losses.shape[1]
    held, gap = len(first._bucket), len(first._bucket) - len(first._norms)
    losses = numpy.concatenate([[meter._bucket for meter in meters], losses], 1)
    rates = numpy.concatenate([numpy.full((len(meters), held), math.nan), rates], 1)
    if norms is not None:
        missing = numpy.full((len(meters), gap), -math.inf)
        norms = numpy.concatenate([missing, [meter._norms for meter in meters], norms], 1)
    end = losses.shape[1] - losses.shape[1] % first.every
    if end:
        points = _points(losses[:, :end], rates[:, :end], None if norms is None else norms[:, :end], first.every)
        for meter, made in zip(meters, points, strict=True):
            meter._points += made
    buckets = losses[:, end:].tolist()
    others = [[]] * len(meters) if norms is None else norms[:, end:].tolist()
    for meter, bucket, rest in zip(meters, buckets, others, strict=True):
        meter._bucket, meter._norms = bucket, rest


def _points(losses: Numbers, rates: Numbers, norms: Numbers | None, every: int) -> list[list[list[float]]]:
    """Of each row the points of `every` steps each."""
    shape = (len(losses), -1, every)
    losses = losses.reshape(shape)
    with numpy.errstate(all="ignore"):
        whole = losses[..., 0] if every == 1 else numpy.add.accumulate(losses, axis=2)[..., -1]  # as a loop would add them
    low, high = (numpy.where(numpy.isnan(whole), math.nan, edge) for edge in (losses.min(2), losses.max(2)))
    columns = [whole / every, low, high, rates.reshape(shape)[..., -1]]
    if norms is not None:
        columns.append(norms.reshape(shape).max(2))
    points: list[list[list[float]]] = numpy.stack(columns, 2).tolist()
    return points


def _for_each(pending: Sequence[Taken], values: Sequence[Any]) -> Numbers:
    """The values of all steps, where some stand for several."""
    if all(taken.steps == 1 for taken in pending):
        return numpy.array([float(value) for value in values])
    held = (value.cpu() if isinstance(value, Tensor) else value for value in values)
    return numpy.concatenate([numpy.broadcast_to(value, taken.steps) for taken, value in zip(pending, held, strict=True)])


def _sums(rows: Numbers, starts: Sequence[float]) -> Numbers:
    """Of each row, one after another, as a loop would add them."""
    summed: Numbers = numpy.add.accumulate(numpy.concatenate([numpy.array(starts)[:, None], rows], 1), axis=1)[:, -1]
    return summed


class ValidationMeter:
    """Mean loss and metrics of one validation pass. Without named metrics, the usual ones for the first batch's tensors.

    A metric that raises is NaN from then on, in this pass and, by `failed`, in later ones; `problems` says why.
    `gather` puts together what several processes have seen.
    """

    def __init__(
        self,
        count: Callable[[Tensor], Count],
        chosen: dict[str, metrics.Metric] | None,
        failed: set[str] | None = None,
        gather: metrics.Gather | None = None,
    ) -> None:
        self._count = count
        self._chosen = chosen
        self._failed = set() if failed is None else failed
        self._gather = gather
        self._begun = False
        self.problems: list[str] = []
        self._losses: list[Tensor] = []
        self._counts: list[Count] = []
        self.metrics: dict[str, metrics.Metric] = {}

    def update(self, output: Any, targets: Tensor, loss: Tensor, counts: bool = True) -> None:
        """One batch; it only shows of which kind they are where it does not count."""
        if not self._begun:
            self._begun = True
            self.metrics = self._chosen if self._chosen is not None else metrics.usual(output, targets)
            for name, metric in self.metrics.items():
                self._try(name, metric.reset)
        if not counts:
            return
        self._losses.append(loss)
        self._counts.append(self._count(targets))
        for name, metric in self.metrics.items():
            self._try(name, metric.update, output, targets)

    def compute(self) -> dict[str, float]:
        """ "val/loss" and "val/…" of each metric; waits for the device."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        counts = [float(count) for count in self._counts]
        total, counted = sum(loss * count for loss, count in zip(losses, counts, strict=True)), sum(counts)
        if self._gather is not None:
            total, counted = (sum(parts) for parts in zip(*self._gather((total, counted)), strict=True))
            for name, metric in self.metrics.items():
                self._across(name, metric, self._gather)
        values = {"val/loss": mean(total, counted)}
        return values | {
            f"val/{name}": self._try(name, lambda m=metric: float(m.compute())) for name, metric in self.metrics.items()
        }

    def _across(self, name: str, metric: metrics.Metric, gather: metrics.Gather) -> None:
        """What all processes have seen. torchmetrics' own do that as they compute."""
        mine = next((said for said in self.problems if said.startswith(f"the metric {name} ")), "")
        told = gather(mine if name in self._failed else None)
        failed = [(rank, said) for rank, said in enumerate(told) if said is not None]
        if failed:  # in one of them: then nowhere, or the others would wait for it
            if name not in self._failed:
                self.problems.append(f"{failed[0][1]} (on rank {failed[0][0]})")
            self._failed.add(name)
        elif hasattr(metric, "across"):
            self._try(name, metric.across, gather)
        elif not hasattr(metric, "dist_sync_fn"):
            self._failed.add(name)
            self.problems.append(
                f"the metric {name} is switched off: without a method across(gather) it sees one process alone"
            )

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
