"""How the built-in models look at one sample's shape, and what they say when it does not suit them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def flat_size(model: str, input_shape: tuple[int, ...]) -> int:
    """How many numbers a sample has. ValueError when it is not one tensor."""
    if not input_shape:
        raise ValueError(
            f"{model} takes one tensor of numbers a sample; this data's samples are something else: use a model of your own"
        )
    return math.prod(input_shape)


def image_shape(model: str, input_shape: tuple[int, ...], instead: str = "mlp") -> tuple[int, int, int]:
    """(channels, height, width) of images; (height, width) is one channel. ValueError, naming `instead`, for anything else."""
    if len(input_shape) == 2:
        return 1, input_shape[0], input_shape[1]
    if len(input_shape) == 3:
        return input_shape[0], input_shape[1], input_shape[2]
    raise ValueError(
        f"{model} takes images (channels, height, width); this data has shape {input_shape}: "
        f"set data.images = true where the data offers it, or choose {instead}"
    )


def sequence_shape(model: str, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """(steps, features) as `as_sequence` reads a sample. ValueError for shapes that are no sequence."""
    match input_shape:
        case (steps,):
            return steps, 1
        case (steps, features):
            return steps, features
        case (channels, height, width):
            return height, channels * width
    raise ValueError(
        f"{model} takes features, sequences (steps, features) or images (channels, height, width); "
        f"this data has shape {input_shape}: choose mlp"
    )


def text_length(model: str, input_shape: tuple[int, ...], vocabulary: int | None) -> tuple[int, int]:
    """(vocabulary, length) of samples that are rows of tokens. ValueError for anything else."""
    if vocabulary is None:
        raise ValueError(f"{model} takes text, rows of tokens; this data has numbers of shape {input_shape}: choose mlp")
    if len(input_shape) != 1:
        raise ValueError(
            f"{model} takes text as rows of tokens (length,); this data has shape {input_shape}: "
            "let the data give one row a sample, or use a model of your own"
        )
    return vocabulary, input_shape[0]


def as_sequence(inputs: Tensor) -> Tensor:
    """A batch as sequences (B, T, F): features (B, F) become F steps of one number, images (B, C, H, W) are read row by row."""
    if inputs.ndim == 2:
        return inputs.unsqueeze(2)
    if inputs.ndim == 4:
        return inputs.transpose(1, 2).flatten(2)
    return inputs


def positive(**arguments: int | Sequence[int]) -> None:
    """ValueError for an argument below 1, or one that holds such a number."""
    for name, value in arguments.items():
        if min([value] if isinstance(value, int) else value, default=1) < 1:
            shown = value if isinstance(value, int) else list(value)
            raise ValueError(f"{name} = {shown} is too small: at least 1 is allowed")
        if name in ("layers", "blocks") and isinstance(value, int) and value > 1000:  # making them would never end
            raise ValueError(f"{name} = {value} is too much: at most 1000 is allowed")
