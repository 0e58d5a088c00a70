"""Batches of one epoch after another, from tensors held on the device, from a data set, or from one's own loader.

Which samples a batch holds is a function of (seed, epoch, position): an epoch can be entered at any position without
loading what lies before it, and no global random generator is drawn from.
"""

from __future__ import annotations

import atexit
import signal
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, _utils

from engine.data.ahead import SideStream, ahead, to_device
from engine.data.augment import augmentation
from engine.data.draws import Seeded
from engine.data.order import epoch_seed, order
from engine.data.share import Share, cut, taken
from engine.errors import Problem, RecipeError

TOGETHER = 1 << 18  # bytes of small batches that are gathered at a time
ALIGNED = 64  # bytes: torch's allocations on the CPU begin at multiples of it

Batch = tuple[Any, Tensor]  # inputs (mostly a tensor) and targets, on the device; the first axis counts samples


class Batches(Protocol):
    """What the trainer asks of any training or validation data."""

    dealt: tuple[int, int] | None  # the rank and the number of processes that take each batch together; batches are Shares then

    @property
    def samples(self) -> int | None:
        """Samples in the data; None when not known."""

    @property
    def batch_size(self) -> int | None:
        """Samples in a full batch; None when not known."""

    @property
    def length(self) -> int | None:
        """Batches an epoch; None when not known."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of that epoch (from 1) from position `start` (from 0) on."""


