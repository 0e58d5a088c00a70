"""Arrays from files: NumPy archives, single NumPy arrays, safetensors. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.data.samples import Samples, from_arrays, wrong
from engine.data.sources.declare import existing, source
from engine.errors import nearest

Read = Callable[[str, str], Any]  # (the source's argument, its value) to an array


@source(task=None)
def npz(path: str, inputs: str = "x", targets: str = "y", validation_inputs: str = "", validation_targets: str = "") -> Samples:
    """Arrays from a NumPy .npz file. Whole-number or text targets are classes, others are numbers; byte inputs are pixels.

    Args:
        path: the file, seen from the working directory
        inputs: name of the array of inputs, one sample a row
        targets: name of the array of targets, one sample a row
        validation_inputs: name of the array of inputs to validate on; none: a share of the others
        validation_targets: name of the array of targets to validate on
    """
    import zipfile

    import numpy

    file = existing(path)
    if not zipfile.is_zipfile(file):
        raise wrong("data.path", f"data.path = {path!r} is not an .npz archive; numpy.savez writes one")

    with numpy.load(file, allow_pickle=False) as archive:

        def array(field: str, name: str) -> Any:
            _known(field, name, archive.files, path)
            try:
                return archive[name]
            except ValueError:
                raise _pickled(field, name) from None

        return _samples(array, inputs, targets, validation_inputs, validation_targets)


@source(task=None)
def npy(inputs: str, targets: str, validation_inputs: str = "", validation_targets: str = "") -> Samples:
    """Two NumPy .npy files. Whole-number or text targets are classes, others are numbers; byte inputs are pixels.

    Args:
        inputs: the file of inputs, one sample a row, seen from the working directory
        targets: the file of targets, one sample a row
        validation_inputs: the file of inputs to validate on; none: a share of the others
        validation_targets: the file of targets to validate on
    """
    import numpy

    def array(field: str, path: str) -> Any:
        try:
            loaded = numpy.load(existing(path, field), allow_pickle=False)
        except (ValueError, EOFError) as error:
            if "pickle" in str(error) and _is_npy(path):
                raise _pickled(field, path) from None
            loaded = None
        if not isinstance(loaded, numpy.ndarray):
            raise wrong(f"data.{field}", f"data.{field} = {path!r} is not an .npy file; numpy.save writes one")
        return loaded

    return _samples(array, inputs, targets, validation_inputs, validation_targets)


@source(task=None)
def safetensors(
    path: str, inputs: str = "x", targets: str = "y", validation_inputs: str = "", validation_targets: str = ""
) -> Samples:
    """Tensors from a .safetensors file. Whole-number targets are classes, others are numbers; byte inputs are pixels.

    Args:
        path: the file, seen from the working directory
        inputs: name of the tensor of inputs, one sample a row
        targets: name of the tensor of targets, one sample a row
        validation_inputs: name of the tensor of inputs to validate on; none: a share of the others
        validation_targets: name of the tensor of targets to validate on
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(existing(path), "pt") as file:

            def tensor(field: str, name: str) -> Any:
                _known(field, name, list(file.keys()), path)
                return file.get_tensor(name)

            return _samples(tensor, inputs, targets, validation_inputs, validation_targets)
    except SafetensorError as error:
        raise wrong("data.path", f"data.path = {path!r} is not a whole .safetensors file ({error})") from None


def _samples(read: Read, inputs: str, targets: str, validation_inputs: str, validation_targets: str) -> Samples:
    held = None
    if bool(validation_inputs) != bool(validation_targets):
        missing = "validation_targets" if validation_inputs else "validation_inputs"
        raise wrong(f"data.{missing}", f"data.{missing} is missing; validation data are inputs and targets")
    if validation_inputs:
        held = read("validation_inputs", validation_inputs), read("validation_targets", validation_targets)
    return from_arrays(read("inputs", inputs), read("targets", targets), held)


def _known(field: str, name: str, names: Sequence[str], path: str) -> None:
    if name not in names:
        known = ", ".join(names) or "nothing"
        raise wrong(f"data.{field}", f"data.{field} = {name!r} is not in {path}, which holds {known}{nearest(name, names)}")


def _pickled(field: str, name: str) -> Exception:
    return wrong(
        f"data.{field}", f"data.{field} = {name!r} holds Python objects, which are never unpickled: save plain numbers"
    )


def _is_npy(path: str) -> bool:
    with existing(path).open("rb") as file:
        return file.read(6) == b"\x93NUMPY"
