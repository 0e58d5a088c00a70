"""Recipe -> Parts: load the data, build the model for its shape, and try one real batch before the first step."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine import catalog, execution, metrics
from engine.data.batches import Batch, Batches, make_batches
from engine.data.prepare import Prepared, prepare
from engine.errors import Problem, RecipeError
from engine.loop import Loop, windows
from engine.measure import counter
from engine.parts import Parts
from engine.recipe import Component, Recipe
from engine.schedule import Schedule


def assemble(recipe: Recipe) -> Parts:
    """Build everything that the recipe names, on its device.

    The seed is set before the model is built, as the tutorial does; what the model draws later (dropout) goes on from there.
    Raises RecipeError for what only now turns out not to fit. An error in the user's own code is raised as it is.
    """
    return _assembled(recipe)[0]


def _assembled(recipe: Recipe) -> tuple[Parts, Prepared]:
    recipe.check()
    plan, loading = recipe.training, recipe.loading
    device = execution.find_device(plan.device)
    torch.manual_seed(recipe.seed)
    loaded = _build("data", recipe.data, **dataclasses.asdict(loading))
    data = prepare(loaded, loading, recipe.data.name)
    double = plan.precision == "float64"

    def batches(part: Any, *, shuffle: bool, drop_last: bool) -> Batches:
        made = make_batches(
            part,
            batch_size=loading.batch_size,
            seed=recipe.seed,
            shuffle=shuffle,
            drop_last=drop_last,
            device=device,
            workers=loading.workers,
        )
        return Double(made) if double else made

    train = batches(data.train, shuffle=loading.shuffle, drop_last=loading.drop_last)
    validation = None if data.validation is None else batches(data.validation, shuffle=False, drop_last=False)

    torch.manual_seed(recipe.seed)
    model: nn.Module = _build("model", recipe.model, input_shape=data.input_shape, output_size=data.output_size)
    model.to(device, torch.float64 if double else None)
    loss = _build("loss", recipe.loss)
    if isinstance(loss, nn.Module):
        loss.to(device, torch.float64 if double else None)
    optimizer = _build("optimizer", recipe.optimizer, [p for p in model.parameters() if p.requires_grad])
    chosen = metrics.named(plan.metrics, data.task, data.output_size, device) if plan.metrics else None
    _, mode = metrics.monitored(plan.monitor, validation is not None, chosen)
    parts = Parts(
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=_schedule(recipe, optimizer, train, mode),
        train=train,
        validation=validation,
        metrics=chosen,
        count=counter(loss, data.train[1] if isinstance(data.train, tuple) else None),
        device=device,
    )
    _try_one_batch(parts, recipe)
    return parts, data


def _build(kind: str, component: Component, *live: Any, **inferred: Any) -> Any:
    """Make what the component names from its arguments and those of the `inferred` ones that it has parameters for."""
    entry = catalog.find(kind, component.name)
    try:
        return entry.build(component.arguments, *live, **inferred)
    except (TypeError, ValueError) as error:
        if ":" in component.name:  # the user's own code: their traceback
            raise
        field = f"{kind}.{_blamed(error, component.arguments)}"
        raise RecipeError([Problem(field, f"{kind}.name = {component.name!r} can't be made: {error}")]) from error


def _blamed(error: Exception, arguments: Mapping[str, Any]) -> str:
    """The argument that the constructor's message names, or "name"."""
    words = str(error).lower().replace("_", " ")
    return next((key for key in arguments if key.lower().replace("_", " ") in words), "name")


