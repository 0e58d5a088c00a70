"""What several processes train: each makes the same model, loads the same data, and takes its share of every batch.

What is not the same is refused.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy
import torch
from torch import Tensor

from engine.data.batches import ResidentBatches
from engine.distributed.ranks import Ranks
from engine.errors import Problem, RecipeError
from engine.parts import Parts

SEEN = 64  # values of a tensor by which it is known


def refuse_others(ranks: Ranks, parts: Parts) -> None:
    """RecipeError, on all ranks, where one has another model or other data than the first."""
    shapes = str([(name, tuple(held.shape), held.dtype) for name, held in parts.model.named_parameters()])
    for rank, other in enumerate(models := ranks.gather(hashlib.sha256(shapes.encode()).hexdigest())):
        if other != models[0]:
            said = f"rank {rank} has another model than rank 0: names and shapes of the parameters are to be the same"
            raise RecipeError([Problem("model", said)])
    for name, batches in (("training", parts.train), ("validation", parts.validation)):
        resident = isinstance(batches, ResidentBatches)
        known = [_known(held) for held in (batches.inputs, batches.targets)] if resident else []  # type: ignore[union-attr]
        sizes = None if batches is None else (getattr(batches, "samples", None), batches.length)
        found = ranks.gather((sizes, known))
        for rank, other in enumerate(found):
            if other != found[0]:
                (mine, theirs) = ((sizes and (sizes[0] or sizes[1])) for sizes, _ in (found[0], other))
                _refuse(
                    f"rank {rank} has other {name} data than rank 0" + (f" ({theirs}, not {mine})" if mine != theirs else "")
                )


class Alike:
    """One's own loader. What it draws where an epoch begins, its order above all, it draws as rank 0's does.

    RecipeError, on all ranks, where its first batch is another than rank 0's, or it comes to its end sooner.
    """

    def __init__(self, loader: Iterable[Any], ranks: Ranks) -> None:
        self._loader, self._ranks = loader, ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]  # a TypeError where it has none

    def __iter__(self) -> Iterator[Any]:
        own = torch.get_rng_state()
        drawn, plain, numbers = self._ranks.first((own, random.getstate(), numpy.random.get_state()))
        random.setstate(plain)  # from these two nothing draws but what loads data
        numpy.random.set_state(numbers)
        torch.set_rng_state(drawn)
        batches = iter(self._loader)
        first = list(islice(batches, 1))
        if self._ranks.rank:  # dropout is each rank's own
            torch.set_rng_state(own)
        found = self._ranks.gather([_known(batch[1:]) for batch in first if isinstance(batch, tuple | list)])  # the targets
        for rank, other in enumerate(found):
            if other != found[0]:
                _refuse(f"rank {rank}'s loader begins with another batch than rank 0's")
        yield from first
        yield from batches if _sized(self._loader) else self._in_step(batches)

    def _in_step(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Of a loader of which nobody knows the length: a rank that goes on alone would wait for the others without end."""
        while True:
            batch = list(islice(batches, 1))
            there = torch.tensor(len(batch))
            self._ranks.summing(there)()
            if there == 0:
                return
            if there < self._ranks.count:
                _refuse("one rank's loader has fewer batches than another's")
            yield from batch


def _sized(loader: Any) -> bool:
    try:
        return len(loader) >= 0
    except TypeError:  # as the loader of an iterable data set has it
        return False


def _known(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {value.detach().flatten()[:SEEN].tolist()}"
    return str([_known(item) for item in value]) if isinstance(value, tuple | list) else type(value).__name__


def _refuse(what: str) -> None:
    raise RecipeError(
        [Problem("data", f"{what}: every process is to load the same, in the same order; batches are dealt here")]
    )
