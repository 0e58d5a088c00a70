"""The trial of one real batch: what would only fail, or silently go wrong, after the first step is found before it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from engine import metrics
from engine.data.samples import Prepared
from engine.errors import Problem, RecipeError
from engine.parts import Parts
from engine.recipe import Recipe


def try_one_batch(parts: Parts, recipe: Recipe, data: Prepared) -> tuple[str, ...]:
    """One batch through model and loss, in evaluation mode: nothing is changed and nothing is drawn.

    Returns doubts as sentences. Raises RecipeError when the loss does not fit what the model puts out, or when the run could
    not train.
    """
    problems: list[Problem] = []
    doubts: list[str] = []

    def seen(output: Any, targets: Tensor, loss: Tensor) -> bool:
        problems.extend(_misfits(recipe, parts, output, targets, loss))
        doubts.extend(_doubts(recipe, output, targets))
        return False

    loop = parts.loop(recipe.training)
    loop.model = _explained_model(parts.model, recipe)
    loop.loss = _explained_loss(parts.loss, recipe, data)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size", category=UserWarning)  # a broadcast in the loss
        loop.validate(parts.train.epoch(1), seen)
    with parts.freezing.lifted():
        problems.extend(_lone_sample(parts))
    if problems:
        raise RecipeError(problems)
    return tuple(doubts)


def shape(value: Any) -> str:
    """ "float32 (32, 10)"."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _explained_model(model: nn.Module, recipe: Recipe) -> Callable[[Any], Any]:
    """The model, with what a built-in one raises put into one sentence. The user's own keeps its traceback."""
    if ":" in recipe.model.name:
        return model

    def call(inputs: Any) -> Any:
        try:
            return model(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            message = f"model.name = {recipe.model.name!r} does not take {shape(inputs)} ({str(error).splitlines()[0]})"
            raise RecipeError([Problem("model.name", message)]) from error

    return call


def _explained_loss(loss: Any, recipe: Recipe, data: Prepared) -> Callable[[Any, Tensor], Tensor]:
    """The loss, with what it raises put into one sentence that names the shapes."""
    if ":" in recipe.loss.name:
        return loss  # type: ignore[no-any-return]

    def call(output: Any, targets: Tensor) -> Tensor:
        outside = _outside(loss, output, data)
        if outside:
            raise RecipeError([Problem("loss.name", outside)])
        try:
            result: Tensor = loss(output, targets)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, UserWarning) as error:
            message = (
                f"loss.name = {recipe.loss.name!r} does not fit: the model puts out {shape(output)}, "
                f"the targets are {shape(targets)} ({str(error).splitlines()[0]})"
            )
            raise RecipeError([Problem("loss.name", message)]) from error
        return result

    return call


def _outside(loss: Any, output: Any, data: Prepared) -> str:
    """Class numbers that the model has no logit for. On a GPU the loss itself would end the process's use of the device."""
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or not isinstance(output, Tensor) or output.ndim < 2:
        return ""
    targets = data.train[1] if isinstance(data.train, tuple) else None
    if targets is None or targets.is_floating_point() or not len(targets):
        return ""
    counted = targets[targets != loss.ignore_index]
    low, high = (int(counted.min()), int(counted.max())) if counted.numel() else (0, 0)
    if low < 0 or high >= output.shape[1]:
        return f"the targets are class numbers from {low} to {high}, but the model puts out {output.shape[1]} logits"
    return ""


def _misfits(recipe: Recipe, parts: Parts, output: Any, targets: Tensor, loss: Tensor) -> Iterator[Problem]:
    if not isinstance(loss, Tensor) or loss.ndim:
        yield Problem("loss.name", f"loss.name = {recipe.loss.name!r} gives {shape(loss)}; it must give one number, a mean")
    if isinstance(parts.loss, nn.CrossEntropyLoss) and isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] == 1:
        words = (
            "is 0 whatever the model does, which puts out one number: name MSELoss for numbers, BCEWithLogitsLoss for yes or no"
        )
        yield Problem("loss.name", f"loss.name = {recipe.loss.name!r} {words}")
    measured = parts.metrics if parts.metrics is not None else metrics.usual(output, targets)
    known = ["train/loss", *(f"val/{name}" for name in ("loss", *measured) if parts.validation is not None)]
    monitor = recipe.training.monitor
    if monitor not in ("auto", *known):
        yield Problem("training.monitor", f"training.monitor is {monitor!r}; this recipe measures: {', '.join(known)}")


def _doubts(recipe: Recipe, output: Any, targets: Tensor) -> Iterator[str]:
    """The silent killers: what trains without an error, and badly."""
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[1] < 2:
        return
    values = output.float()
    shares = bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < 1e-3).all())
    logarithms = bool(((values.exp().sum(1) - 1).abs() < 1e-3).all())
    if recipe.loss.name == "CrossEntropyLoss" and shares:
        yield "the model ends in a softmax, and CrossEntropyLoss applies its own: take the model's away"
    if recipe.loss.name == "NLLLoss" and not logarithms:
        yield "NLLLoss wants log-probabilities, which the model does not put out: use CrossEntropyLoss instead"


def _lone_sample(parts: Parts) -> Iterator[Problem]:
    """Batch normalization can't train on a batch of one sample."""
    train = parts.train
    if train.samples is None or not train.batch_size or train.length is None:
        return
    normalized = any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in parts.model.modules())
    lone = train.samples - (train.length - 1) * train.batch_size == 1 or train.batch_size == 1
    if normalized and lone:
        yield Problem(
            "data.batch_size",
            f"data.batch_size = {train.batch_size} leaves a batch of 1 sample of {train.samples}, "
            "on which batch normalization can't train; choose another size, or data.drop_last = true",
        )


def memory(parts: Parts) -> int:
    """Bytes of weights, gradients and optimizer state after a step; what a batch's activations take comes on top."""
    held = [value for state in parts.optimizer.state.values() for value in state.values()]
    tensors = [*parts.model.state_dict().values(), *(value for value in held if isinstance(value, Tensor))]
    gradients = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    return sum(tensor.numel() * tensor.element_size() for tensor in [*tensors, *gradients])
