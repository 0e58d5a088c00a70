"""The character GPT, in nanoGPT's shape (Radford et al., 2019: "Language Models are Unsupervised Multitask Learners")."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from engine.models.attention import Block, check_width, start
from engine.models.shapes import text_length


class GPT(nn.Module):
    """Causal self-attention over text: at each place, what comes next.

    Args:
        dim: width of each position, a multiple of heads
        heads: attention heads
        layers: blocks of attention and perceptron
        dropout: share of embeddings, attention weights and each sublayer's outputs that is zeroed in training
        tied: the head uses the token embedding's weights
        bias: linear layers and normalizations have biases
    """

    tasks: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        vocabulary: int | None = None,
        dim: int = 128,
        heads: int = 4,
        layers: int = 4,
        dropout: float = 0.0,
        tied: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_width(dim, heads, layers)
        vocabulary, length = text_length("gpt", input_shape, vocabulary)
        if tied and output_size != vocabulary:
            raise ValueError(
                f"tied = true needs as many outputs as tokens: this data has {output_size} outputs and a vocabulary of "
                f"{vocabulary}; set tied = false"
            )
        self.embedding = nn.Embedding(vocabulary, dim)
        self.position = nn.Parameter(torch.empty(length, dim))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(dim, heads, dropout, causal=True, bias=bias) for _ in range(layers)))
        self.norm = nn.LayerNorm(dim, bias=bias)
        self.head = nn.Linear(dim, output_size, bias=False)
        start(self)
        nn.init.normal_(self.position, std=0.02)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 to logits (B, output_size, T), T up to the length that the model was built for."""
        length = tokens.shape[1]
        if length > len(self.position):
            raise ValueError(f"gpt was built for {len(self.position)} tokens a sample, and this one has {length}")
        positions = self.drop(self.embedding(tokens) + self.position[:length])
        return self.head(self.norm(self.blocks(positions))).transpose(1, 2)
