"""A small residual network (He et al., 2015: "Deep Residual Learning for Image Recognition", the CIFAR form)."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from engine.models.shapes import image_shape, positive


class ResNet(nn.Module):
    """Residual blocks in stages, for images of 8 x 8 to 64 x 64; each stage after the first halves the image.

    Args:
        widths: channels of each stage
        blocks: residual blocks in each stage
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __init__(
        self, input_shape: tuple[int, ...], output_size: int, widths: tuple[int, ...] = (16, 32, 64), blocks: int = 1
    ) -> None:
        super().__init__()
        positive(widths=widths, blocks=blocks)
        if not widths:
            raise ValueError("widths must name at least one stage")
        depth, height, _ = image_shape(type(self).__name__.lower(), input_shape)
        stem: list[nn.Module] = [nn.Unflatten(1, (1, height))] if len(input_shape) == 2 else []
        stem += [nn.Conv2d(depth, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        stages: list[nn.Module] = []
        before = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stages.append(Block(before, width, stride=2 if stage > 0 and block == 0 else 1))
                before = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, output_size))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, H, W) to (B, output_size)."""
        return self.head(self.stages(self.stem(inputs)))


class ResNet18(ResNet):
    """ResNet-18 for small images: a 3 x 3 first convolution, no pooling after it, four stages of two blocks."""

    def __init__(self, input_shape: tuple[int, ...], output_size: int) -> None:
        super().__init__(input_shape, output_size, widths=(64, 128, 256, 512), blocks=2)


class Block(nn.Module):
    """Two convolutions around which the input is added; a 1 x 1 convolution fits it where the shape changes."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, before, H, W) to (B, width, H / stride, W / stride), rounded up."""
        return torch.relu(self.residual(inputs) + self.shortcut(inputs))
