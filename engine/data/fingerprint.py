"""A fingerprint of the training data: what tells a run that it is resumed on other data than it was begun with.

It is quick rather than complete. Arrays of up to 64 MiB count with every byte; of greater ones evenly spaced samples do, and
the sum of all their bytes as 64-bit words. Of a data set that is not in memory its length, first and last sample count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy
from numpy.typing import NDArray
from torch import Tensor

WHOLE = 64 * 2**20  # bytes


def of_arrays(*arrays: NDArray[Any]) -> str:
    """The fingerprint of arrays whose first axis counts samples, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        if array.nbytes > WHOLE and array.itemsize == 8:
            digest.update(array.view(numpy.uint64).sum().tobytes())  # modulo 2^64, in whatever order they lie in memory
        elif array.nbytes > WHOLE:
            flat = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
            whole = len(flat) // 8 * 8
            digest.update(flat[:whole].view(numpy.uint64).sum().tobytes())
            digest.update(flat[whole:].data)
        digest.update(numpy.ascontiguousarray(array[:: max(1, -(-array.nbytes // WHOLE))]).data)
    return digest.hexdigest()


def of_samples(length: int | None, *samples: Any) -> str:
    """The fingerprint of data of that length, known by a few of their samples: nested tensors, arrays and plain values."""
    digest = hashlib.sha256(str(length).encode())
    for piece in _pieces(samples):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _pieces(item)
    elif isinstance(value, Tensor):
        whole = value.detach().cpu()
        yield from _pieces((whole.float() if whole.is_floating_point() and whole.itemsize < 4 else whole).numpy())
    elif isinstance(value, numpy.ndarray):
        yield f"{value.dtype.str} {value.shape}".encode()
        yield numpy.ascontiguousarray(value).tobytes()
    elif isinstance(value, (str, int, float)):
        yield repr(value).encode()
