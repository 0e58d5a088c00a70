"""The vision transformer (Dosovitskiy et al., 2020: "An Image is Worth 16x16 Words"), for small images."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from engine.models.attention import Block, check_width, start
from engine.models.shapes import image_shape, positive


class ViT(nn.Module):
    """Self-attention over an image's square patches, with learned positions.

    Args:
        patch: side of the patches, a divisor of the image's height and width
        dim: width of each position, a multiple of heads
        heads: attention heads
        layers: blocks of attention and perceptron
        dropout: share of embeddings, attention weights and each sublayer's outputs that is zeroed in training
        pool: what the head reads: a class token of its own, or the mean over the patches
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        patch: int = 4,
        dim: int = 64,
        heads: int = 4,
        layers: int = 4,
        dropout: float = 0.0,
        pool: Literal["class", "mean"] = "class",
    ) -> None:
        super().__init__()
        positive(patch=patch)
        check_width(dim, heads, layers)
        depth, height, width = image_shape("vit", input_shape)
        side = math.gcd(height, width)
        if side % patch:
            fitting = ", ".join(str(divisor) for divisor in range(1, side + 1) if side % divisor == 0)
            raise ValueError(
                f"patch = {patch} of vit does not divide this data's images of shape {input_shape}: "
                f"set a patch of {fitting}, or choose cnn"
            )
        count = (height // patch) * (width // patch)
        unflatten = [nn.Unflatten(1, (1, height))] if len(input_shape) == 2 else []
        self.patches = nn.Sequential(*unflatten, nn.Conv2d(depth, dim, patch, stride=patch), nn.Flatten(2))
        self.token = nn.Parameter(torch.zeros(1, dim)) if pool == "class" else None
        self.position = nn.Parameter(0.02 * torch.randn(count + (pool == "class"), dim))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(dim, heads, dropout, causal=False) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, output_size)
        start(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, H, W) to (B, output_size)."""
        positions = self.patches(inputs).transpose(1, 2)
        if self.token is not None:
            positions = torch.cat([self.token.expand(positions.shape[0], 1, -1), positions], dim=1)
        positions = self.norm(self.blocks(self.drop(positions + self.position)))
        return self.head(positions[:, 0] if self.token is not None else positions.mean(dim=1))
