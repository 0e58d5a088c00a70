"""The convolutional network."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from engine.models.shapes import image_shape, positive


class CNN(nn.Module):
    """Convolutions with ReLU, halving the image after each, then a fully connected head.

    Args:
        channels: channels of each convolution; an image too small to be halved again keeps its size
        kernel: side of the convolutions' kernels, odd
        dropout: share of the head's inputs that is zeroed in training
        head: widths of the hidden layers after the convolutions
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        channels: tuple[int, ...] = (16, 32),
        kernel: int = 3,
        dropout: float = 0.0,
        head: tuple[int, ...] = (64,),
    ) -> None:
        super().__init__()
        positive(channels=channels, kernel=kernel, head=head)
        if kernel % 2 == 0:
            raise ValueError(f"kernel = {kernel} must be odd, so that a convolution keeps the image's size")
        depth, height, width = image_shape("cnn", input_shape)
        layers: list[nn.Module] = [nn.Unflatten(1, (1, height))] if len(input_shape) == 2 else []
        for size in channels:
            layers += [nn.Conv2d(depth, size, kernel, padding=kernel // 2), nn.ReLU()]
            if height > 1 and width > 1:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
            depth = size
        self.convolutions = nn.Sequential(*layers)

        features = depth * height * width
        layers = [nn.Flatten(), nn.Dropout(dropout)]
        for size in head:
            layers += [nn.Linear(features, size), nn.ReLU()]
            features = size
        layers.append(nn.Linear(features, output_size))
        self.head = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, H, W) to (B, output_size)."""
        return self.head(self.convolutions(inputs))
