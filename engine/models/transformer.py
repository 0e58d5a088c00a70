"""A small transformer encoder (Vaswani et al., 2017, with normalization before each sublayer)."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.models.shapes import as_sequence, positive, sequence_shape


class Transformer(nn.Module):
    """Self-attention over the sample as a sequence, its mean into a linear layer.

    Sequences (steps, features) are taken as they are, images row by row, flat features one number a step.

    Args:
        dim: width of each position, a multiple of heads
        heads: attention heads
        layers: encoder layers
        dropout: share of attention weights and of each sublayer's outputs that is zeroed in training
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        dim: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        positive(dim=dim, heads=heads, layers=layers)
        if dim % heads:
            raise ValueError(f"dim = {dim} must be a multiple of heads = {heads}")
        steps, features = sequence_shape("transformer", input_shape)
        self.embedding = nn.Linear(features, dim)
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
        """(B, T, F), (B, C, H, W) or (B, F) to (B, output_size)."""
        positions = self.embedding(as_sequence(inputs)) + self.position
        return self.head(self.encoder(positions).mean(dim=1))
