"""Memory of the CPU that steps free and take again."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# Numbers and meaning: malloc.h and mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30  # bytes that stay for the next step
_USUAL = 32 << 20  # what glibc itself goes up to, where large blocks are freed
_under_way: set[object] = set()  # blocks: of several threads, or one in another


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While the block lasts the C library keeps what is freed, up to 1 GiB; after the last one it gives back what nobody uses.

    By itself glibc hands the large tensors of a step back to the system, and gets pages from it anew in the next one, each of
    them to be cleared: a sixth of the time of a step of 1.9 million weights. Other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        yield
        return
    this = object()
    _under_way.add(this)
    libc.mallopt(_MMAP_THRESHOLD, _KEPT)
    libc.mallopt(_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        _under_way.remove(this)
        if not _under_way:
            libc.mallopt(_MMAP_THRESHOLD, _USUAL)
            libc.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
            libc.malloc_trim(0)