class _Cut:
    """How `samples` samples are cut into batches, and of which process each of a batch's samples are."""

    dealt: tuple[int, int] | None = None  # the rank and the number of processes that take each batch together

    def __init__(self, samples: int, batch_size: int, drop_last: bool) -> None:
        if drop_last and samples < batch_size:
            raise RecipeError(
                [
                    Problem(
                        "data.batch_size",
                        f"data.batch_size = {batch_size} with data.drop_last makes 0 steps an epoch, because there are "
                        f"only {samples} samples: at most {samples} is allowed, or data.drop_last = false",
                    )
                ]
            )
        self.samples = samples
        self.batch_size = batch_size
        self._end = samples - samples % batch_size if drop_last else samples

    @property
    def length(self) -> int:
        return -(-self._end // self.batch_size)

    def __len__(self) -> int:
        return self.length

    def _firsts(self, start: int) -> range:
        """Where each batch begins, from batch `start` on."""
        return range(start * self.batch_size, self._end, self.batch_size)

    def _shares(self, indices: Tensor, start: int) -> list[tuple[Tensor, int, int]]:
        """Of each batch what is loaded here, how many samples the batch has, and how many of those loaded count."""
        whole = [indices[first : min(first + self.batch_size, self._end)] for first in self._firsts(start)]
        if self.dealt is None:
            return [(batch, len(batch), len(batch)) for batch in whole]
        parts = [taken(len(batch), self.dealt) for batch in whole]
        return [(batch[part], len(batch), mine) for batch, (part, mine) in zip(whole, parts, strict=True)]

    def _share(self, inputs: Any, targets: Tensor, samples: int, mine: int) -> Batch:
        return (inputs, targets) if self.dealt is None else Share(inputs, targets, samples, mine)


class ResidentBatches(_Cut):
    """Batches from tensors that stay on the device: one gather a batch, no collation, no copy from the host.

    `inputs` (N, ...) and `targets` (N, ...) are moved to `device` once. Each batch is a fresh, aligned allocation, just as
    a DataLoader's is, so that arithmetic on it gives the same bits. `augment` names changes to images, made on the device
    (see `engine.data.augment`).
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        augment: Sequence[str] = (),
    ) -> None:
        super().__init__(len(inputs), batch_size, drop_last)
        self.inputs = inputs.to(device)
        self.targets = targets.to(device)
        self.seed = seed
        self.shuffle = shuffle
        self.augment = tuple(augment)
        self.seconds = 0.0  # of the host, that gathering has taken so far

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of that epoch from position `start` on."""
        indices = order(self.samples, self.seed, epoch, self.shuffle).to(self.inputs.device)
        changed = augmentation(self.augment, self.seed, epoch) if self.augment else None
        if changed is None and self.dealt is None:
            size = self.batch_size * self._together()
            for first in range(start * self.batch_size, self._end, size):
                began = time.perf_counter()
                several = indices[first : min(first + size, self._end)]
                parts = [held.index_select(0, several).unsafe_split(self.batch_size) for held in (self.inputs, self.targets)]
                self.seconds += time.perf_counter() - began
                yield from zip(*parts, strict=True)
            return
        for batch, samples, mine in self._shares(indices, start):
            began = time.perf_counter()
            inputs, targets = self.inputs.index_select(0, batch), self.targets.index_select(0, batch)
            inputs = inputs if changed is None else changed(inputs, batch)
            self.seconds += time.perf_counter() - began
            yield self._share(inputs, targets, samples, mine)

    def places(self, epoch: int, start: int = 0) -> Iterator[Place]:
        """Where the batches of that epoch are, from position `start` on; not for images that are augmented."""
        indices = order(self.samples, self.seed, epoch, self.shuffle).to(self.inputs.device)
        for number in range(start, self.length):
            yield Place(self, indices, number)

    def _together(self) -> int:
        """How many batches are gathered at a time: small ones, where each begins as aligned as an allocation of its own."""
        sizes = [self.batch_size * held[:1].numel() * held.element_size() for held in (self.inputs, self.targets)]
        return max(1, TOGETHER // sum(sizes)) if all(size % ALIGNED == 0 for size in sizes) else 1


class Place(NamedTuple):
    """A batch of resident data that was not gathered: who knows where the data is can do that on the device."""

    source: ResidentBatches
    indices: Tensor  # of all samples of the epoch in their order, on the device
    number: int  # of the batch in the epoch, from 0

    def gathered(self) -> Batch:
        source, first = self.source, self.number * self.source.batch_size
        batch = self.indices[first : first + source.batch_size]
        return source.inputs.index_select(0, batch), source.targets.index_select(0, batch)


class StreamedBatches(_Cut):
    """Batches from a map-style data set of (inputs, target) samples, loaded as they are needed.

    What a sample draws at random while it is loaded (an augmentation, through torch, NumPy or `random`) is a function of
    (seed, epoch, index): the same in any batch, with any number of `workers` and after any resume. `augment` names changes to
    images that are made to whole batches on the device, the same as those of ResidentBatches. On a GPU a batch is copied
    from pinned memory beside the step before it.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        workers: int = 0,
        augment: Sequence[str] = (),
    ) -> None:
        super().__init__(len(dataset), batch_size, drop_last)  # type: ignore[arg-type]  # map-style: it has a length
        self.device = torch.device(device)
        self.seed = seed
        self.shuffle = shuffle
        self.augment = tuple(augment)
        self.workers = workers
        self._keys = _Keys()
        self._loader = DataLoader(  # one for all epochs: its workers stay
            Seeded(dataset),
            batch_sampler=self._keys,  # type: ignore[arg-type]  # what it yields goes to __getitems__ as it is
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_trainer if workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # a loader draws a seed for its workers: not from the global generator
        )
        if workers:
            atexit.register(weakref.finalize(self, _end_workers, self._loader))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of that epoch from position `start` on. One epoch at a time: the workers are shared."""
        indices = order(self.samples, self.seed, epoch, self.shuffle)
        stream = epoch_seed(self.seed, epoch)
        shares = self._shares(indices, start)
        self._keys.batches = [(stream, batch) for batch, _, _ in shares]
        changed = augmentation(self.augment, self.seed, epoch) if self.augment else None
        for (batch, samples, mine), (inputs, targets) in zip(shares, self._moved(), strict=True):
            given = inputs if changed is None else changed(inputs, batch.to(self.device))
            yield self._share(given, targets, samples, mine)

    def rest(self) -> None:
        """End the workers, if there are any; the next epoch begins with others."""
        _end_workers(self._loader)

    def _moved(self) -> Iterator[Batch]:
        """What the loader loads, on the device. On a GPU the next batch is on its way while the one before it is used."""
        loaded = map(tuple, self._loader)
        if self.device.type == "cuda":
            return ahead(loaded, self._lane)
        return (to_device(batch, self.device) for batch in loaded)

    @cached_property
    def _lane(self) -> SideStream:
        return SideStream(self.device)  # one for all epochs: torch keeps the memory of each stream apart


class _Keys:
    """The batch sampler of the epoch under way: for each batch the epoch's stream and its indices."""

    batches: Sequence[tuple[int, Tensor]] = ()

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        for stream, indices in self.batches:
            yield stream, indices.tolist()

    def __len__(self) -> int:
        return len(self.batches)


class LoaderBatches:
    """One's own DataLoader, or any iterable of (inputs, targets) batches, used as it is.

    Its order and its draws are its own; a start in the middle of an epoch goes through the batches before it. Where several
    processes train, each goes through the same batches and takes its share of every one.
    """

    dealt: tuple[int, int] | None = None

    def __init__(self, loader: Iterable[Any], device: torch.device | str = "cpu") -> None:
        if isinstance(loader, Iterator):
            raise _wrong(f"{type(loader).__name__} can be walked only once: give a DataLoader or a list of batches instead")
        self.loader = loader
        self.device = torch.device(device)

    @property
    def samples(self) -> int | None:
        return _size(getattr(self.loader, "dataset", None))

    @property
    def batch_size(self) -> int | None:
        return getattr(self.loader, "batch_size", None)

    @property
    def length(self) -> int | None:
        return _size(self.loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The loader's batches from position `start` on, whatever the epoch."""
        for batch in islice(self.loader, start, None):
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise _wrong(f"the loader's batches must be (inputs, targets) pairs, not {described(batch)}")
            inputs, targets = batch
            if self.dealt is None:
                yield to_device(inputs, self.device), to_device(targets, self.device)
                continue
            part, mine = taken(len(targets), self.dealt)
            samples, inputs, targets = len(targets), cut(inputs, part), targets[part]
            yield Share(to_device(inputs, self.device), to_device(targets, self.device), samples, mine)


def make_batches(
    part: tuple[Tensor, Tensor] | Dataset | Iterable[Any],
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = False,
    drop_last: bool = False,
    device: torch.device | str = "cpu",
    workers: int = 0,
    augment: Sequence[str] = (),
) -> Batches:
    """Batches of a prepared part: resident for (inputs, targets) tensors, streamed for a data set, else a loader as it is.

    `augment` is for a training part of images, and not for a loader: nobody knows which samples its batches hold.
    """
    if isinstance(part, tuple):
        inputs, targets = part
        return ResidentBatches(
            inputs,
            targets,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            device=device,
            augment=augment,
        )
    if isinstance(part, Dataset) and not isinstance(part, IterableDataset):
        return StreamedBatches(
            part,
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            device=device,
            workers=workers,
            augment=augment,
        )
    return LoaderBatches(part, device)


def described(value: Any) -> str:
    """What `value` is, in the words of an error sentence."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _size(sized: Any) -> int | None:
    try:
        return len(sized)
    except TypeError:  # no length, or one that an IterableDataset refuses to tell
        return None


def _wrong(message: str) -> RecipeError:
    return RecipeError([Problem("data", message)])


def _end_workers(loader: DataLoader) -> None:
    """While the loader's queues still work. Later torch could only send a signal, which the workers leave to the trainer."""
    if loader._iterator is not None:
        usual, _utils.MP_STATUS_CHECK_INTERVAL = _utils.MP_STATUS_CHECK_INTERVAL, 0.5  # seconds for each, twice
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]  # there is no public way
        _utils.MP_STATUS_CHECK_INTERVAL = usual
        for worker in loader._iterator._workers:  # type: ignore[attr-defined]
            worker.kill()  # one that a sample holds up: the process would wait for it without end
        loader._iterator = None


def _leave_signals_to_the_trainer(worker: int) -> None:
    """A terminal or a scheduler signals the whole process group; the trainer finishes its step and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
