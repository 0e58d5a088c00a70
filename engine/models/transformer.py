"""A small transformer encoder (Vaswani et al., 2017, with normalization before each sublayer)."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from engine.models.attention import check_width
from engine.models.shapes import as_sequence, sequence_shape, text_length


class Transformer(nn.Module):
    """Self-attention over the sample as a sequence, its mean into a linear layer.

    Sequences (steps, features) are taken as they are, images row by row, flat features one number a step. Text is embedded,
    a place sees only what is before it, and each place goes into the linear layer.

    Args:
        dim: width of each position, a multiple of heads
        heads: attention heads
        layers: encoder layers
        dropout: share of attention weights and of each sublayer's outputs that is zeroed in training
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression", "text")

    mask: Tensor | None

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        vocabulary: int | None = None,
        dim: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_width(dim, heads, layers)
        self.embedding: nn.Linear | nn.Embedding
        if vocabulary is None:
            steps, features = sequence_shape("transformer", input_shape)
            self.embedding = nn.Linear(features, dim)
        else:
            vocabulary, steps = text_length("transformer", input_shape, vocabulary)
            self.embedding = nn.Embedding(vocabulary, dim)
        ahead = None if vocabulary is None else torch.ones(steps, steps, dtype=torch.bool).triu(1)
        self.register_buffer("mask", ahead, persistent=False)
        self.position = nn.Parameter(0.02 * torch.randn(steps, dim))
        # Built one by one: nn.TransformerEncoder copies one layer, so that all would start from the same weights.
        self.encoder = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True)
                for _ in range(layers)
            )
        )
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, output_size))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, F), (B, C, H, W) or (B, F) to (B, output_size); tokens (B, T) to (B, output_size, T)."""
        if self.mask is None:
            positions = self.embedding(as_sequence(inputs)) + self.position
            return self.head(self.encoder(positions).mean(dim=1))
        positions = self.embedding(inputs) + self.position
        for layer in self.encoder:
            positions = layer(positions, src_mask=self.mask, is_causal=True)
        return self.head(positions).transpose(1, 2)
