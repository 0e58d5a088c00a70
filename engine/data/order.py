"""The order of the samples: a function of seed and epoch alone, so that nothing about it ever needs saving."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from engine.data.samples import wrong
from engine.recipe import Loading


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


def split(n: int, loading: Loading) -> tuple[Tensor, Tensor]:
    """The indices of the training and of the validation part, cut from a permutation that depends on `split_seed` alone.

    The first `round(n * validation)` of it are held back; or, with `fold` = k, the k-th of `folds` parts, which are disjoint,
    cover everything and differ by one sample at most. Raises RecipeError when a part that should be there would be empty.
    """
    if n == 0:
        raise wrong("data.name", "the data have no samples")
    if loading.fold is not None:
        first, last = fold_bounds(n, loading.fold, loading.folds)
    else:
        share = loading.validation
        first, last = 0, round(n * share)
        if share > 0 and last in (0, n):
            part = "validation" if last == 0 else "training"
            raise wrong(
                "data.validation", f"data.validation = {share} of {n} samples leaves 0 for {part}: change it, or set it to 0"
            )
    indices = order(n, loading.split_seed, 0, shuffle=first < last)  # with nothing held back, the data's own order
    return torch.cat([indices[:first], indices[last:]]), indices[first:last]


def fold_bounds(n: int, fold: int, folds: int) -> tuple[int, int]:
    """Where part `fold` (from 1) of `folds` begins and ends among `n`."""
    if not 1 <= fold <= folds:
        raise wrong("data.fold", f"data.fold = {fold} is not one of the data.folds = {folds} parts: 1 to {folds} are allowed")
    if folds > n:
        raise wrong("data.folds", f"data.folds = {folds} is more than there are samples: at most {n} is allowed")
    return (fold - 1) * n // folds, fold * n // folds
