"""The order of the samples: a function of seed and epoch alone, so that nothing about it ever needs saving."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from engine.data.samples import wrong


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch, 32 bits, epochs counted from 1; NumPy's SeedSequence keeps neighbours apart."""
    return int(numpy.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def order(n: int, seed: int, epoch: int, shuffle: bool) -> Tensor:
    """The indices of `n` samples in the order of that epoch, (n,) int64 on the CPU.

    Shuffled, it is what a `torch.utils.data.RandomSampler` yields whose generator has the seed `epoch_seed(seed, epoch)`.
    """
    if not shuffle:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))


def split(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The indices of the training and of the validation part: the first `round(n * share)` of a permutation are held back.

    Raises RecipeError when a part that should be there would be empty.
    """
    if n == 0:
        raise wrong("data.name", "the data have no samples")
    held = round(n * share)
    if share > 0 and held in (0, n):
        part = "validation" if held == 0 else "training"
        raise wrong(
            "data.validation", f"data.validation = {share} of {n} samples leaves 0 for {part}: change it, or set it to 0"
        )
    indices = order(n, seed, 0, shuffle=True)
    return indices[held:], indices[:held]
