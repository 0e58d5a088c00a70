"""Data with targets for a trained model: the validation part of its recipe, a file, or a data set by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine import catalog
from engine.catalog.own import is_own
from engine.data import columns
from engine.data.batches import Batch, described, make_batches
from engine.data.columns import Column
from engine.data.inputs import existing, kind_of, of_table, read_table, windows
from engine.data.own import prepare_own
from engine.data.prepare import Prepared, with_classes
from engine.data.preprocessing import Preprocessing
from engine.data.samples import Samples, as_array, from_arrays, wrong
from engine.data.sources import SOURCES
from engine.data.sources.pictures import Pictures
from engine.errors import as_path, nearest
from engine.recipe import Loading, Recipe

SHOWN = 5  # classes that a sentence names


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Samples with their targets. `rows` are their places in what was read, where these are not simply counted."""

    origin: str  # as a person calls it
    samples: int | None
    batches: Callable[[int], Iterable[Batch]]  # of so many samples
    rows: Any = None
    notes: tuple[str, ...] = ()


def held_back(recipe: Recipe, data: Prepared, device: torch.device) -> Labelled:
    """The part that the recipe validates on."""
    if data.validation is None:
        raise wrong("data", f"{recipe.data.name} has no validation part in this recipe: --data names what to evaluate on")
    made = make_batches(data.validation, batch_size=recipe.loading.batch_size, device=device, workers=recipe.loading.workers)
    return Labelled(
        origin=f"the validation part of {recipe.data.name}",
        samples=made.samples,
        batches=lambda size: made.epoch(1),  # as the training does, so that the loss is the same to the last bit
        rows=data.held,
    )


def labelled(given: str, recipe: Recipe, preprocessing: Preprocessing, device: torch.device) -> Labelled:
    """What `given` names: a file as for `inputs_of` but with targets, or a data set of the catalog or of one's own.

    Of data that bring a validation part of their own it is that part. RecipeError in one sentence.
    """
    given = str(as_path(given, "data"))
    if given in SOURCES or is_own(given):
        return _of_source(given, given, recipe, preprocessing, device, {})
    kind = kind_of(given, preprocessing.task) if Path(given).expanduser().exists() or "." in given or "/" in given else ""
    if not kind:
        raise wrong("data", f"{given!r} is neither a file nor a data set of the catalog{nearest(given, SOURCES)}")
    if kind in ("csv", "parquet"):
        return _of_table(given, kind, recipe, preprocessing)
    if kind == "text":
        inputs, targets = windows(existing(given), preprocessing)
        return _of_tensors(given, preprocessing.inputs(inputs), torch.from_numpy(targets.copy()))
    if kind == "npy":
        raise wrong("data", f"{given} holds no targets: save both as an .npz with the arrays x and y")
    existing(given, folder=kind == "images")
    changes: dict[str, Any] = {"path": given}
    if kind == "images":
        size = preprocessing.input_shape
        changes |= {"size": size[-1], "grey": size[0] == 1} if len(size) == 3 else {}
    return _of_source(given, kind, recipe, preprocessing, device, changes)


def _of_source(
    origin: str, name: str, recipe: Recipe, known: Preprocessing, device: torch.device, changes: dict[str, Any]
) -> Labelled:
    entry = catalog.find("data", name)
    alike = {"npz", "safetensors"}
    same = name == recipe.data.name or {name, recipe.data.name} <= alike
    given = {**recipe.data.arguments, **changes} if same else changes
    fields = {item.key for item in entry.fields}
    if changes:
        given = {key: value for key, value in given.items() if key in fields and not key.startswith("validation_")}
    whole = replace(recipe.loading, validation=0.0, fold=None)
    torch.manual_seed(recipe.seed)
    try:
        loaded = entry.build(given, **asdict(whole))
    except TypeError:
        missing = [item.key for item in entry.fields if item.default is catalog.REQUIRED and item.key not in given]
        if not missing or is_own(name):
            raise
        raise wrong("data", f"{name} needs {', '.join(missing)}: give the path of a file instead") from None
    loaded = _last_part(loaded)
    if isinstance(loaded, Pictures):
        numbers = _numbered(loaded.targets, loaded.classes, known, origin)
        return Labelled(origin=origin, samples=len(loaded), batches=lambda size: _read(loaded, numbers, known, size))
    if isinstance(loaded, Dataset | DataLoader):
        return _of_data_set(origin, loaded, recipe, known, whole, device)
    if not isinstance(loaded, Samples):
        pair = isinstance(loaded, tuple | list) and len(loaded) == 2
        if not pair and known.task != "reconstruction":
            raise wrong("data", f"{origin} returned {described(loaded)}; allowed are (inputs, targets) and what a recipe takes")
        inputs, targets = loaded if pair else (loaded, None)
        loaded = Samples(inputs=inputs, targets=None, task="reconstruction") if not pair else from_arrays(inputs, targets)
    return _of_samples(origin, loaded, known)


def _last_part(loaded: Any) -> Any:
    """The validation part where there is one, else all."""
    if isinstance(loaded, Samples):
        return (
            loaded
            if loaded.validation is None
            else replace(loaded, inputs=loaded.validation[0], targets=loaded.validation[1], validation=None)
        )
    if isinstance(loaded, Dataset | DataLoader) or not isinstance(loaded, tuple | list) or len(loaded) != 2:
        return loaded
    first, second = loaded
    if second is None:
        return first
    pairs = isinstance(first, tuple) and isinstance(second, tuple)
    return second if isinstance(second, Dataset | DataLoader) or pairs else loaded


