"""Pictures of any size to arrays of one size, held in memory when they fit, else read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.utils.data import Dataset

from engine.data.samples import Samples, wrong
from engine.data.sources.declare import at_least, package

if TYPE_CHECKING:
    from PIL.Image import Image

LIMIT = 2**30  # bytes of all pictures together, as float32, up to which they are held in memory


class Pictures(Dataset):
    """Pictures as (channels, size, size) float32 of 0 to 1 with their class number.

    `open_one` gives the picture (an image of Pillow's) that belongs to one of `keys`. Its shorter side is scaled (bilinear) to
    `size`, and the middle of the longer one kept. A camera's note that it was turned is followed.
    """

    def __init__(
        self,
        keys: Sequence[Any],
        targets: Sequence[int],
        classes: Sequence[str],
        *,
        open_one: Callable[[Any], Image],
        size: int,
        grey: bool,
    ) -> None:
        package("PIL", "pillow")
        at_least(1, size=size)
        self.keys = keys
        self.targets = targets
        self.classes = tuple(classes)
        self.open_one = open_one
        self.size = size
        self.grey = grey

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return from_numpy(self.pixels(index) / numpy.float32(255)), int(self.targets[index])

    def pixels(self, index: int) -> NDArray[numpy.uint8]:
        """One picture's pixels, (channels, size, size) bytes."""
        from PIL import Image, ImageOps

        whole = ImageOps.exif_transpose(self.open_one(self.keys[index]))
        assert whole is not None
        whole = whole.convert("L" if self.grey else "RGB")
        square = ImageOps.fit(whole, (self.size, self.size), Image.Resampling.BILINEAR)
        return numpy.asarray(square).reshape(self.size, self.size, -1).transpose(2, 0, 1)

    @property
    def bytes(self) -> int:
        """What all pictures take in memory as float32."""
        return len(self) * self.size**2 * (1 if self.grey else 3) * 4

    def held(self) -> tuple[NDArray[numpy.uint8], NDArray[numpy.int64]]:
        """All pictures and their class numbers in memory."""
        pixels = numpy.empty((len(self), 1 if self.grey else 3, self.size, self.size), numpy.uint8)
        for index in range(len(self)):
            pixels[index] = self.pixels(index)
        return pixels, numpy.asarray(self.targets, numpy.int64)


def samples_of(training: Pictures, validation: Pictures | None) -> Samples | Pictures | tuple[Any, Any]:
    """The pictures in memory when they fit below LIMIT, else as they are, to be read one by one."""
    if training.bytes + (validation.bytes if validation else 0) > LIMIT:
        return (training, validation) if validation else training
    pixels, targets = training.held()
    return Samples(
        inputs=pixels,
        targets=targets,
        task="classification",
        classes=training.classes,
        validation=validation.held() if validation else None,
    )


def open_file(path: Path) -> Image:
    """The picture in a file. RecipeError that names a file that holds none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow's plugins raise
        raise wrong("data.path", f"data.path: the picture {str(path)!r} can't be read ({error})") from None