def _schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, train: Batches, mode: str) -> Schedule | None:
    """The scheduler, with the arguments that follow from the plan; one whose length does so ends with the plan."""
    if recipe.scheduler is None:
        return None
    name, arguments = recipe.scheduler.name, dict(recipe.scheduler.arguments)
    entry = catalog.find("scheduler", name)
    unit = arguments.pop("unit", None) or entry.unit
    if entry.unit == "plateau":
        arguments.setdefault("mode", mode)
    epochs, length = recipe.training.epochs, None
    steps = None if train.length is None else math.ceil(train.length / recipe.training.accumulate) * epochs
    for argument, origin in entry.derived.items():
        if argument in arguments:
            continue
        if origin == "lr":
            arguments[argument] = optimizer.param_groups[0]["lr"]
            continue
        length = arguments[argument] = steps if unit == "step" else epochs
        if length is None:
            key = f"scheduler.{argument}"
            raise RecipeError([Problem(key, f"{key} must be given: the steps of an epoch are not known beforehand")])
    if entry.unit == "step":
        length = None  # OneCycleLR knows its end itself
    return Schedule(_build("scheduler", Component(name, arguments), optimizer), unit, length)


def _try_one_batch(parts: Parts, recipe: Recipe) -> None:
    """One real batch through model and loss, in evaluation mode: nothing is changed and nothing is drawn.

    Raises RecipeError when the loss does not fit what the model puts out, or when the run could not train.
    """
    loop = loop_of(parts, recipe)
    problems: list[Problem] = []

    def seen(output: Any, targets: Tensor, loss: Tensor) -> bool:
        problems.extend(_misfits(recipe, parts, output, targets, loss))
        return False

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size", category=UserWarning)  # a broadcast in the loss
        loop.model, loop.loss = _explained_model(parts.model, recipe), _explained(parts.loss, recipe)
        loop.validate(parts.train.epoch(1), seen)
    problems.extend(_lone_sample(parts))
    if problems:
        raise RecipeError(problems)


def loop_of(parts: Parts, recipe: Recipe) -> Loop:
    """A loop over these parts, eager, for a trial."""
    return Loop(
        model=parts.model,
        module=parts.model,
        loss=parts.loss,
        optimizer=parts.optimizer,
        count=parts.count,
        precision=execution.precision_context(recipe.training.precision, parts.device),
        clip_norm=recipe.training.clip_norm,
    )


def _explained_model(model: nn.Module, recipe: Recipe) -> Any:
    """The model, with what a built-in one raises put into one sentence. The user's own keeps its traceback."""
    if ":" in recipe.model.name:
        return model

    def call(inputs: Any) -> Any:
        try:
            return model(inputs)
        except (RuntimeError, ValueError, TypeError) as error:
            message = f"model.name = {recipe.model.name!r} does not take {_shape(inputs)} ({str(error).splitlines()[0]})"
            raise RecipeError([Problem("model.name", message)]) from error

    return call


def _explained(loss: Any, recipe: Recipe) -> Any:
    """The loss, with what it raises put into one sentence that names the shapes."""
    if ":" in recipe.loss.name:
        return loss

    def call(output: Any, targets: Tensor) -> Tensor:
        try:
            result: Tensor = loss(output, targets)
        except (RuntimeError, ValueError, TypeError, IndexError, UserWarning) as error:
            message = (
                f"loss.name = {recipe.loss.name!r} does not fit: the model puts out {_shape(output)}, "
                f"the targets are {_shape(targets)} ({str(error).splitlines()[0]})"
            )
            raise RecipeError([Problem("loss.name", message)]) from error
        return result

    return call


def _shape(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _misfits(recipe: Recipe, parts: Parts, output: Any, targets: Tensor, loss: Tensor) -> Iterator[Problem]:
    if loss.ndim:
        yield Problem("loss.name", f"loss.name = {recipe.loss.name!r} gives {_shape(loss)}; it must give one number, a mean")
    measured = parts.metrics if parts.metrics is not None else metrics.usual(output, targets)
    known = ["train/loss", *(f"val/{name}" for name in ("loss", *measured) if parts.validation is not None)]
    monitor = recipe.training.monitor
    if monitor not in ("auto", *known):
        yield Problem("training.monitor", f"training.monitor is {monitor!r}; this recipe measures: {', '.join(known)}")


def _lone_sample(parts: Parts) -> Iterator[Problem]:
    """Batch normalization can't train on a batch of one sample."""
    train = parts.train
    if train.samples is None or not train.batch_size or train.length is None:
        return
    normalized = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in parts.model.modules())
    lone = train.samples - (train.length - 1) * train.batch_size == 1 or train.batch_size == 1
    if normalized and lone:
        yield Problem(
            "data.batch_size",
            f"data.batch_size = {train.batch_size} leaves a batch of 1 sample of {train.samples}, "
            "on which batch normalization can't train; choose another size, or data.drop_last = true",
        )


