"""From what a source or one's own function returned to what a run trains on: split, imputed, scaled, in torch's types.

Everything measured here (medians, means, deviations) is measured on the training part alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from engine.data import augment, fingerprint, leaks
from engine.data.batches import described
from engine.data.order import split
from engine.data.own import own_part_and_fold, prepare_own
from engine.data.preprocessing import finished, medians, moments, numbers, refuse_non_finite, scaled
from engine.data.samples import Prepared, Samples, as_array, from_arrays, wrong
from engine.recipe import Loading

__all__ = ["Prepared", "Samples", "prepare"]

Array = NDArray[Any]
Parts = tuple[Array, Array | None]  # training, validation


def prepare(loaded: Any, loading: Loading, source_name: str) -> Prepared:
    """Split, impute and scale what `source_name` returned.

    `loaded` is Samples; (inputs, targets) arrays, tensors or lists; a torch Dataset or DataLoader of (inputs, target) pairs,
    which is taken as it is; or a (training, validation) pair of such, where the second may be None. With
    `loading.reconstruct` an array alone will do. Raises RecipeError, in one sentence, for data that no
    run could learn from.
    """
    if isinstance(loaded, Samples):
        return _prepare_samples(loaded, loading)
    if isinstance(loaded, (Dataset, DataLoader)):
        return prepare_own(loaded, None, loading)
    if loading.reconstruct and isinstance(loaded, (numpy.ndarray, torch.Tensor)):
        return _prepare_samples(Samples(inputs=loaded, targets=None, task="reconstruction"), loading)
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        raise wrong(
            "data.name",
            f"data.name = {source_name!r} returned {described(loaded)}; allowed are (inputs, targets), a torch Dataset or "
            "DataLoader, a (training, validation) pair of such, and Samples",
        )
    first, second = loaded
    if second is None:
        return prepare(first, loading, source_name)
    if isinstance(first, (Dataset, DataLoader)) and isinstance(second, (Dataset, DataLoader)):
        return prepare_own(first, second, loading)
    if isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second) == 2:
        return _prepare_samples(from_arrays(*first, validation=second), loading)
    return _prepare_samples(from_arrays(first, second), loading)


def _prepare_samples(samples: Samples, loading: Loading) -> Prepared:
    samples = with_classes(_with_task(samples, loading))
    drawn = samples.validation is None and (loading.validation > 0 or loading.fold is not None)
    notes = [*samples.notes, *(leaks.ordered(samples) if drawn else [])]
    x, y, held = _split(samples, loading)
    if samples.columns and x[1] is not None:
        notes += leaks.repeated(x, y)
    identity = fingerprint.of_arrays(x[0], y[0])  # of what was read: what is computed may differ by a rounding elsewhere
    tokens = x[0].dtype.kind != "f"

    normalization: dict[str, list[Any]] = {}
    features = samples.features
    if samples.impute:
        normalization["median"], normalization["missing"] = medians(x[0])
        features += tuple(f"{features[column]} is missing" for column in normalization["missing"] if features)
    if loading.standardize and not tokens:
        normalization["mean"], normalization["std"] = moments(x[0], normalization)
    if loading.standardize_target:
        if samples.task != "regression":
            what = "the inputs for targets" if samples.task == "reconstruction" else "classes"
            raise wrong(
                "data.standardize_target", f"data.standardize_target = true needs a numeric target; this one has {what}"
            )
        normalization["target_mean"], normalization["target_std"] = moments(y[0])
        y = _both(y, lambda part: scaled(part, normalization["target_mean"], normalization["target_std"]))

    def part(inputs: Array, targets: Array) -> tuple[torch.Tensor, torch.Tensor]:
        tensor = _tensor(inputs) if tokens else finished(inputs, normalization)
        return tensor, tensor if samples.task == "reconstruction" else _tensor(targets)

    train = part(x[0], y[0])
    input_shape = tuple(train[0].shape[1:])
    augment.check(loading.augment, input_shape, numbers=not tokens)
    return Prepared(
        train=train,
        validation=None if x[1] is None or y[1] is None else part(x[1], y[1]),
        task=samples.task,
        input_shape=input_shape,
        output_size=len(samples.classes) or math.prod(train[1].shape[1:]),
        classes=samples.classes,
        features=features,
        normalization=normalization,
        notes=tuple(notes),
        fingerprint=identity,
        tokens=tokens,
        columns=samples.columns,
        target=samples.target,
        held=held,
    )


def _with_task(samples: Samples, loading: Loading) -> Samples:
    """For reconstruction the inputs stand in for the targets; what becomes of them becomes of the targets in the end."""
    if not loading.reconstruct and samples.task != "reconstruction":
        return samples
    held = None if samples.validation is None else (samples.validation[0], samples.validation[0])
    samples = replace(samples, task="reconstruction", targets=samples.inputs, classes=(), validation=held)
    if not isinstance(samples.inputs, numpy.ndarray):
        samples = replace(samples, inputs=as_array(samples.inputs, "inputs"))
    if samples.inputs.dtype.kind != "f" and samples.inputs.dtype not in (numpy.uint8, numpy.bool_):
        raise wrong("data.reconstruct", "data.reconstruct = true needs numbers as inputs; these are tokens")
    return samples


def _both(parts: Parts, change: Callable[[Array], Array]) -> Parts:
    """Training and validation part, changed alike."""
    return change(parts[0]), None if parts[1] is None else change(parts[1])


def _split(samples: Samples, loading: Loading) -> tuple[Parts, Parts, Array | None]:
    """Inputs and targets, each of the training and of the validation part; the places of the latter's samples in the data."""
    inputs, targets = _checked(samples.inputs, samples.targets, samples)
    if samples.validation is None:
        training, held = (indices.numpy() for indices in split(len(inputs), loading))
        if samples.spare:  # column by column, without a second array of that size
            places = numpy.concatenate([training, held])
            for column in inputs.T:
                column[:] = column[places]
            x = inputs[: len(training)], inputs[len(training) :] if len(held) else None
        else:
            x = inputs[training], inputs[held] if len(held) else None
        places = held if samples.rows is None else samples.rows[held]
        return x, x if targets is inputs else (targets[training], targets[held] if len(held) else None), places
    if loading.fold is not None and samples.task != "text":  # a text is folded as it is cut into windows
        raise own_part_and_fold(loading)
    held_inputs, held_targets = _checked(*samples.validation, samples)
    if held_inputs.shape[1:] != inputs.shape[1:] or held_targets.shape[1:] != targets.shape[1:]:
        raise wrong(
            "data.name", f"the training samples have shape {inputs.shape[1:]}, the validation's {held_inputs.shape[1:]}"
        )
    return (inputs, held_inputs), (targets, held_targets), samples.rows


