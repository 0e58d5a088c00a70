"""How the rows of a table that are validated on may be known from those that are trained on: sentences for the person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from engine.data.samples import Samples


def ordered(samples: Samples) -> Iterator[str]:
    """Of rows in the order of a date, of which some are to be drawn at random."""
    place = 0
    for column in samples.columns:
        steps = numpy.diff(samples.inputs[:, place])
        if column.span and steps.any() and ((steps >= 0).all() or (steps <= 0).all()):
            said = f"the rows are in the order of {column.name!r}, and those to validate on are drawn at random among them"
            yield f"{said}: how well later ones are predicted is told by a file of such, data.validation_path"
        place += len(column.features)


def repeated(inputs: tuple[Any, Any], targets: tuple[Any, Any]) -> Iterator[str]:
    """Of rows that are in both parts, unless the columns can hardly tell rows apart."""
    import pandas
    from pandas.util import hash_array

    def hashes(x: Any, y: Any) -> Any:
        found = numpy.zeros(len(x), numpy.uint64)
        for values in (*x.T, *y.reshape(len(y), -1).T):
            found = found * numpy.uint64(31) + hash_array(values)
        return found

    training, held = map(hashes, inputs, targets)
    both = int(numpy.isin(held, training).sum())
    if both >= 0.01 * len(held) and pandas.Series(training).duplicated().mean() <= 0.5:
        yield f"{both} of the {len(held)} rows that are validated on are trained on too"
