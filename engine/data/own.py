"""One's own torch Datasets and DataLoaders: looked at through their first sample, never scaled."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from engine.data.batches import described, seeded
from engine.data.order import split
from engine.data.samples import Prepared, wrong
from engine.recipe import Loading

LABELS = 100_000  # how many samples are looked at to count the classes of a data set that does not name them


def prepare_own(training: Dataset | DataLoader, validation: Dataset | DataLoader | None, loading: Loading) -> Prepared:
    """The parts as they are; a map-style data set without validation is split. Raises RecipeError in one sentence.

    Floats become float32 and a single number as target becomes a row of one; nothing else about a sample changes.
    Whole-number targets are classes, counted through `.classes`, `.num_classes`, `.targets` or the first 100,000 samples.
    """
    if loading.standardize_target:
        raise wrong(
            "data.standardize_target", "data.standardize_target = true is not for a torch data set: it is taken as it is"
        )
    with seeded(0):  # looking at samples must not draw from what the model draws from
        inputs, target = _first(training)
        is_class = not target.is_floating_point()
        names, output_size = _classes(training) if is_class else ((), target.numel())
        if validation is not None:
            _first(validation)  # as well formed as the training part
    if validation is None and isinstance(training, Dataset) and not isinstance(training, IterableDataset):
        first, second = split(_length(training), loading.validation, loading.split_seed)
        validation = Subset(training, second.tolist()) if len(second) else None
        training = Subset(training, first.tolist())
    return Prepared(
        train=_part(training, loading),
        validation=None if validation is None else _part(validation, loading),
        task="classification" if is_class else "regression",
        input_shape=tuple(inputs.shape) if isinstance(inputs, Tensor) else (),
        output_size=output_size,
        classes=names,
    )


class Typed(Dataset):
    """A data set of (inputs, target) whose floats are float32 and whose target is a tensor."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return typed(self.dataset[index])

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # map-style: it has a length


def typed(sample: Any) -> tuple[Any, Tensor]:
    """One (inputs, target) sample: floats as float32, a class as an int64 number (), a number as a row (1,)."""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise wrong("data.name", f"a sample of the data set must be a pair (inputs, target), not {described(sample)}")
    inputs, target = sample
    if not isinstance(target, (bool, int, float, numpy.ndarray, numpy.generic, Tensor)):
        raise wrong("data.name", f"a sample's target must be a number, an array or a tensor, not {described(target)}")
    value = torch.as_tensor(target)
    if not value.is_floating_point():
        return _numbers(inputs), value.long().squeeze(-1) if value.shape == (1,) else value.long()
    return _numbers(inputs), value.float().reshape(value.shape or (1,))


def _numbers(inputs: Any) -> Any:
    """Arrays and numbers as tensors, floats among them as float32; tuples, lists and dicts are gone into."""
    if isinstance(inputs, dict):
        return {key: _numbers(value) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(_numbers(value) for value in inputs)
    if not isinstance(inputs, (bool, int, float, numpy.ndarray, numpy.generic, Tensor)):
        raise wrong("data.name", f"a sample's inputs must be numbers, arrays or tensors, not {described(inputs)}")
    value = torch.as_tensor(inputs)
    value = value.float() if value.is_floating_point() else value
    return value.reshape(value.shape or (1,))


def _collate(samples: list[Any]) -> Any:
    return default_collate([typed(sample) for sample in samples])


def _part(part: Any, loading: Loading) -> Any:
    """What batches are made of: tensors where they are there already, a loader for a stream, else the data set."""
    if isinstance(part, DataLoader):
        return part
    tensors = _tensors(part)
    if len(tensors) == 2:
        inputs, targets = tensors
        inputs = inputs.float() if inputs.is_floating_point() else inputs
        if targets.is_floating_point():
            return inputs, targets.float().reshape(len(targets), *(targets.shape[1:] or (1,)))
        return inputs, targets.long().squeeze(1) if targets.shape[1:] == (1,) else targets.long()
    if isinstance(part, IterableDataset):
        return DataLoader(
            part, loading.batch_size, num_workers=loading.workers, collate_fn=_collate, generator=torch.Generator()
        )
    return Typed(part)


def _tensors(part: Any) -> tuple[Tensor, ...]:
    """The tensors of a TensorDataset or of a subset of one; none for other data sets, heirs of these among them."""
    if type(part) is TensorDataset:
        return part.tensors
    if type(part) is Subset:
        return tuple(tensor[list(part.indices)] for tensor in _tensors(part.dataset))
    return ()


def _first(data: Dataset | DataLoader) -> tuple[Any, Tensor]:
    """The first sample."""
    if isinstance(data, DataLoader):
        batch = next(iter(data), None)
        if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[1], Tensor):
            raise wrong("data.name", f"a batch of the DataLoader must be a pair (inputs, targets), not {described(batch)}")
        inputs, targets = batch
        return inputs[0] if isinstance(inputs, Tensor) else inputs, targets[0]
    if isinstance(data, IterableDataset):
        sample = next(iter(data), None)
        if sample is None:
            raise wrong("data.name", "the data have no samples")
        return typed(sample)
    if _length(data) == 0:
        raise wrong("data.name", "the data have no samples")
    return typed(data[0])


def _length(data: Any) -> int:
    try:
        return len(data)
    except TypeError:
        name = type(data).__name__
        raise wrong(
            "data.name", f"the data set {name} has no length: give it a __len__, or make it an IterableDataset"
        ) from None


def _classes(data: Any) -> tuple[tuple[str, ...], int]:
    """The names of the classes, and how many there are."""
    while isinstance(data, (DataLoader, Subset)):
        data = data.dataset
    names = getattr(data, "classes", None)
    if names is not None:
        return tuple(str(name) for name in names), len(names)
    count = getattr(data, "num_classes", None)
    if count is None:
        labels = _labels(data)
        if int(labels.min()) < 0:
            raise wrong("data.name", f"the data set holds the class {int(labels.min())}; classes are counted from 0")
        count = int(labels.max()) + 1
    return tuple(str(number) for number in range(count)), int(count)


def _labels(data: Any) -> Tensor:
    """The class numbers of a map-style data set, as far as they are looked at."""
    if type(data) is TensorDataset:
        return data.tensors[1]
    known = numpy.asarray(getattr(data, "targets", ()))
    if known.size and known.dtype.kind in "iu":
        return torch.as_tensor(known)
    if isinstance(data, IterableDataset):
        raise wrong(
            "data.name",
            f"how many classes the stream {type(data).__name__} holds can't be known: give it `classes` or `num_classes`",
        )
    return torch.stack([typed(data[index])[1].max() for index in range(min(_length(data), LABELS))])
