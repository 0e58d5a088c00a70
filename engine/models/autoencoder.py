"""Autoencoders: the inputs through a narrow code and back. Their loss compares the output with the inputs."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal

from torch import Tensor, nn

from engine.models.shapes import flat_size, image_shape, positive


class Autoencoder(nn.Module):
    """Fully connected layers down to a code and, mirrored, up again; takes inputs of any shape.

    Args:
        hidden: widths of the encoder's hidden layers; the decoder has the same in reverse
        code: how many numbers a sample is squeezed into
        activation: what follows each hidden layer, a class of torch.nn
    """

    tasks: ClassVar[tuple[str, ...]] = ("reconstruction",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        hidden: tuple[int, ...] = (128,),
        code: int = 16,
        activation: Literal["ReLU", "LeakyReLU", "GELU", "SiLU", "ELU", "Mish", "Tanh", "Sigmoid"] = "ReLU",
    ) -> None:
        super().__init__()
        positive(hidden=hidden, code=code)
        widths = [flat_size("autoencoder", input_shape), *hidden, code]
        _check_task("autoencoder", input_shape, output_size)

        def layers(widths: list[int]) -> list[nn.Module]:
            stacked: list[nn.Module] = []
            for before, after in itertools.pairwise(widths):
                stacked += [nn.Linear(before, after), getattr(nn, activation)()]
            return stacked[:-1]  # code and output are numbers of any size and sign

        self.encoder = nn.Sequential(nn.Flatten(), *layers(widths))
        self.decoder = nn.Sequential(*layers(widths[::-1]), nn.Unflatten(1, input_shape))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, *input_shape) to (B, *input_shape)."""
        return self.decoder(self.encoder(inputs))


class ConvAutoencoder(nn.Module):
    """Convolutions that halve an image down to a code and, mirrored, enlarge it again.

    Args:
        channels: channels of each convolution of the encoder; the decoder has the same in reverse
        code: how many numbers an image is squeezed into
    """

    tasks: ClassVar[tuple[str, ...]] = ("reconstruction",)

    def __init__(
        self, input_shape: tuple[int, ...], output_size: int, channels: tuple[int, ...] = (16, 32), code: int = 32
    ) -> None:
        super().__init__()
        positive(channels=channels, code=code)
        depth, height, width = image_shape("conv_autoencoder", input_shape, instead="autoencoder")
        _check_task("conv_autoencoder", input_shape, output_size)
        grey = len(input_shape) == 2
        down: list[nn.Module] = [nn.Unflatten(1, (1, height))] if grey else []
        up: list[nn.Module] = [nn.Flatten(1, 2)] if grey else []
        last = True
        for size in channels:
            down += [nn.Conv2d(depth, size, 3, stride=2, padding=1), nn.ReLU()]
            enlarge = [nn.Upsample(size=(height, width)), nn.Conv2d(size, depth, 3, padding=1)]
            up = [*enlarge, *([] if last else [nn.ReLU()]), *up]
            depth, height, width, last = size, (height + 1) // 2, (width + 1) // 2, False
        features = depth * height * width
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(features, code))
        self.decoder = nn.Sequential(
            nn.Linear(code, features), *([nn.ReLU()] if channels else []), nn.Unflatten(1, (depth, height, width)), *up
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, H, W) to the same shape."""
        return self.decoder(self.encoder(inputs))


def _check_task(model: str, input_shape: tuple[int, ...], output_size: int) -> None:
    """ValueError where the targets can't be the inputs."""
    if output_size != math.prod(input_shape):
        raise ValueError(
            f"{model} puts out its inputs' shape {input_shape}, and this data asks for {output_size} outputs: "
            "take data whose targets are the inputs (reconstruction), or choose mlp"
        )
