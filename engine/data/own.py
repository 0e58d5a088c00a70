"""One's own torch Datasets and DataLoaders: looked at through their first sample, never scaled."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from engine.data import augment, fingerprint
from engine.data.batches import described
from engine.data.draws import seeded
from engine.data.order import split
from engine.data.samples import Prepared, Task, as_array, wrong
from engine.errors import RecipeError
from engine.recipe import Loading

LABELS = 100_000  # how many samples are looked at to count the classes of a data set that does not name them


def prepare_own(training: Dataset | DataLoader, validation: Dataset | DataLoader | None, loading: Loading) -> Prepared:
    """The parts as they are; a map-style data set without validation is split. Raises RecipeError in one sentence.

    Floats become float32 and a single number as target becomes a row of one; nothing else about a sample changes.
    Whole-number targets are classes, counted through `.classes`, `.num_classes`, `.targets` or the first 100,000 samples; where
    inputs are whole numbers as well and as many, both are tokens of a text, counted alike (also through `.vocab_size`).
    """
    if loading.standardize_target:
        raise wrong(
            "data.standardize_target", "data.standardize_target = true is not for a torch data set: it is taken as it is"
        )
    splittable = isinstance(training, Dataset) and not isinstance(training, IterableDataset)
    if loading.fold is not None and (validation is not None or not splittable):
        raise own_part_and_fold(loading)
    task: Task
    with seeded(0):  # looking at samples must not draw from what the model draws from
        inputs, target = _first(training)
        identity = _fingerprint(training, (inputs, target))
        if validation is not None:
            _first(validation)  # as well formed as the training part
        if loading.reconstruct:
            task, names, output_size = _reconstruction(training, inputs)
        elif target.is_floating_point():
            task, names, output_size = "regression", (), target.numel()
        else:
            task = "text" if _is_text(inputs, target) else "classification"
            names, output_size = _classes(training)
    input_shape = tuple(inputs.shape) if isinstance(inputs, Tensor) else ()
    augment.check(loading.augment, input_shape, isinstance(inputs, Tensor) and inputs.is_floating_point())
    if loading.augment and not splittable:
        raise wrong(
            "data.augment",
            f"data.augment = {loading.augment} needs to know which samples a batch holds, and of a {type(training).__name__} "
            "nobody does: change the samples where they are loaded",
        )
    held = None
    if validation is None and splittable:
        first, second = split(_length(training), loading)
        held = second.numpy()
        validation = Subset(training, second.tolist()) if len(second) else None  # type: ignore[arg-type]
        training = Subset(training, first.tolist())  # type: ignore[arg-type]
    return Prepared(
        train=_part(training, loading),
        validation=None if validation is None else _part(validation, loading),
        task=task,
        input_shape=input_shape,
        output_size=output_size,
        classes=names,
        fingerprint=identity,
        as_is=True,
        tokens=isinstance(inputs, Tensor) and not inputs.is_floating_point(),
        held=held,
    )


def own_part_and_fold(loading: Loading) -> RecipeError:
    """The error for a fold of data that are not split."""
    return wrong(
        "data.fold",
        f"data.fold = {loading.fold} is for data that are split here; these bring their own validation part, or are a stream",
    )


def _reconstruction(training: Any, inputs: Any) -> tuple[Task, tuple[str, ...], int]:
    if isinstance(training, (DataLoader, IterableDataset)) or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        raise wrong(
            "data.reconstruct",
            "data.reconstruct = true needs a data set whose inputs are one tensor of floats a sample, and this is "
            f"a {type(training).__name__} of {described(inputs) if not isinstance(inputs, Tensor) else inputs.dtype}",
        )
    return "reconstruction", (), inputs.numel()


def _fingerprint(data: Any, first: Any) -> str:
    """Of a data set by its length, first and last sample; of a loader, whose batches are drawn, by its length alone."""
    tensors = _tensors(data)
    if tensors:
        return fingerprint.of_arrays(*(as_array(tensor, "inputs") for tensor in tensors))
    if isinstance(data, (DataLoader, IterableDataset)):
        behind = data.dataset if isinstance(data, DataLoader) else data
        return fingerprint.of_samples(None if isinstance(behind, IterableDataset) else _length(behind))
    return fingerprint.of_samples(_length(data), first, typed(data[_length(data) - 1]))


class Typed(Dataset):
    """A data set of (inputs, target) whose floats are float32 and whose target is a tensor; the inputs to `reconstruct`."""

    def __init__(self, dataset: Dataset, reconstruct: bool = False) -> None:
        self.dataset = dataset
        self.reconstruct = reconstruct

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        inputs, target = typed(self.dataset[index])
        return inputs, inputs if self.reconstruct else target

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
        if loading.reconstruct:
            return inputs, inputs
        if targets.is_floating_point():
            return inputs, targets.float().reshape(len(targets), *(targets.shape[1:] or (1,)))
        return inputs, targets.long().squeeze(1) if targets.shape[1:] == (1,) else targets.long()
    if isinstance(part, IterableDataset):
        return DataLoader(
            part, loading.batch_size, num_workers=loading.workers, collate_fn=_collate, generator=torch.Generator()
        )
    return Typed(part, loading.reconstruct)


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
    count = getattr(data, "num_classes", getattr(data, "vocab_size", None))
    if count is None:
        labels = _labels(data)
        if int(labels.min()) < 0:
            raise wrong("data.name", f"the data set holds the class {int(labels.min())}; classes are counted from 0")
        count = int(labels.max()) + 1
    return tuple(str(number) for number in range(count)), int(count)


def _labels(data: Any) -> Tensor:
    """The class numbers of a map-style data set, as far as they are looked at."""
    if type(data) is TensorDataset:
        inputs, targets = data.tensors
        return torch.stack([inputs, targets]) if _is_text(inputs[0], targets[0]) else targets
    known = numpy.asarray(getattr(data, "targets", ()))
    if known.size and known.dtype.kind in "iu":
        return torch.as_tensor(known)
    if isinstance(data, IterableDataset):
        raise wrong(
            "data.name",
            f"how many classes the stream {type(data).__name__} holds can't be known: give it `classes` or `num_classes`",
        )
    looked_at = (typed(data[index]) for index in range(min(_length(data), LABELS)))
    return torch.stack([(torch.stack(sample) if _is_text(*sample) else sample[1]).max() for sample in looked_at])


def _is_text(inputs: Any, target: Tensor) -> bool:
    """Whether a sample is a row of tokens and, as its target, the tokens after each."""
    tokens = isinstance(inputs, Tensor) and not inputs.is_floating_point() and not target.is_floating_point()
    return tokens and inputs.ndim == 1 and len(inputs) > 1 and inputs.shape == target.shape
