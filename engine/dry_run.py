"""The dry run: a few real steps on copies of model and optimizer, and what they show. Nothing is written."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine import execution
from engine.assemble import assemble_with_data, on_copies
from engine.data.samples import Prepared
from engine.events import parameters_in_words
from engine.execution.generators import keep_random_state
from engine.loop import Taken, windows
from engine.parts import Parts, one_batch
from engine.recipe import Recipe
from engine.track.attach import refuse_missing

if TYPE_CHECKING:
    from engine.tracing import Trace

STEPS = 20


@dataclass(frozen=True, slots=True)
class DryRun:
    """What the steps showed: `rows` of (what, value) to print, `warnings` as sentences, `facts` as numbers.

    facts: "parameters" that are trained, where there are others "frozen", "memory" (bytes of weights, gradients and optimizer),
    "step" (seconds), "epochs", and where their number is known "steps_per_epoch" and "steps".
    """

    rows: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    trace: Trace | None = None


def dry_run(recipe: Recipe, trace_to: Path | None = None) -> DryRun:
    """Assemble a recipe and take up to 20 steps, for up to a few seconds; and some more for a trace of them.

    Raises RecipeError as `assemble` does. The global random state is left as it was.
    """
    refuse_missing(recipe.track)
    with keep_random_state():
        parts, data = assemble_with_data(recipe)
        copied = on_copies(parts, recipe)
        with execution.arithmetic(recipe.training, parts.threads):
            steps, seconds = _steps(copied, recipe)
            facts = _facts(copied, recipe, seconds)
            rows = [*_rows(parts, data, recipe, steps), *_cost(copied, facts)]
        warnings, traced = [*parts.warnings, *_doubts(steps)], None
        if trace_to is not None:
            from engine.tracing import trace

            traced = trace(parts, recipe, trace_to)
    return DryRun(rows, warnings, facts, traced)


def _steps(parts: Parts, recipe: Recipe) -> tuple[list[Taken], list[float]]:
    """The steps, and the seconds that each took."""
    loop = parts.loop(recipe.training)
    loop.measure_norm = True
    taken: list[Taken] = []
    seconds: list[float] = []
    started = time.perf_counter()
    epochs = (windows(parts.train.epoch(epoch), recipe.training.accumulate) for epoch in (1, 2))  # one may have one step
    for step in loop.train_epoch(itertools.chain.from_iterable(epochs)):
        taken.append(step)
        step.loss.item()  # waits for the device
        now = time.perf_counter()
        seconds.append(now - started)
        started = now
        # The first one loads and allocates, and is not counted.
        if len(taken) == STEPS or (len(taken) > 1 and sum(seconds) > 5):
            break
    return taken, seconds


def _rows(parts: Parts, data: Prepared, recipe: Recipe, steps: list[Taken]) -> Iterator[tuple[str, str]]:
    inputs, targets = next(iter(parts.train.epoch(1)))
    held = "none" if parts.validation is None else f"{parts.validation.samples} samples"
    yield "data", f"{parts.train.samples} samples for training, {held} for validation, {data.task}"
    yield "batch", f"inputs {one_batch.shape(inputs)}, targets {one_batch.shape(targets)}"
    parameters = parameters_in_words(parts.parameters, parts.frozen, parts.freezing.epochs or 0)
    yield "model", f"{type(parts.model).__name__}, {parameters}, output size {data.output_size}"
    chance = f", {math.log(data.output_size):.4f} by chance" if data.task in ("classification", "text") else ""
    yield "loss", f"{type(parts.loss).__name__}, {steps[0].loss.item():.4f} on the first batch{chance}"
    if steps[0].norm is not None:
        yield "gradient norm", f"{steps[0].norm.item():.4g}"
    if parts.schedule is not None:
        unit = {"step": "a step", "epoch": "an epoch", "plateau": "an epoch, by the monitored metric"}[parts.schedule.unit]
        yield "scheduler", f"{type(parts.schedule.scheduler).__name__}, moves once {unit}"


def _facts(parts: Parts, recipe: Recipe, seconds: list[float]) -> dict[str, float]:
    planned = recipe.training.length(parts.train.length)
    step = sorted(seconds[1:] or seconds)[len(seconds) // 2 - (len(seconds) > 1)]  # the median, without the first
    facts = {"parameters": parts.parameters, "memory": one_batch.memory(parts), "step": step, "epochs": recipe.training.epochs}
    facts |= {"frozen": parts.frozen} if parts.frozen else {}
    counts = {"steps_per_epoch": planned.steps_per_epoch, "steps": planned.steps}
    return facts | {key: count for key, count in counts.items() if count is not None}


def _cost(parts: Parts, facts: dict[str, float]) -> Iterator[tuple[str, str]]:
    yield "device", f"{parts.device} ({execution.device_name(parts.device)})"
    yield "memory", f"{facts['memory'] / 2**20:.3g} MiB for weights, gradients and optimizer"
    yield "step", _time(facts["step"])
    if "steps" in facts and "steps_per_epoch" in facts:
        total = f"{facts['steps_per_epoch']:,} an epoch, {facts['steps']:,} in all"
        yield "steps", f"{total}, about {_time(facts['steps'] * facts['step'])} without validation"


def _time(seconds: float) -> str:
    """As a person says it: 1.35 ms, 12.3 s, 5 min, 1.6 h."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _doubts(steps: list[Taken]) -> Iterator[str]:
    if not all(math.isfinite(step.loss.item()) for step in steps):
        yield f"the loss is not finite after {len(steps)} steps: a smaller optimizer.lr may help"
    if steps[0].norm is not None and steps[0].norm.item() == 0:
        yield "the gradient is zero on the first batch: nothing would be learned from it"
