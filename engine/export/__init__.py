"""What a recipe or a run can be turned into for others: the plain PyTorch script."""

from __future__ import annotations

from pathlib import Path

from engine.errors import EpochalError


def write(path: Path | str, text: str) -> None:
    """Write a text to a file that is not there yet. EpochalError where that can't be."""
    try:
        with Path(path).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise EpochalError(f"{path} is there already: name another file") from None
    except OSError as error:
        raise EpochalError(f"{path} can't be written: {error.strerror}") from None