def with_classes(samples: Samples, least: int = 2) -> Samples:
    """Class targets as numbers 0..C-1 with names, also where only the values were given; of at `least` so many classes."""
    if samples.task == "text" and not samples.classes:
        parts = [samples.inputs, samples.targets, *(samples.validation or ())]
        size = max(int(as_array(part, "inputs").max(initial=0)) for part in parts) + 1
        return replace(samples, classes=tuple(map(str, range(size))))
    if samples.task != "classification":
        return samples
    if not samples.classes:
        named = from_arrays(samples.inputs, samples.targets, samples.validation)
        if not named.classes:
            raise wrong("data.name", "the targets of a classification must be whole numbers, booleans or texts")
        samples = replace(samples, targets=named.targets, classes=named.classes, validation=named.validation)
    if len(samples.classes) < least:
        raise wrong("data.name", f"all targets are of one class, {samples.classes[0]!r}: there is nothing to learn")
    return samples


def _checked(inputs: Any, targets: Any, samples: Samples) -> tuple[Array, Array]:
    """Arrays whose rows are samples: inputs of numbers or tokens, targets of class numbers or (N, K, ...) numbers.

    For reconstruction both are the same array.
    """
    x = as_array(inputs, "inputs")
    y = x if samples.task == "reconstruction" else as_array(targets, "targets")
    if len(x) != len(y):
        raise wrong("data.name", f"the data have {len(x)} inputs but {len(y)} targets")
    if not x.size:
        raise wrong("data.name", "the data have no samples" if not len(x) else "the data have no inputs")
    x = numbers(x)
    refuse_non_finite(x, "input", samples.features, missing=samples.impute)
    if samples.task == "reconstruction":
        return x, x
    if samples.task == "text":
        tokens = x.dtype.kind in "iu" and y.dtype.kind in "iu" and x.shape == y.shape and x.ndim == 2
        if not tokens or min(x.min(), y.min()) < 0 or max(x.max(), y.max()) >= len(samples.classes):
            raise wrong(
                "data.name",
                f"a text's inputs and targets must be whole numbers from 0 to {len(samples.classes) - 1}, both (N, T)",
            )
        return x, y
    if samples.task == "classification":
        if y.dtype.kind not in "iu" or y.min() < 0 or y.max() >= len(samples.classes):
            raise wrong("data.name", f"the class targets must be whole numbers from 0 to {len(samples.classes) - 1}")
        return x, y
    y = y.astype(numpy.float64)
    refuse_non_finite(y, "target")
    return x, y[:, None] if y.ndim == 1 else y  # a column: beside the model's (B, 1), a plain (B,) would broadcast to (B, B)


def _tensor(values: Array) -> torch.Tensor:
    """A tensor of its own: float32 for numbers, int64 for classes and tokens."""
    return torch.tensor(values, dtype=torch.float32 if values.dtype.kind == "f" else torch.int64)