class Double:
    """The same batches with their floating-point tensors in float64."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.samples, self.batch_size, self.length = batches.samples, batches.batch_size, batches.length

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for inputs, targets in self._batches.epoch(epoch, start):
            yield _double(inputs), _double(targets)


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _double(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_double(item) for item in value)
    return value


@dataclass(frozen=True, slots=True)
class Examination:
    """What a trial of a recipe showed: `rows` of (what, value) to print, `warnings` as sentences."""

    rows: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)


def examine(recipe: Recipe) -> Examination:
    """Assemble a recipe and take a few real steps on copies of its model and optimizer; nothing is written."""
    parts, data = _assembled(recipe)
    model, optimizer = copy.deepcopy((parts.model, parts.optimizer))
    trial = copy.copy(parts)
    trial.model, trial.optimizer = model, optimizer
    loop = loop_of(trial, recipe)
    norms: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: norms.append(_gradient_norm(model)))
    seconds: list[float] = []
    losses: list[float] = []
    batches = windows(parts.train.epoch(1), recipe.training.accumulate)
    with execution.Arithmetic(recipe.training.precision, recipe.training.threads):
        for window, _ in zip(batches, range(20), strict=False):
            started = time.perf_counter()
            losses.append(loop.step(window)[0].item())
            seconds.append(time.perf_counter() - started)
    first = next(iter(parts.train.epoch(1)))
    step = sorted(seconds)[len(seconds) // 2]
    steps = None if parts.train.length is None else math.ceil(parts.train.length / recipe.training.accumulate)
    expected = f" (chance: {math.log(data.output_size):.3f})" if recipe.loss.name == "CrossEntropyLoss" else ""
    held = "none" if parts.validation is None else f"{parts.validation.samples} samples"
    rows = [
        ("data", f"{parts.train.samples} samples for training, {held} for validation, {data.task}"),
        ("batch", f"inputs {_shape(first[0])}, targets {_shape(first[1])}"),
        ("model", f"{type(parts.model).__name__}, {parts.parameters:,} parameters, output size {data.output_size}"),
        ("loss", f"{losses[0]:.4f} on the first batch{expected}"),
        ("gradient norm", f"{norms[0]:.4g}"),
        ("device", f"{parts.device} ({execution.device_name(parts.device)})"),
        ("step", f"{step * 1e3:.3g} ms"),
    ]
    if steps is not None:
        total = steps * recipe.training.epochs
        rows.append(("steps", f"{steps:,} an epoch, {total:,} in all, about {total * step:.3g} s without validation"))
    if parts.schedule is not None:
        rows.append(("scheduler", f"steps once {'a step' if parts.schedule.unit == 'step' else 'an epoch'}"))
    return Examination(rows, [*data.notes, *_doubts(losses, norms)])


def _gradient_norm(model: nn.Module) -> float:
    """The 2-norm of all gradients together."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return float(nn.utils.get_total_norm(gradients)) if gradients else 0.0


def _doubts(losses: list[float], norms: list[float]) -> Iterator[str]:
    if not all(map(math.isfinite, losses)):
        yield f"the loss is not finite after {len(losses)} steps: a smaller optimizer.lr may help"
    if norms[0] == 0:
        yield "the gradient is zero on the first batch: nothing would be learned from it"
