"""A rank's share of each batch: the processes of one training deal every global batch among them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from engine.data.nested import mapped


class Share(tuple):
    """(inputs, targets) of one rank, with the number of `samples` in the whole batch and how many of them are `mine`.

    A rank for which nothing is left of a small last batch has 0 of its own, and the batch's first sample to stand in: it goes
    through the model as the others do, and counts nothing.
    """

    samples: int
    mine: int

    def __new__(cls, inputs: Any, targets: Tensor, samples: int, mine: int) -> Share:
        made = super().__new__(cls, (inputs, targets))
        made.samples, made.mine = samples, mine
        return made


def share_of(samples: int, rank: int, ranks: int) -> slice:
    """Which of a batch's samples are that rank's: runs of equal length, but for one more in the first of them."""
    return slice(-(-samples * rank // ranks), -(-samples * (rank + 1) // ranks))


def taken(samples: int, dealt: tuple[int, int]) -> tuple[slice, int]:
    """What a rank loads of a batch, and how many of those count: its share, or the first sample where that is empty."""
    share = share_of(samples, *dealt)
    mine = share.stop - share.start
    return (share, mine) if mine else (slice(0, 1), 0)


def cut(value: Any, of: slice) -> Any:
    """These samples of inputs that may be tensors in tuples, lists and dicts."""
    return mapped(value, lambda leaf: leaf[of] if isinstance(leaf, Tensor) else leaf)
