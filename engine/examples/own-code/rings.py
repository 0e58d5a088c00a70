"""Two rings, one in the other: which one is a point of?"""

import torch
from torch import nn


def load(samples: int = 600, noise: float = 0.1, seed: int = 0):
    """Points in the plane and the number of their ring."""
    generator = torch.Generator().manual_seed(seed)
    ring = torch.arange(samples) % 2
    angle = 2 * torch.pi * torch.rand(samples, generator=generator)
    radius = 0.5 + 0.5 * ring + noise * torch.randn(samples, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), ring


class Net(nn.Module):
    """A perceptron on the point and its squares, which make the rings easy.

    Args:
        width: units of the hidden layer
    """

    def __init__(self, input_shape: tuple[int, ...], output_size: int, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * input_shape[0], width), nn.ReLU(), nn.Linear(width, output_size))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([points, points.square()], 1))


class Focal(nn.Module):
    """Cross-entropy that counts what is right already less (Lin et al., 2017).

    Args:
        gamma: 0 is plain cross-entropy
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        entropy = nn.functional.cross_entropy(output, target, reduction="none")
        return ((1 - torch.exp(-entropy)) ** self.gamma * entropy).mean()
