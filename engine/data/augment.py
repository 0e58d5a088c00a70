"""Augmentation of image batches on their device: what happens to a sample is a function of (seed, epoch, index) alone.

No generator is drawn from, so nothing depends on the batch that a sample stands in, on what was loaded before it, or on
where a run was resumed. A draw is a hash of a counter: the output of SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014) whose state starts from a hash of (seed, epoch, augmentation) and has made as many
steps as the samples before this one have draws. Hashes are made and used as whole numbers, and what is left of floating point
rounds once an operation, so that one device's bits are another's.

The training part alone is augmented, after it was standardized: what is cut out or shifted in is 0, an image's mean where the
data are standardized, and amounts are in standard deviations. For reconstruction the targets stay as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy
import torch
from torch import Tensor

from engine.data.samples import wrong
from engine.errors import nearest

NOISE = 0.1  # standard deviation
BRIGHTNESS = 0.2  # the most that is added or taken away
SHIFT = 8  # by up to an eighth of the image
CUTOUT = 2  # a square of half the image's shorter side

Change = Callable[[Tensor, Tensor], Tensor]  # images (B, C, H, W) and their 64 random bits (B, draws), int64, to images


def flip(images: Tensor, bits: Tensor) -> Tensor:
    """Every other image, by chance, left and right exchanged."""
    return torch.where((bits < 0)[:, :, None, None], images.flip(3), images)


def shift(images: Tensor, bits: Tensor) -> Tensor:
    """Moved by whole pixels, up to an eighth of height and width each way; what comes in is 0."""
    height, width = images.shape[2:]

    def origin(size: int, drawn: Tensor) -> Tensor:
        reach = max(1, size // SHIFT)
        return torch.arange(size, device=images.device) + _below(drawn, 2 * reach + 1) - reach

    rows, columns = origin(height, bits[:, :1])[:, :, None], origin(width, bits[:, 1:])[:, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (B, H, W)
    places = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(1)[:, None]
    moved = images.flatten(2).gather(2, places.expand(-1, images.shape[1], -1)).view_as(images)
    return moved.masked_fill_(~inside[:, None], 0.0)


def cutout(images: Tensor, bits: Tensor) -> Tensor:
    """A square of half the shorter side becomes 0, its centre anywhere (DeVries and Taylor, 2017)."""
    height, width = images.shape[2:]
    side = max(1, min(height, width) // CUTOUT)

    def inside(size: int, drawn: Tensor) -> Tensor:
        place = torch.arange(size, device=images.device) - (_below(drawn, size) - side // 2)
        return (place >= 0) & (place < side)

    rows, columns = inside(height, bits[:, :1]), inside(width, bits[:, 1:])
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def noise(images: Tensor, bits: Tensor) -> Tensor:
    """Added to each value: the sum of four uniform numbers (Irwin-Hall), nearly normal, of deviation 0.1."""
    total = bits & 0xFFFF
    for place in (16, 32, 48):
        part = bits >> place
        part &= 0xFFFF
        total += part
    total -= 2 * 65535
    scale = NOISE / math.sqrt((65536**2 - 1) / 3)  # four times the variance of 0..65535
    return images + (total.to(images.dtype) * scale).view_as(images)


def brightness(images: Tensor, bits: Tensor) -> Tensor:
    """One number of -0.2 to 0.2 added to the whole image."""
    uniform = (bits >> 40 & 0xFFFFFF).to(images.dtype) / 2**24
    return images + ((2 * uniform - 1) * BRIGHTNESS)[:, :, None, None]


_CHANGES: dict[str, tuple[Change, int | None]] = {  # with its draws a sample; None: one a value
    "flip": (flip, 1),
    "shift": (shift, 2),
    "cutout": (cutout, 2),
    "noise": (noise, None),
    "brightness": (brightness, 1),
}


def check(names: Sequence[str], input_shape: tuple[int, ...], numbers: bool = True) -> None:
    """RecipeError in one sentence when there is no such augmentation, or when samples of this shape are no images."""
    for place, name in enumerate(names):
        if name not in _CHANGES:
            hint = nearest(name, _CHANGES) or f"; there are {', '.join(_CHANGES)}"
            raise wrong("data.augment", f"data.augment holds {name!r}, which is no augmentation{hint}")
        if name in names[:place]:
            raise wrong("data.augment", f"data.augment holds {name!r} twice: once is allowed")
    if names and (len(input_shape) != 3 or not numbers):
        shown = f"numbers of shape {input_shape}" if numbers else "tokens"
        raise wrong(
            "data.augment",
            f"data.augment = {list(names)} is for images (channels, height, width), and a sample of this data is {shown}",
        )


def augmentation(names: Sequence[str], seed: int, epoch: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The changes to the images of one epoch: (inputs (B, C, H, W), their indices (B,) int64) to inputs of the same shape.

    `names` were checked. A sample's index is its place in the training part, whatever the order.
    """
    changes = [(*_CHANGES[name], key(seed, epoch, name)) for name in names]

    def changed(inputs: Tensor, indices: Tensor) -> Tensor:
        for change, draws, start in changes:
            inputs = change(inputs, random_bits(start, indices, inputs[0].numel() if draws is None else draws))
        return inputs

    return changed


def key(seed: int, epoch: int, name: str) -> int:
    """Where the draws of one augmentation in one epoch start, 64 bits with a sign; NumPy's SeedSequence keeps them apart."""
    entropy = (seed, epoch, int.from_bytes(name.encode()))
    return _signed(int(numpy.random.SeedSequence(entropy).generate_state(1, numpy.uint64)[0]))


def random_bits(start: int, indices: Tensor, draws: int) -> Tensor:
    """`draws` times 64 random bits for each sample, (B, draws) int64: outputs `index * draws` and on of SplitMix64."""
    state = indices[:, None] * draws + torch.arange(1, draws + 1, device=indices.device)
    state *= _GAMMA  # int64 arithmetic is modulo 2^64
    state += start
    for places, factor in ((30, _FIRST), (27, _SECOND)):
        state ^= _moved(state, places)
        state *= factor
    state ^= _moved(state, 31)
    return state


def _signed(bits: int) -> int:
    return bits - 2**64 if bits >= 2**63 else bits


_GAMMA, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _moved(state: Tensor, places: int) -> Tensor:
    """A shift to the right that fills up with zeros."""
    moved = state >> places
    moved &= 2 ** (64 - places) - 1
    return moved


def _below(bits: Tensor, bound: int) -> Tensor:
    """Whole numbers 0 to bound - 1 from the upper 24 bits."""
    return (bits >> 40 & 0xFFFFFF) * bound >> 24
