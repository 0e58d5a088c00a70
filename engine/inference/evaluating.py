"""Evaluating: a trained model's metrics, confusion matrix and worst samples."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor, nn

from engine import metrics
from engine.assemble import build_loss
from engine.data.labelled import Labelled, held_back, labelled
from engine.data.preprocessing import Preprocessing
from engine.errors import EpochalError, refuse_below
from engine.execution.generators import keep_random_state
from engine.inference.evaluation import FILE, Evaluation
from engine.inference.scores import Tally, Worst, each_loss, residuals
from engine.inference.trained import TrainedModel, load_trained
from engine.measure import ValidationMeter, counter
from engine.run import files, strict_json

if TYPE_CHECKING:
    from engine.run import Run

_SHORT = 8  # numbers of one target or output that are written out
BATCH = 256

OnBatch = Callable[[int, int | None], None]  # samples done, and in all where that is known


def evaluate(
    run: str | Path | Run | TrainedModel,
    step: str | int | None = None,
    *,
    data: str | None = None,
    worst: int = 20,
    device: str | torch.device = "auto",
    batch_size: int = BATCH,
    runs: str | Path | None = None,
    progress: OnBatch | None = None,
    keep: bool = True,
) -> Evaluation:
    """How good a run's model is: all metrics of its recipe and its task, the confusion matrix, the worst samples.

    run and step: as for `load_model`. data: a file with targets or the name of a data set; left out, the validation part of the
    recipe. keep: write it into the run, where the last one is replaced.

    RecipeError, RunError or CheckpointError in one sentence.
    """
    began = time.perf_counter()
    refuse_below(1, batch_size=batch_size)
    refuse_below(0, worst=worst)
    trained = run if isinstance(run, TrainedModel) else load_trained(run, step, device=device, runs=runs)
    with keep_random_state():
        found = _evaluated(trained, data, worst, batch_size, progress)
    found = dataclasses.replace(found, seconds=time.perf_counter() - began, made=time.time())
    if keep and trained.run is not None:
        try:
            files.write_atomically(trained.run.path / FILE, strict_json.encode(found.as_dict()))
        except OSError as error:
            note = f"{trained.run.path / FILE} can't be written: {error.strerror}"
            found = dataclasses.replace(found, notes=(*found.notes, note))
    return found


def _evaluated(trained: TrainedModel, given: str | None, worst: int, batch_size: int, progress: OnBatch | None) -> Evaluation:
    recipe, known = trained.recipe, trained.preprocessing
    balanced = recipe.loss.arguments.get("weight") == "balanced"
    prepared = trained.training_data() if given is None or balanced else None
    if given is None:
        assert prepared is not None
        source = held_back(recipe, prepared, trained.device)
    else:
        source = labelled(given, recipe, known, trained.device)
    loss = build_loss(recipe, prepared or known)
    if isinstance(loss, nn.Module):
        loss.to(trained.device, trained.dtype)
    judge = _Judge(trained, loss, worst)
    done = 0
    for inputs, expected in source.batches(batch_size):
        targets = trained.placed(expected)
        output = trained(inputs)
        with torch.no_grad(), trained.context()():
            value = loss(output, targets)
        judge.update(output, targets, value)
        done += len(targets)
        if progress is not None:
            progress(done, source.samples)
    if not done:
        raise EpochalError(f"{source.origin} has no samples: there is nothing to evaluate")
    return judge.verdict(source, done)


class _Judge:
    """Sums over the batches, and what follows from them."""

    def __init__(self, trained: TrainedModel, loss: Any, worst: int) -> None:
        self.trained, self.loss = trained, loss
        self.known: Preprocessing = trained.preprocessing
        self.each = each_loss(loss)
        self.worst: Worst | None = Worst(worst)
        self.meter: ValidationMeter | None = None
        self.tally: Tally | None = None
        self.classes: tuple[str, ...] = ()
        self.errors: list[Any] = []
        self.labels = trained.section("loss")["name"] in ("BCEWithLogitsLoss", "BCELoss") and self.known.task == "regression"

    def update(self, output: Any, targets: Tensor, loss: Tensor) -> None:
        if self.meter is None:
            recipe, known = self.trained.recipe, self.known
            named = metrics.named(recipe.training.metrics, known.task, known.output_size, self.trained.device)
            self.meter = ValidationMeter(counter(self.loss), {**metrics.usual(output, targets), **named})
        self.meter.update(output, targets, loss)
        if isinstance(output, Tensor):
            self._count(output, targets)
        if self.worst is not None:
            losses = self.each(output, targets) if isinstance(output, Tensor) else None
            if losses is None:
                self.worst = None
            else:
                self.worst.update(losses, output, targets)

    def _count(self, output: Tensor, targets: Tensor) -> None:
        if not targets.is_floating_point() and output.ndim == targets.ndim + 1:
            count = output.shape[1]
            self.classes = self.trained.class_names(count)
            self.tally = self.tally or Tally(count)
            kept = (targets >= 0) & (targets < count) & (targets != getattr(self.loss, "ignore_index", -1))
            self.tally.update(targets[kept], output.argmax(1)[kept])
        elif self.labels and output.shape == targets.shape and targets.ndim == 2:
            self._count_labels(output, targets)
        elif self.known.task == "regression" and output.shape == targets.shape and targets.ndim == 2:
            ours, theirs = (self.known.in_units(_numbers(value)) for value in (output, targets))
            self.errors.append(ours - theirs)

    def _count_labels(self, output: Tensor, targets: Tensor) -> None:
        """Labels that are there or not; a single one is two classes."""
        limit = 0.0 if self.trained.section("loss")["name"] == "BCEWithLogitsLoss" else 0.5
        predicted, there = output > limit, targets > 0.5
        if output.shape[1] == 1:
            self.classes = ("0", "1")
            self.tally = self.tally or Tally(2)
            self.tally.update(there.long(), predicted.long())
        else:
            self.classes = tuple(str(i + 1) for i in range(output.shape[1]))
            self.tally = self.tally or Tally(output.shape[1])
            self.tally.update_labels(there, predicted)

    def verdict(self, source: Labelled, done: int) -> Evaluation:
        assert self.meter is not None
        values = {name.removeprefix("val/"): value for name, value in self.meter.compute().items()}
        notes = [*source.notes, *self.meter.problems]
        if self.worst is None:
            notes.append("the loss of a single sample can't be told of this model or loss: no worst cases")
        report, averages = self.tally.report(self.classes) if self.tally is not None else ([], {})
        return Evaluation(
            run=self.trained.name,
            step=self.trained.step,
            data=source.origin,
            samples=done,
            task=self.known.task,
            metrics=values,
            classes=self.classes,
            confusion=None if self.tally is None else self.tally.matrix,
            report=tuple(report),
            averages=averages,
            residuals=tuple(residuals(numpy.concatenate(self.errors))) if self.errors else (),
            worst=tuple(self._worst(source)),
            notes=tuple(notes),
        )

    def _worst(self, source: Labelled) -> list[dict[str, Any]]:
        if self.worst is None:
            return []
        rows = []
        for loss, place, (output, target) in zip(
            self.worst.losses.tolist(), self.worst.places.tolist(), self.worst.held, strict=True
        ):
            index = place if source.rows is None else int(source.rows[place])
            rows.append(
                {"index": index, "target": self._said(target, target), "output": self._said(output, target), "loss": loss}
            )
        return rows

    def _said(self, value: Tensor, target: Tensor) -> Any:
        """A target, or an output, as a person reads it; None for what is too long."""
        if not target.is_floating_point():
            numbers = value if value.shape == target.shape else value.argmax(0)
            names = [self.classes[i] if 0 <= i < len(self.classes) else str(i) for i in numbers.flatten().tolist()]
            return "".join(names) if self.known.task == "text" else names[0] if len(names) == 1 else names[:_SHORT]
        if value.numel() > _SHORT or value.ndim > 1:
            return None
        numbers = self.known.in_units(_numbers(value)[None])[0].tolist()
        return numbers[0] if len(numbers) == 1 else numbers


def _numbers(values: Tensor) -> Any:
    return values.detach().cpu().double().numpy()
