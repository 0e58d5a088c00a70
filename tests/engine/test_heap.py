"""Memory that steps free and take again."""

from __future__ import annotations

import ctypes
import resource

import psutil
import pytest
import torch

from engine.execution.heap import kept

SIZE = 64 << 20
PAGES = SIZE // resource.getpagesize()


def pages_fetched() -> int:
    """From the system, for a tensor of `SIZE` bytes that is made, written and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(SIZE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_what_a_step_frees_is_there_for_the_next_and_goes_back_at_the_end() -> None:
    process = psutil.Process()
    with kept():
        with kept():  # of a learning-rate finder, say
            pages_fetched()
        # Not none: what is small may settle in a place that was free, and a large tensor then needs another one, once.
        assert sum(pages_fetched() for _ in range(20)) < 10 * PAGES
        held = process.memory_info().rss
    assert held - process.memory_info().rss > 0.9 * SIZE
