"""How the processes that train together are doing, in words: who is slow, and who waits."""

from __future__ import annotations

import math

from engine.events import RanksMeasured

_NOTABLE = 0.1  # share of its time that one rank waits more than another


def straggler(measured: RanksMeasured) -> int | None:
    """The rank that the others wait for; None where none of them waits much more than it."""
    waits = measured.waits
    slowest = min(range(len(waits)), key=lambda rank: waits[rank])
    return slowest if max(waits) - waits[slowest] >= _NOTABLE else None


def rate(measured: RanksMeasured, rank: int) -> str:
    """Its own steps a second, if it waited for nobody."""
    return "–" if math.isnan(measured.rates[rank]) else f"{measured.rates[rank]:,.4g}"


def those_to_show(measured: RanksMeasured, room: int) -> list[int]:
    """Of more ranks than there is room for the first and the slowest, in their order."""
    ranks = range(len(measured.waits))
    slow = sorted(ranks, key=lambda rank: (rank > 0, measured.waits[rank]))
    return sorted(slow[: max(1, room)])
