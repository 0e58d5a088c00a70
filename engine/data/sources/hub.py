"""Data sets by their names in torchvision and in Hugging Face's `datasets`, where these are installed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.data.samples import as_array, from_arrays, wrong
from engine.data.sources.declare import package, source
from engine.errors import nearest

HELD = ("val", "valid", "validation", "test")  # what a data set's own validation part may be called, best first


@source(task="classification")
def torchvision(dataset: str, root: str = "data", download: bool = True, size: int = 64, grey: bool = False) -> Any:
    """An image classification data set of torchvision (MNIST, CIFAR10, …), its own second part for validation.

    A set that torchvision holds as arrays keeps its size and colours; pictures are scaled, as those of a folder are.

    Args:
        dataset: the name of the class in torchvision.datasets
        root: the folder where the data are, or are downloaded to
        download: fetch the data when they are not there
        size: height and width that pictures are scaled to, in pixels; arrays keep theirs
        grey: one channel for pictures instead of red, green and blue
    """
    module = package("torchvision.datasets", "torchvision")
    base = module.VisionDataset
    classes = {name: kind for name, kind in vars(module).items() if inspect.isclass(kind)}
    known = {name: kind for name, kind in classes.items() if issubclass(kind, base) and kind is not base}
    if dataset not in known:
        raise _unfit(dataset, f"is no data set of torchvision.datasets{nearest(dataset, known)}")
    names = inspect.signature(known[dataset]).parameters
    options = {"root": root} | ({"download": download} if "download" in names else {})

    def part(optional: bool = False, **which: Any) -> Any:
        try:
            return known[dataset](**options, **which)
        except (RuntimeError, OSError, ImportError, ValueError, TypeError) as error:  # as it raises for what it lacks
            if optional and isinstance(error, ValueError):  # there is no part of that name
                return None
            raise _unfit(dataset, f"can't be loaded by torchvision: {' '.join(str(error).split())}") from error

    if "train" in names:
        training, held = part(train=True), part(train=False)
    elif "split" in names:
        training = part(split="train")
        held = next((found for name in HELD if (found := part(optional=True, split=name)) is not None), None)
    else:
        training, held = part(), None

    arrays = _arrays(training)
    if arrays is not None:
        samples = from_arrays(*arrays, validation=None if held is None else _arrays(held))
        given = tuple(map(str, getattr(training, "classes", ())))
        return replace(samples, classes=given) if len(given) == len(samples.classes) else samples

    from engine.data.sources.pictures import Pictures, samples_of

    def pictures(data: Any) -> Pictures:
        labels = _labels(data) or [data[index][1] for index in range(len(data))]
        if not all(isinstance(label, int) for label in labels):
            raise _unfit(dataset, "is not for classification: its targets are no class numbers")
        given = list(map(str, getattr(data, "classes", None) or range(max(labels) + 1)))
        opened = functools.partial(_item, data, 0)
        return Pictures(range(len(data)), labels, given, open_one=opened, size=size, grey=grey)

    return samples_of(pictures(training), None if held is None else pictures(held))


def _unfit(dataset: str, words: str) -> Exception:
    return wrong("data.dataset", f"data.dataset = {dataset!r} {words}")


def _labels(data: Any) -> list[int] | None:
    """The class numbers of all samples, where the data set has them under one of the names that torchvision uses."""
    for name in ("targets", "labels", "_labels"):
        labels = getattr(data, name, None)
        if labels is not None and len(labels) == len(data) and getattr(labels, "ndim", 1) == 1:
            return labels.tolist() if hasattr(labels, "tolist") else list(labels)
    return None


def _arrays(data: Any) -> tuple[Any, Any] | None:
    """Pixels (N, C, H, W) and class numbers, where the data set holds them as arrays."""
    pixels, labels = getattr(data, "data", None), _labels(data)
    if labels is None or pixels is None or getattr(pixels, "ndim", 0) not in (3, 4):
        return None
    images = as_array(pixels, "inputs")
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    return images, labels


@source(task=None)
def huggingface(
    dataset: str,
    target: str = "label",
    columns: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    day_first: bool | None = None,
    subset: str = "",
    split: str = "train",
    validation_split: str = "",
    size: int = 64,
    grey: bool = False,
) -> Any:
    """A data set of the Hugging Face hub, or a local folder that `datasets.load_dataset` reads: a table, or pictures.

    A column of pictures gives images, scaled as those of a folder are; one column of lists of numbers gives these as they are;
    other columns are treated as those of a CSV file.

    Args:
        dataset: the name on the hub, or a local folder
        target: the column to predict
        columns: the columns to predict from; none given: the one with pictures, or all others
        ignore: columns to leave out
        day_first: whether 03/04/2025 is in April; left out: what the other dates of its column show
        subset: which of several configurations the data set has
        split: the part to train on
        validation_split: the part to validate on; none: a share of the other
        size: height and width that pictures are scaled to, in pixels
        grey: one channel for pictures instead of red, green and blue
    """
    module = package("datasets", "datasets")

    def load(field: str, part: str) -> Any:
        try:
            return module.load_dataset(dataset, subset or None, split=part)
        except (OSError, ValueError) as error:  # not found, no network, no such part or configuration
            field, value = (field, part) if "split" in str(error).lower() and part in str(error) else ("dataset", dataset)
            raise wrong(f"data.{field}", f"data.{field} = {value!r} can't be loaded: {' '.join(str(error).split())}") from error

    training = load("split", split)
    held = load("validation_split", validation_split) if validation_split else None
    names = list(training.column_names)
    asked = [("target", target), *(("columns", column) for column in columns), *(("ignore", column) for column in ignore)]
    for field, name in asked:
        if name not in names:
            raise wrong(
                f"data.{field}",
                f"data.{field}: {dataset} has no column {name!r}{nearest(name, names)}; it has {', '.join(names)}",
            )
    names = [name for name in names if name not in ignore]
    picture = next((name for name in columns or names if type(training.features[name]).__name__ == "Image"), None)
    if picture is not None:
        return _pictures(training, held, picture, target, size, grey)
    only = columns[0] if len(columns) == 1 else next((name for name in names if len(names) == 2 and name != target), None)
    if only is not None and len(training) and isinstance(training[0][only], list):
        held_arrays = None if held is None else (held[only][:], held[target][:])
        return from_arrays(training[only][:], training[target][:], held_arrays)
    from engine.data.sources.table import from_tables

    held_table = None if held is None else _table(held)
    return from_tables(_table(training), held_table, target, columns, "auto", dataset, ignore, day_first)


def _pictures(training: Any, held: Any, column: str, target: str, size: int, grey: bool) -> Any:
    from engine.data.sources.pictures import Pictures, samples_of

    names = getattr(training.features[target], "names", None)
    numbered = names is not None
    names = names or sorted({str(label) for label in training[target][:]})

    def part(data: Any) -> Pictures:
        labels = data[target][:]
        numbers = labels if numbered else [names.index(str(label)) for label in labels]
        return Pictures(range(len(data)), numbers, names, open_one=functools.partial(_item, data, column), size=size, grey=grey)

    return samples_of(part(training), None if held is None else part(held))


def _item(data: Sequence[Any], key: Any, index: int) -> Any:
    return data[index][key]


def _table(data: Any) -> Any:
    """A data frame, with class numbers as their names."""
    table = data.to_pandas()
    for name, feature in data.features.items():
        known = getattr(feature, "names", None)
        if known:
            table[name] = table[name].map(dict(enumerate(known)))
    return table