def _of_samples(origin: str, samples: Samples, known: Preprocessing) -> Labelled:
    inputs = known.inputs(samples.inputs)
    if known.task == "reconstruction":
        return _of_tensors(origin, inputs, inputs, samples.rows, samples.notes)
    if known.task == "regression":
        if samples.task not in ("regression", "classification"):
            raise wrong("data", f"{origin} is for {samples.task}, and the run is for regression")
        values = as_array(samples.targets, "targets")
        if samples.task == "classification" and samples.classes:  # whole numbers, which were taken for classes
            try:
                values = numpy.array([float(name) for name in samples.classes])[values]
            except ValueError:
                first = samples.classes[0]
                raise wrong("data", f"the targets of {origin} are {first!r}, …, and the run predicts numbers") from None
        return _of_tensors(origin, inputs, known.targets(values), samples.rows, samples.notes)
    if samples.task != known.task:
        raise wrong("data", f"{origin} is for {samples.task}, and the run is for {known.task}")
    samples = with_classes(samples, least=1)
    targets = as_array(samples.targets, "targets")
    return _of_tensors(
        origin, inputs, torch.from_numpy(_numbered(targets, samples.classes, known, origin)), samples.rows, samples.notes
    )


def _numbered(targets: Any, classes: Sequence[str], known: Preprocessing, origin: str) -> Any:
    """The training's class numbers for numbers of `classes`, which are found by name."""
    place = {name: number for number, name in enumerate(known.classes)}
    plain = all(name.isdecimal() and int(name) < len(place) for name in classes)
    if plain and not all(name in place for name in classes):  # numbers, where the training's own data set named them
        place = {name: int(name) for name in classes}
    present = numpy.unique(targets).tolist()
    strange = [classes[number] for number in present if classes[number] not in place]
    if strange:
        shown = ", ".join(known.classes[:SHOWN]) + (", …" if len(known.classes) > SHOWN else "")
        raise wrong("data", f"{origin} has the class {strange[0]!r}, which the training had not; it had {shown}")
    numbers = numpy.array([place.get(name, -1) for name in classes], numpy.int64)
    return numbers[numpy.asarray(targets, numpy.int64)]


def _of_table(path: str, kind: str, recipe: Recipe, known: Preprocessing) -> Labelled:
    table = read_table(path, kind, known, {"name": recipe.data.name, **recipe.data.arguments})
    table = table.rename(columns=str)
    inputs = of_table(table, known, path)
    if known.task == "reconstruction":
        tensor = inputs.take(0, inputs.samples)
        return _of_tensors(path, tensor, tensor, notes=inputs.notes)
    name = known.target.name if known.target is not None else _spare(table, known, path)
    if name not in table.columns:
        raise wrong("data", f"{path} has no column {name!r}, the target{nearest(name, map(str, table.columns))}")
    values = table[name]
    there = values.notna().to_numpy()
    notes = inputs.notes
    if not there.all():
        notes = (*notes, f"{(~there).sum()} of {len(table)} rows have no {name!r} and were left out")
    if not there.any():
        raise wrong("data", f"{path} has no row with a {name!r}")
    x = inputs.take(0, inputs.samples)[torch.tensor(there)]
    rows = None if there.all() else numpy.flatnonzero(there)
    values = values[there]
    column = known.target or Column(name, columns.kind_of(values))
    if known.task == "regression":
        return _of_tensors(path, x, known.targets(column.numbers(values).to_numpy()), rows, notes)
    labels = column.labels(values)
    classes = sorted(labels.unique())
    numbers = labels.map({label: number for number, label in enumerate(classes)}).to_numpy(numpy.int64)
    return _of_tensors(path, x, torch.from_numpy(_numbered(numbers, classes, known, path)), rows, notes)


def _spare(table: Any, known: Preprocessing, path: str) -> str:
    """The column that is none of the features: the target."""
    spare = [name for name in table.columns if name not in known.features and not str(name).startswith("Unnamed: ")]
    if len(spare) == 1:
        return str(spare[0])
    if "target" in spare:
        return "target"
    raise wrong("data", f"{path} has no column 'target' beside the {len(known.features)} features of the run")


def _of_data_set(
    origin: str, loaded: Any, recipe: Recipe, known: Preprocessing, loading: Loading, device: torch.device
) -> Labelled:
    if not known.as_is:
        raise wrong("data", f"{origin} is a torch data set, and the run's inputs were preprocessed: give arrays or a file")
    data = prepare_own(loaded, None, loading)
    if data.task != known.task or data.input_shape != known.input_shape:
        theirs, ours = f"{data.task} of {data.input_shape}", f"{known.task} of {known.input_shape}"
        raise wrong("data", f"{origin} is for {theirs}, and the run for {ours}")
    made = make_batches(data.train, batch_size=recipe.loading.batch_size, device=device, workers=loading.workers)
    return Labelled(origin=origin, samples=made.samples, batches=lambda size: made.epoch(1))


def _of_tensors(origin: str, x: Tensor, y: Tensor, rows: Any = None, notes: tuple[str, ...] = ()) -> Labelled:
    return Labelled(
        origin=origin,
        samples=len(x),
        batches=lambda size: zip(x.split(size), y.split(size), strict=True),
        rows=rows,
        notes=notes,
    )


def _read(pictures: Pictures, numbers: Any, known: Preprocessing, size: int) -> Iterator[Batch]:
    for first in range(0, len(pictures), size):
        last = min(first + size, len(pictures))
        pixels = numpy.stack([pictures.pixels(index) for index in range(first, last)])
        yield known.inputs(pixels), torch.from_numpy(numbers[first:last])
