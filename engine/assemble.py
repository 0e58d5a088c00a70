"""Recipe -> Parts: load the data, build the model for its shape, and try one real batch before the first step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode

from engine import catalog, execution, metrics
from engine.data.batches import Batch, Batches, make_batches
from engine.data.nested import mapped
from engine.data.prepare import Prepared, prepare
from engine.data.preprocessing import Preprocessing
from engine.data.share import Share
from engine.errors import Problem, RecipeError
from engine.execution.light import spare_the_compiler
from engine.measure import counter
from engine.parts import Parts
from engine.parts.freezing import Freezing
from engine.parts.one_batch import try_one_batch
from engine.parts.optimizers import build_optimizer
from engine.parts.schedules import build_schedule
from engine.parts.weights import load_weights
from engine.recipe import Component, Recipe, rate_taken

SMALL = 20e6  # floating-point operations of a batch's forward pass that one CPU thread does in about a millisecond


def assemble(recipe: Recipe) -> Parts:
    """Build everything that the recipe names, on its device.

    The seed is set before the model is built, as the tutorial does; what the model draws later (dropout) goes on from there.
    Raises RecipeError for what only now turns out not to fit. An error in the user's own code is raised as it is.
    """
    return assemble_with_data(recipe)[0]


def load_data(recipe: Recipe) -> tuple[Prepared, bool]:
    """The data of the recipe; and whether they are others with another seed, because random numbers were drawn for them."""
    torch.manual_seed(recipe.seed)
    before = torch.get_rng_state()
    loaded = _build("data", recipe.data, **dataclasses.asdict(recipe.loading))
    data = prepare(loaded, recipe.loading, recipe.data.name)
    return data, not torch.equal(torch.get_rng_state(), before)


def assemble_with_data(recipe: Recipe, data: Prepared | None = None) -> tuple[Parts, Prepared]:
    """The parts, and what is known of their data, which are loaded unless they are given."""
    recipe.check()
    plan, loading = recipe.training, recipe.loading
    device = execution.find_device(plan.device)
    dtype = execution.weights_type(plan.precision)
    data = data or load_data(recipe)[0]

    def batches(part: Any, **order: Any) -> Batches:
        made = make_batches(part, batch_size=loading.batch_size, device=device, workers=loading.workers, **order)
        return made if dtype == torch.float32 else Cast(made, dtype)

    train = batches(
        data.train, seed=recipe.seed, shuffle=loading.shuffle, drop_last=loading.drop_last, augment=tuple(loading.augment)
    )
    validation = None if data.validation is None else batches(data.validation)

    torch.manual_seed(recipe.seed)
    if unfit := [*catalog.unfit(catalog.find("model", recipe.model.name), data.task)]:  # known for certain only now
        raise RecipeError(unfit)
    model = build_model(recipe.model, data)
    started = () if plan.weights is None else (load_weights(model, plan.weights, plan.weights_except),)
    freezing = Freezing.of(model, plan)
    model.to(device, dtype)
    loss = build_loss(recipe, data)
    if isinstance(loss, nn.Module):
        loss.to(device, dtype)
    with freezing.lifted():
        optimizer = _explained("optimizer", recipe.optimizer, lambda entry, given: build_optimizer(entry, given, model))
    chosen = metrics.named(plan.metrics, data.task, data.output_size, device) if plan.metrics else None
    _, mode = metrics.monitored(plan.monitor, validation is not None, chosen)
    planned = plan.length(train.length)
    schedule = None
    if recipe.scheduler is not None:
        schedule = build_schedule(
            recipe.scheduler,
            optimizer,
            epochs=planned.epochs,
            steps=planned.steps,
            mode=mode,
            steps_per_epoch=planned.steps_per_epoch,
        )
    parts = Parts(
        model=model,
        loss=loss,
        optimizer=optimizer,
        schedule=schedule,
        train=train,
        validation=validation,
        metrics=chosen,
        count=counter(loss, data.train[1] if isinstance(data.train, tuple) else None),
        device=device,
        fingerprint=data.fingerprint,
        preprocessing=Preprocessing.of(data),
        freezing=freezing,
    )
    if parts.needs_closure and plan.precision == "fp16":
        message = f"training.precision = 'fp16' does not go with {recipe.optimizer.name}, which evaluates the loss itself"
        raise RecipeError([Problem("training.precision", message)])
    spare_the_compiler(_FlopCounterMode, "__torch_dispatch__")
    work = FlopCounterMode(display=False)
    with work:
        doubts = try_one_batch(parts, recipe, data)
    parts.warnings = (*started, *data.notes, *doubts, *_idle(recipe))
    # Threads that share a millisecond's work cost more than they save, tenfold where another process is busy.
    small = device.type == "cpu" and 0 < work.get_total_flops() < SMALL
    parts.threads = plan.threads or (1 if small else None)
    return parts, data


def on_copies(parts: Parts, recipe: Recipe) -> Parts:
    """The same with a copy of the model and an optimizer of its own: what is tried on them changes nothing of `parts`."""
    copied = copy.copy(parts)
    copied.model, copied.freezing = copy.deepcopy((parts.model, parts.freezing))
    with copied.freezing.lifted():
        copied.optimizer = build_optimizer(
            catalog.find("optimizer", recipe.optimizer.name), recipe.optimizer.arguments, copied.model
        )
    return copied


def _idle(recipe: Recipe) -> Iterator[str]:
    """A sentence where somebody chose a learning rate that the scheduler passes over."""
    entry = catalog.find("optimizer", recipe.optimizer.name)
    usual = next((item.default for item in entry.fields if item.key == "lr"), None)
    given = recipe.optimizer.arguments.get("lr", usual)
    if recipe.scheduler is not None and given != usual and (taken := rate_taken(recipe.to_dict(complete=False))):
        yield f"optimizer.lr = {given:g} makes no difference: {taken} = {recipe.scheduler.arguments['max_lr']}"


def build_model(component: Component, data: Prepared | Preprocessing) -> nn.Module:
    """The model that the component names, for the shape of these data. It draws its start from torch's generator."""
    shape = {"input_shape": data.input_shape, "output_size": data.output_size}
    if data.task == "text":
        shape["vocabulary"] = data.output_size
    model: nn.Module = _build("model", component, **shape)
    return model


