"""The linear model."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from engine.models.shapes import flat_size


class Linear(nn.Module):
    """One linear layer: linear regression, or with CrossEntropyLoss logistic regression.

    Args:
        bias: learn an intercept as well
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __init__(self, input_shape: tuple[int, ...], output_size: int, bias: bool = True) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(flat_size("linear", input_shape), output_size, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, *input_shape) to (B, output_size)."""
        return self.linear(self.flatten(inputs))
