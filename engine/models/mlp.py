"""The multilayer perceptron."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from engine.models.shapes import flat_size, positive


class MLP(nn.Module):
    """Fully connected layers with an activation between them; inputs of any shape are flattened.

    Args:
        hidden: widths of the hidden layers; none makes it a linear model
        activation: what follows each hidden layer, a class of torch.nn
        dropout: share of each hidden layer's outputs that is zeroed in training
        batch_norm: normalize each hidden layer over the batch, before the activation
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression")

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        hidden: tuple[int, ...] = (128,),
        activation: Literal["ReLU", "LeakyReLU", "GELU", "SiLU", "ELU", "Mish", "Tanh", "Sigmoid"] = "ReLU",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        positive(hidden=hidden)
        width = flat_size("mlp", input_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for size in hidden:
            layers.append(nn.Linear(width, size))
            if batch_norm:
                layers.append(nn.BatchNorm1d(size))
            layers.append(getattr(nn, activation)())
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = size
        layers.append(nn.Linear(width, output_size))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, *input_shape) to (B, output_size)."""
        return self.layers(inputs)
