"""What the chain without autograd is tried with, on the CPU and on a GPU, and how it is compared."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from engine.execution.hands import LeanHands
from engine.loop import Loop
from engine.models.cnn import CNN
from engine.models.mlp import MLP

POINTWISE = [
    nn.ReLU(),
    nn.LeakyReLU(0.2),
    nn.ELU(1.5),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Tanh(),
    nn.Sigmoid(),
]
MODELS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {  # and the shape of a sample
    **{repr(layer): (nn.Sequential(nn.Linear(5, 17), layer, nn.Linear(17, 3)), (5,)) for layer in POINTWISE},
    "linear": (nn.Linear(7, 3), (7,)),
    "one to one": (nn.Linear(1, 1), (1,)),
    "no bias": (nn.Sequential(nn.Linear(1, 8, bias=False), nn.ReLU(inplace=True), nn.Linear(8, 3, bias=False)), (1,)),
    "nothing after": (nn.Sequential(nn.Linear(6, 3), nn.Identity()), (6,)),
    "mlp": (MLP((4, 4), 3, hidden=(33, 9)), (4, 4)),
    "cnn": (CNN((8, 8), 3, channels=(4, 8), head=(10,)), (8, 8)),
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(2, 6, (3, 2), stride=2, padding=1, groups=2, bias=False),
            nn.Tanh(),
            nn.Conv2d(6, 4, 2, dilation=2),
            nn.MaxPool2d(2, stride=1, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
        (2, 9, 9),
    ),
}
LOSSES = {
    "cross entropy": nn.CrossEntropyLoss(),
    "weighted": nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0]), ignore_index=1),
    "squares": nn.MSELoss(),
    "distances": nn.L1Loss(),
    "smooth": nn.SmoothL1Loss(beta=0.7),
    "Huber": nn.HuberLoss(delta=0.6),
}


def loop_of(model: nn.Module, loss: Any) -> Loop:
    """A loop with the hands of a run, in an epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **({"fused": True} if next(model.parameters()).is_cuda else {}))
    loop = Loop(model=model, module=model, loss=loss, optimizer=optimizer, count=torch.numel)
    loop.hands = LeanHands(optimizer)
    loop.hands.begin(loop)
    return loop


def batch(model: nn.Module, shape: tuple[int, ...], loss: Any, samples: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Of random numbers that fit."""
    inputs = torch.randn(samples, *shape)
    size = model.cpu()(inputs).shape[1]
    targets = torch.randint(size, (samples,)) if isinstance(loss, nn.CrossEntropyLoss) else torch.randn(samples, size)
    return inputs.to(device), targets.to(device)


def compare(loop: Loop, inputs: Tensor, targets: Tensor) -> bool:
    """Whether loss, gradients and the random numbers drawn are those of autograd."""
    module, loss = copy.deepcopy(loop.module), copy.deepcopy(loop.loss)
    seed = torch.get_rng_state()
    loop.hands.clear()
    ours = loop.hands.derive(loop, inputs, targets)
    drawn = torch.get_rng_state()
    torch.set_rng_state(seed)
    module.zero_grad()
    theirs = loss(module(inputs), targets)
    theirs.backward()
    pairs = [(ours, theirs.detach()), (drawn, torch.get_rng_state())]
    pairs += [(one.grad, two.grad) for one, two in zip(loop.module.parameters(), module.parameters(), strict=True)]  # type: ignore[misc]
    return all(torch.equal(one, two) or bool(one.isnan().all() and two.isnan().all()) for one, two in pairs)
