"""From what a source or one's own function returned to what a run trains on: split, imputed, scaled, in torch's types.

Everything measured here (medians, means, deviations) is measured on the training part alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from engine.data import augment, fingerprint
from engine.data.batches import described
from engine.data.order import split
from engine.data.own import own_part_and_fold, prepare_own
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
    samples = _with_classes(_with_task(samples, loading))
    x, y = _split(samples, loading)
    identity = fingerprint.of_arrays(x[0], y[0])  # of what was read: what is computed may differ by a rounding elsewhere
    tokens = x[0].dtype.kind != "f"

    normalization: dict[str, list[Any]] = {}
    features = samples.features
    if samples.impute:
        x, features, normalization["median"], normalization["missing"] = _imputed(x, features)
    if loading.standardize and not tokens:
        x, normalization["mean"], normalization["std"] = _standardized(x)
    if loading.standardize_target:
        if samples.task != "regression":
            what = "the inputs for targets" if samples.task == "reconstruction" else "classes"
            raise wrong(
                "data.standardize_target", f"data.standardize_target = true needs a numeric target; this one has {what}"
            )
        y, normalization["target_mean"], normalization["target_std"] = _standardized(y)

    input_shape = tuple(x[0].shape[1:])
    augment.check(loading.augment, input_shape, numbers=not tokens)

    def part(inputs: Array, targets: Array) -> tuple[torch.Tensor, torch.Tensor]:
        tensor = _tensor(inputs)
        return tensor, tensor if samples.task == "reconstruction" else _tensor(targets)

    return Prepared(
        train=part(x[0], y[0]),
        validation=None if x[1] is None or y[1] is None else part(x[1], y[1]),
        task=samples.task,
        input_shape=input_shape,
        output_size=len(samples.classes) or math.prod(x[0].shape[1:] if samples.task == "reconstruction" else y[0].shape[1:]),
        classes=samples.classes,
        features=features,
        normalization=normalization,
        notes=samples.notes,
        fingerprint=identity,
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


def _split(samples: Samples, loading: Loading) -> tuple[Parts, Parts]:
    """Inputs and targets, each of the training and of the validation part."""
    inputs, targets = _checked(samples.inputs, samples.targets, samples)
    if samples.validation is None:
        training, held = (indices.numpy() for indices in split(len(inputs), loading))
        x = inputs[training], inputs[held] if len(held) else None
        return x, x if targets is inputs else (targets[training], targets[held] if len(held) else None)
    if loading.fold is not None and samples.task != "text":  # a text is folded as it is cut into windows
        raise own_part_and_fold(loading)
    held_inputs, held_targets = _checked(*samples.validation, samples)
    if held_inputs.shape[1:] != inputs.shape[1:] or held_targets.shape[1:] != targets.shape[1:]:
        raise wrong(
            "data.name", f"the training samples have shape {inputs.shape[1:]}, the validation's {held_inputs.shape[1:]}"
        )
    return (inputs, held_inputs), (targets, held_targets)


def _with_classes(samples: Samples) -> Samples:
    """Class targets as numbers 0..C-1 with names, also where only the values were given."""
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
    if len(samples.classes) < 2:
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
    if x.ndim == 1:
        x = x[:, None]
    if x.dtype == numpy.uint8:
        x = x / numpy.float32(255)
    elif x.dtype == numpy.bool_:
        x = x.astype(numpy.float32)
    missing = numpy.isnan(x) if samples.impute else False
    _refuse_non_finite(x, missing, "input", samples.features)
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
    _refuse_non_finite(y, False, "target", ())
    return x, y[:, None] if y.ndim == 1 else y  # a column: beside the model's (B, 1), a plain (B,) would broadcast to (B, B)


def _refuse_non_finite(values: Array, allowed: Array | bool, what: str, names: tuple[str, ...]) -> None:
    """RecipeError for NaN, infinity, and what float32 can't hold."""
    if values.dtype.kind != "f":
        return
    bad = ~(numpy.abs(values) <= numpy.finfo(numpy.float32).max) & ~numpy.asarray(allowed)
    if bad.any():
        place = numpy.argwhere(bad)[0].tolist()
        column = f" in {names[place[1]]!r}" if values.ndim == 2 and len(names) == values.shape[1] else ""
        raise wrong(
            "data.name", f"the data hold {values[tuple(place)]} as {what}{column}, sample {place[0]}: only finite numbers train"
        )


def _imputed(parts: Parts, features: tuple[str, ...]) -> tuple[Parts, tuple[str, ...], list[float], list[int]]:
    """Missing values as the training part's median; each column with one gets a 0/1 column "is missing" after all columns.

    Returns the parts, the features' names, the medians of all columns and the numbers of those with missing values.
    """
    missing = numpy.isnan(parts[0])
    columns = numpy.flatnonzero(missing.any(axis=0))
    medians = numpy.array(
        [numpy.median(column[~gap]) if not gap.all() else 0.0 for column, gap in zip(parts[0].T, missing.T, strict=True)]
    )

    def filled(part: Array) -> Array:
        gaps = numpy.isnan(part)
        return numpy.concatenate([numpy.where(gaps, medians, part), gaps[:, columns]], axis=1)

    return (
        (filled(parts[0]), None if parts[1] is None else filled(parts[1])),
        features + tuple(f"{features[column]} is missing" for column in columns if features),
        medians.tolist(),
        columns.tolist(),
    )


def _standardized(parts: Parts) -> tuple[Parts, list[float], list[float]]:
    """Both parts with the training part's mean 0 and deviation 1 for each feature, or for each channel of images.

    The feature is the last axis of flat inputs and of sequences (T, F), the first of images (C, H, W).
    """
    training = parts[0]
    axis = 1 if training.ndim > 3 else training.ndim - 1
    others = tuple(i for i in range(training.ndim) if i != axis)
    mean = training.mean(others, dtype=numpy.float64, keepdims=True)
    deviation = training.std(others, dtype=numpy.float64, keepdims=True)
    # A constant feature becomes 0; its computed mean and deviation would be off by a rounding error, and so scale noise.
    highest = training.max(others, keepdims=True)
    constant = highest == training.min(others, keepdims=True)
    mean = numpy.where(constant, highest, mean)
    deviation = numpy.where(constant | (deviation == 0), 1.0, deviation)

    def scaled(part: Array) -> Array:
        if part.dtype != numpy.float32:
            return numpy.asarray((part - mean) / deviation)
        result = numpy.empty_like(part)  # computed in float64, but never held in it as a whole
        for rows in range(0, len(part), 1024):
            result[rows : rows + 1024] = (part[rows : rows + 1024] - mean) / deviation
        return result

    held = None if parts[1] is None else scaled(parts[1])
    return (scaled(training), held), mean.ravel().tolist(), deviation.ravel().tolist()


def _tensor(values: Array) -> torch.Tensor:
    """A tensor of its own: float32 for numbers, int64 for classes and tokens."""
    return torch.tensor(values, dtype=torch.float32 if values.dtype.kind == "f" else torch.int64)
