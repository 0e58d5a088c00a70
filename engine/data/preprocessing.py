"""Preprocessing: what became of the data before the model saw them, measured on the training part, kept with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray

from engine.data.columns import Column
from engine.data.samples import Prepared, Task, as_array, wrong
from engine.run import files, strict_json

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
FILE = "preprocessing.json"
_FORMAT = 1
_VALUES = 1 << 18  # that are filled and scaled at a time
_COLUMNS = 8  # that are measured at a time, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """What a model must be told of its data, and what is done to new ones; see `Prepared` for the fields."""

    task: Task
    input_shape: tuple[int, ...]
    output_size: int
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    normalization: Mapping[str, list[Any]] = field(default_factory=dict)
    as_is: bool = False
    tokens: bool = False
    columns: tuple[Column, ...] = ()
    target: Column | None = None

    @classmethod
    def of(cls, data: Prepared) -> Preprocessing:
        """That of prepared data."""
        return cls(
            task=data.task,
            input_shape=data.input_shape,
            output_size=data.output_size,
            classes=data.classes,
            features=data.features,
            normalization=data.normalization,
            as_is=data.as_is,
            tokens=data.tokens,
            columns=data.columns,
            target=data.target,
        )

    # Kept with a run

    def as_dict(self) -> dict[str, Any]:
        """As values that JSON takes; numbers come back bit for bit."""
        return {
            "format": _FORMAT,
            "task": self.task,
            "input_shape": list(self.input_shape),
            "output_size": self.output_size,
            "classes": list(self.classes),
            "features": list(self.features),
            "normalization": dict(self.normalization),
            "as_is": self.as_is,
            "tokens": self.tokens,
            "columns": [column.as_dict() for column in self.columns],
            "target": None if self.target is None else self.target.as_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """What `as_dict` gave. ValueError, KeyError or TypeError for anything else."""
        if values["format"] != _FORMAT:
            raise ValueError(f"it has format {values['format']!r}, not {_FORMAT}")
        return cls(
            task=values["task"],
            input_shape=tuple(values["input_shape"]),
            output_size=values["output_size"],
            classes=tuple(values["classes"]),
            features=tuple(values["features"]),
            normalization=values["normalization"],
            as_is=values["as_is"],
            tokens=values["tokens"],
            columns=tuple(map(Column.from_dict, values["columns"])),
            target=None if values["target"] is None else Column.from_dict(values["target"]),
        )

    def keep(self, directory: Path) -> tuple[str, ...]:
        """Write it into a run's directory unless it is there. A sentence where the disk does not take it."""
        path = directory / FILE
        try:
            if not path.exists():
                files.write_atomically(path, strict_json.encode(self.as_dict(), indent=1))
        except OSError as error:
            return (f"{FILE} can't be written ({error.strerror}): to predict, the training data will have to be read again",)
        return ()

    @classmethod
    def kept(cls, directory: Path) -> Preprocessing | None:
        """What `keep` wrote; None where there is nothing. RunError where it can't be read."""
        return strict_json.kept(directory / FILE, cls.from_dict, "without it the training data are read again")

    # Applied to new data

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """One sample's shape before it is preprocessed."""
        added = len(self.normalization.get("missing", ()))
        return (self.input_shape[0] - added,) if added else self.input_shape

    def inputs(self, values: Any) -> Tensor:
        """Samples (N, *raw_shape) as the model takes them. RecipeError in one sentence for others."""
        import torch

        array = as_array(values, "inputs")
        if self.as_is:
            self._refuse_shape(array)
            if self.tokens:
                return torch.tensor(array)
            return torch.tensor(numbers(array) if array.dtype == numpy.uint8 else array, dtype=torch.float32)
        array = numbers(array)
        self._refuse_shape(array)
        if self.tokens:
            return self._tokens(array)
        array = array if array.dtype.kind == "f" else array.astype(numpy.float64)
        refuse_non_finite(array, "input", self.features[: self.raw_shape[0]], missing="median" in self.normalization)
        return finished(array, self.normalization)

    def targets(self, values: Any) -> Tensor:
        """Numbers (N, K) as the loss takes them."""
        import torch

        array = numpy.asarray(as_array(values, "targets"), numpy.float64)
        refuse_non_finite(array, "target")
        array = array[:, None] if array.ndim == 1 else array
        if "target_mean" in self.normalization:
            array = scaled(array, self.normalization["target_mean"], self.normalization["target_std"])
        return torch.tensor(array, dtype=torch.float32)

    def in_units(self, output: Array) -> Array:
        """A regression's output, or target, in the units of the data; the inputs that an output reconstructs."""
        names = ("mean", "std") if self.task == "reconstruction" else ("target_mean", "target_std")
        if names[0] not in self.normalization:
            return output
        mean, deviation = (_along(output, self.normalization[name]) for name in names)
        return output.astype(numpy.float64) * deviation + mean

    def _tokens(self, array: Array) -> Tensor:
        import torch

        if array.dtype.kind not in "iu":
            raise wrong("data", f"the inputs are {array.dtype.name}, and the run was trained on whole numbers, tokens")
        if self.task == "text" and array.size and not (array.min() >= 0 and array.max() < self.output_size):
            raise wrong("data", f"the inputs' tokens must be from 0 to {self.output_size - 1}")
        return torch.tensor(array, dtype=torch.int64)

    def _refuse_shape(self, array: Array) -> None:
        if self.input_shape and tuple(array.shape[1:]) != self.raw_shape:
            raise wrong("data", f"an input has shape {array.shape[1:]}, and those of the training had {self.raw_shape}")


