"""Pre-norm transformer blocks (Radford et al., 2019) over torch's own attention, and how their weights start."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from engine.models.shapes import positive


class Block(nn.Module):
    """Attention, then a GELU perceptron of four times the width, each on normalized inputs and added to them."""

    def __init__(self, dim: int, heads: int, dropout: float, *, causal: bool, bias: bool = True) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim, bias=bias)
        self.attention = Attention(dim, heads, dropout, causal=causal, bias=bias)
        self.norm_mlp = nn.LayerNorm(dim, bias=bias)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim, bias=bias), nn.GELU(), nn.Linear(4 * dim, dim, bias=bias), nn.Dropout(dropout)
        )

    def forward(self, positions: Tensor) -> Tensor:
        """(B, T, dim) to (B, T, dim)."""
        positions = positions + self.attention(self.norm_attention(positions))
        return positions + self.mlp(self.norm_mlp(positions))


class Attention(nn.Module):
    """Multi-head self-attention; with `causal`, a position sees itself and what is before it."""

    def __init__(self, dim: int, heads: int, dropout: float, *, causal: bool, bias: bool) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = heads, causal, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        self.drop = nn.Dropout(dropout)

    def forward(self, positions: Tensor) -> Tensor:
        """(B, T, dim) to (B, T, dim)."""
        # (B, T, 3 dim) to three of (B, heads, T, dim / heads)
        query, key, value = self.qkv(positions).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=self.causal)
        return self.drop(self.out(mixed.transpose(1, 2).flatten(2)))


def check_width(dim: int, heads: int, layers: int) -> None:
    """ValueError unless `dim` can be shared out among `heads`."""
    positive(dim=dim, heads=heads, layers=layers)
    if dim % heads:
        raise ValueError(f"dim = {dim} must be a multiple of heads = {heads}")


def start(model: nn.Module) -> None:
    """GPT-2's start: weights from N(0, 0.02), biases 0, and what is added to the residual stream smaller by
    sqrt(2 layers), so that the stream's variance does not grow with depth."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        for name, weight in block.named_parameters():
            if name in ("attention.out.weight", "mlp.2.weight"):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * len(blocks)))