def _build(kind: str, component: Component, **inferred: Any) -> Any:
    """Make what the component names from its arguments and those of the `inferred` ones that it has parameters for."""
    return _explained(kind, component, lambda entry, given: entry.build(given, **inferred))


def _explained(kind: str, component: Component, build: Any) -> Any:
    """Build a part; what a constructor complains of becomes a sentence. The user's own code keeps its traceback."""
    entry = catalog.find(kind, component.name)
    try:
        return build(entry, component.arguments)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:  # too large a size is any of these
        if ":" in component.name:
            raise
        field = f"{kind}.{_blamed(error, component.arguments)}"
        says = (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError([Problem(field, f"{kind}.name = {component.name!r} can't be made: {says}")]) from error


def _blamed(error: Exception, arguments: Mapping[str, Any]) -> str:
    """The argument that the constructor's message names, or "name"."""
    words = str(error).lower().replace("_", " ")
    return next((key for key in arguments if key.lower().replace("_", " ") in words), "name")


def build_loss(recipe: Recipe, data: Prepared | Preprocessing) -> Any:
    """The loss; "auto" is the usual one of the task, and class weights may be "balanced"."""
    component = recipe.loss
    if component.name == "auto":
        component = Component(catalog.loss_for(data.task), component.arguments)
    if component.arguments.get("weight") == "balanced":
        component = Component(component.name, {**component.arguments, "weight": _balanced(data)})
    return _build("loss", component)


def _balanced(data: Prepared | Preprocessing) -> list[float]:
    """Weights that make every class count alike: N / (C * samples of the class), as scikit-learn's "balanced"."""
    if isinstance(data, Preprocessing) or not isinstance(data.train, tuple) or data.train[1].is_floating_point():
        message = "loss.weight is 'balanced', which needs class targets that are held in memory"
        raise RecipeError([Problem("loss.weight", message)])
    counts = torch.bincount(data.train[1].flatten(), minlength=data.output_size).double()
    return (counts.sum() / (data.output_size * counts.clamp(min=1))).tolist()  # type: ignore[no-any-return]


class Cast:
    """The same batches with their floating-point tensors in another type."""

    def __init__(self, batches: Batches, dtype: torch.dtype) -> None:
        self._batches = batches
        self._dtype = dtype
        self.samples, self.batch_size, self.length = batches.samples, batches.batch_size, batches.length

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of that epoch from position `start` on."""
        for batch in self._batches.epoch(epoch, start):
            inputs, targets = (cast(part, self._dtype) for part in batch)
            yield Share(inputs, targets, batch.samples, batch.mine) if isinstance(batch, Share) else (inputs, targets)

    @property
    def dealt(self) -> tuple[int, int] | None:
        return self._batches.dealt

    @dealt.setter
    def dealt(self, dealt: tuple[int, int] | None) -> None:
        self._batches.dealt = dealt


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The value with its floating-point tensors in another type; tuples, lists and dicts are gone into."""
    return mapped(value, lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf)
