"""What data draw at random while they are loaded, kept apart from what the model draws."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from numpy.random import mtrand
from torch.utils.data import Dataset

from engine.catalog.own import Files

_LENT = numpy.random.MT19937(0)  # stands in for NumPy's global generator while samples are loaded


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global CPU generators of Python, NumPy and torch start from `seed`; afterwards they are as they were before."""
    python, numpys, torchs = random.getstate(), mtrand.get_bit_generator(), torch.get_rng_state()
    mtrand.set_bit_generator(_LENT)  # exchanging it is far quicker than copying its state out and in
    try:
        for seed_one in _SEED.values():
            seed_one(seed)
        yield
    finally:
        random.setstate(python)
        mtrand.set_bit_generator(numpys)
        torch.set_rng_state(torchs)


class Seeded(Dataset):
    """A data set read a batch at a time, where what a sample draws is a function of (stream, index) alone.

    Seeding three generators takes longer than loading a small sample, and most data sets draw from none. So a batch is read
    without at first; a generator that then turns out to have been drawn from is from now on given a seed for each sample, and
    the batch is read again.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.drawn: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"own": Files(), **self.__dict__}  # first: the data set may be of a class in one of them

    def __getitems__(self, key: tuple[int, list[int]]) -> list[Any]:
        """The samples of `key`: the stream, a number that stands for seed and epoch, and the indices."""
        stream, indices = key
        while True:
            with seeded(_TRIAL):
                samples = self._read(stream, indices)
                moved = {name for name in _SEED.keys() - self.drawn if _NEXT[name]() != _FIRST[name]}
            if not moved:
                return samples
            self.drawn |= moved

    def _read(self, stream: int, indices: list[int]) -> list[Any]:
        many: Callable[[list[int]], Any] | None = getattr(self.dataset, "__getitems__", None)
        if many and not self.drawn:
            return list(many(indices))
        samples: list[Any] = []
        for index in indices:
            for name in self.drawn:
                _SEED[name]((stream + index) % 2**32)
            samples += many([index]) if many else [self.dataset[index]]
        return samples


_SEED: dict[str, Callable[[int], Any]] = {
    "random": random.seed,
    "numpy": numpy.random.seed,
    "torch": torch.default_generator.manual_seed,  # torch.manual_seed would reseed the GPUs as well
}
_NEXT: dict[str, Callable[[], int]] = {
    "random": lambda: random.getrandbits(64),
    "numpy": lambda: int(_LENT.random_raw()),
    "torch": lambda: int(torch.randint(2**62, (), device="cpu")),
}
_TRIAL = 0
with seeded(_TRIAL):
    _FIRST = {name: draw() for name, draw in _NEXT.items()}  # what each gives when it has not been drawn from
