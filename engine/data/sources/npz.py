"""NumPy archives."""

from __future__ import annotations

from typing import Any

from engine.data.samples import Samples, from_arrays, wrong
from engine.data.sources.declare import existing, source
from engine.errors import nearest


@source(task=None)
def npz(path: str, inputs: str = "x", targets: str = "y") -> Samples:
    """Arrays from a NumPy .npz file. Whole-number or text targets are classes, others are numbers; byte inputs are pixels.

    Args:
        path: the file, seen from the working directory
        inputs: name of the array of inputs, one sample a row
        targets: name of the array of targets, one sample a row
    """
    import zipfile

    import numpy

    file = existing(path)
    if not zipfile.is_zipfile(file):
        raise wrong("data.path", f"data.path = {path!r} is not an .npz archive; numpy.savez writes one")

    with numpy.load(file, allow_pickle=False) as archive:

        def array(field: str, name: str) -> Any:
            if name not in archive.files:
                known = ", ".join(archive.files) or "nothing"
                raise wrong(
                    f"data.{field}",
                    f"data.{field} = {name!r} is not in {path}, which holds {known}{nearest(name, archive.files)}",
                )
            try:
                return archive[name]
            except ValueError:
                raise wrong(
                    f"data.{field}",
                    f"data.{field} = {name!r} holds Python objects, which are never unpickled: save plain numbers",
                ) from None

        return from_arrays(array("inputs", inputs), array("targets", targets))
