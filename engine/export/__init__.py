"""What a recipe or a run can be turned into for others: the plain PyTorch script, the model in formats that others read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from engine.errors import EpochalError
from engine.run import files

FORMATS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch": ".pt2", "script": ".py"}  # and what their files end in


def format_of(path: Path) -> str:
    """The format that a file's ending stands for. EpochalError for another ending."""
    found = {ending: name for name, ending in FORMATS.items()}.get(path.suffix.lower())
    if found is None:
        raise EpochalError(f"{path} ends in none of {', '.join(FORMATS.values())}: name it so, or say --format")
    return found


def write(path: Path | str, text: str) -> None:
    """Write a text to a file that is not there yet. EpochalError where that can't be."""
    write_bytes(Path(path), text.encode())


def write_bytes(path: Path, data: bytes, *, force: bool = False) -> None:
    """The same for bytes; with `force` a file that is there is replaced."""
    write_whole(path, lambda aside: files.write(aside, data), force=force)


def write_whole(path: Path, make: Callable[[Path], None], *, force: bool = False) -> None:
    """Have `make` write a file beside `path`, which is then renamed: it is there whole or not at all.

    EpochalError where it can't be written, or is there already and `force` does not say that it may be replaced.
    """
    refuse_target(path, force)
    aside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        try:
            files.fill(aside, make)
            files.sync(aside)
            files.replace(aside, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                files.remove(aside)
        files.sync(path.parent)
    except OSError as error:
        raise EpochalError(f"{path} can't be written: {error.strerror}") from None


def refuse_target(path: Path, force: bool = False, kind: str = "") -> None:
    """EpochalError, before anything is loaded, where a file of this format can't be written, or is there already and nobody
    said that it may be replaced."""
    if not force and path.exists():
        raise EpochalError(f"{path} is there already: name another file, or say --force")
    if not path.parent.is_dir():
        raise EpochalError(f"{path} can't be written: there is no folder {path.parent}")
    if kind == "safetensors" and path.suffix != FORMATS[kind]:
        raise EpochalError(f"{path} has to end in {FORMATS[kind]}: load_model knows it by that")