def numbers(values: Array) -> Array:
    """One sample a row; bytes as pixels of 0 to 1, booleans as numbers, tokens as they are."""
    values = values[:, None] if values.ndim == 1 else values
    if values.dtype == numpy.uint8:
        return values / numpy.float32(255)
    return values.astype(numpy.float32) if values.dtype == numpy.bool_ else values


def refuse_non_finite(values: Array, what: str, names: tuple[str, ...] = (), *, missing: bool = False) -> None:
    """RecipeError for infinity, what float32 can't hold, and NaN unless it says that a value is `missing`."""
    if values.dtype.kind != "f":
        return
    limit = numpy.finfo(numpy.float32).max
    low, high = (numpy.fmin, numpy.fmax) if missing else (numpy.minimum, numpy.maximum)  # the former leave NaN out
    if values.size and -limit <= low.reduce(values, None) and high.reduce(values, None) <= limit:
        return  # the usual case, without arrays of their size
    bad = ~(numpy.abs(values) <= limit)
    if missing:
        bad &= ~numpy.isnan(values)
    if bad.any():
        place = numpy.argwhere(bad)[0].tolist()
        column = f" in {names[place[1]]!r}" if values.ndim == 2 and len(names) == values.shape[1] else ""
        raise wrong(
            "data.name", f"the data hold {values[tuple(place)]} as {what}{column}, sample {place[0]}: only finite numbers train"
        )


def medians(training: Array) -> tuple[list[float], list[int]]:
    """The median of each column, 0 for an empty one, and the columns in which numbers are missing."""
    missing = numpy.isnan(training)
    incomplete = numpy.asarray(missing.any(axis=0))

    def median(place: int) -> float:
        values = training[:, place]
        values = values[~missing[:, place]] if incomplete[place] else values
        return float(numpy.median(values)) if len(values) else 0.0

    return [median(place) for place in range(training.shape[1])], numpy.flatnonzero(incomplete).tolist()


def filled(values: Array, median: list[float], columns: list[int]) -> Array:
    """Missing numbers as their column's median; for each of `columns` a 0/1 column "is missing" behind all others."""
    gaps = numpy.isnan(values)
    if not columns and not gaps.any():
        return values
    return numpy.concatenate([numpy.where(gaps, numpy.array(median), values), gaps[:, columns]], axis=1)


def moments(training: Array, filling: Mapping[str, list[Any]] | None = None) -> tuple[list[float], list[float]]:
    """Mean and deviation of each feature, or of each channel of images: what `scaled` needs.

    The feature is the last axis of flat inputs and of sequences (T, F), the first of images (C, H, W). Flat inputs are
    measured as `filled` makes them, some columns at a time: in C order that is to the last bit what the whole array has.
    """
    if training.ndim != 2:
        return _moments(training)
    median, missing = ((filling or {}).get(name, []) for name in ("median", "missing"))

    def column(place: int) -> Array:
        if place >= training.shape[1]:
            return numpy.isnan(training[:, missing[place - training.shape[1]]])
        values = training[:, place]
        return numpy.where(numpy.isnan(values), numpy.float64(median[place]), values) if median else values

    places = numpy.arange(training.shape[1] + len(missing))
    groups = numpy.array_split(places, max(1, len(places) // _COLUMNS))
    found = [_moments(numpy.stack([column(place) for place in group], axis=1)) for group in groups]
    return [value for mean, _ in found for value in mean], [value for _, deviation in found for value in deviation]


def _moments(training: Array) -> tuple[list[float], list[float]]:
    others = tuple(i for i in range(training.ndim) if i != _axis(training))
    mean = training.mean(others, dtype=numpy.float64)
    deviation = training.std(others, dtype=numpy.float64)
    # A constant feature becomes 0; its computed mean and deviation would be off by a rounding error, and so scale noise.
    highest = training.max(others)
    constant = highest == training.min(others)
    mean = numpy.where(constant, highest, mean)
    deviation = numpy.where(constant | (deviation == 0), 1.0, deviation)
    return mean.ravel().tolist(), deviation.ravel().tolist()


def scaled(values: Array, mean: list[float], deviation: list[float]) -> Array:
    """Shifted and scaled, feature by feature."""
    return numpy.asarray((values - _along(values, mean)) / _along(values, deviation))


def finished(values: Array, normalization: Mapping[str, list[Any]]) -> Tensor:
    """Inputs as the model takes them, `filled` and `scaled`: computed in float64, but never held in it as a whole."""
    import torch

    shape = list(values.shape)
    shape[1] += len(normalization.get("missing", ()))
    inputs = torch.empty(shape, dtype=torch.float32)
    rows = max(1, _VALUES // max(1, values[:1].size))
    for first in range(0, len(values), rows):
        piece = values[first : first + rows]
        if "median" in normalization:
            piece = filled(piece, normalization["median"], normalization["missing"])
        if "mean" in normalization:
            piece = scaled(piece, normalization["mean"], normalization["std"])
        with numpy.errstate(over="ignore"):  # a new value that is very far off becomes infinite
            inputs.numpy()[first : first + rows] = piece
    return inputs


def _axis(values: Array) -> int:
    return 1 if values.ndim > 3 else values.ndim - 1


def _along(values: Array, numbers: list[float]) -> Array:
    """The numbers along the axis of the features."""
    shape = [1] * values.ndim
    shape[_axis(values)] = len(numbers)
    return numpy.array(numbers, numpy.float64).reshape(shape)
