"""Training in many processes, on torch.distributed: who they are, what each takes of a batch, and how they agree.

Every rank carries out the same trainer. What it would decide by a clock, a key or a disk is rank 0's to decide, or everybody's
together; what it computes from losses and metrics is computed from the same numbers everywhere. Rank 0 alone writes the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.errors import EpochalError

if TYPE_CHECKING:
    from engine.distributed.ranks import Ranks
    from engine.parts import Parts

_ranks: Ranks | None = None


def processes() -> Ranks | None:
    """Those that train together with this one; None where it trains alone.

    Joined on the first call, by the environment that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT), or
    found where the user's own script has called `torch.distributed.init_process_group`.
    """
    global _ranks
    from torch import distributed

    if _ranks is None and (
        int(os.environ.get("WORLD_SIZE", "1")) > 1 or (distributed.is_available() and distributed.is_initialized())
    ):
        from engine.distributed.ranks import Ranks

        _ranks = Ranks()
    return None if _ranks is None or _ranks.count == 1 else _ranks


def writes() -> bool:
    """Whether this process writes runs: the only one, or the first."""
    ranks = processes()
    return ranks is None or ranks.rank == 0


def refuse_others(parts: Parts) -> None:
    """RecipeError, in all processes, where one has another model or other data than the first."""
    ranks = processes()
    if ranks is not None:
        from engine.distributed import alike

        alike.refuse_others(ranks, parts)


def refuse_several(what: str) -> None:
    """EpochalError where a launcher began several processes for what one does."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        raise EpochalError(f"{what} is for one process, and a launcher began {count} (WORLD_SIZE): begin it without torchrun")


def first(value: Any) -> Any:
    """What the first process has given, in all of them."""
    ranks = processes()
    return value if ranks is None else ranks.first(value)


@contextmanager
def leading() -> Iterator[None]:
    """Around what the first process does alone before a run begins: where that raises the others do as well, with its words."""
    ranks = processes()
    try:
        yield
    except Exception as error:
        if ranks is not None:
            ranks.first(str(error) or type(error).__name__)
        raise
    if ranks is not None and (said := ranks.first("")):
        from engine.errors import RunError

        raise RunError(said)
