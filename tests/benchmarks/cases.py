"""What is trained: the same data, initial weights and optimizer for every contender."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from engine.models import MODELS

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table. The targets are what is asked of each contender, as multiples of the tutorial's step rate."""

    title: str
    make: Callable[[], Data]
    model: Callable[[], nn.Module]
    loss: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[Tensor]], torch.optim.Optimizer]
    batch_size: int
    targets: Mapping[str, float]
    precision: str = "float32"  # of everybody but the tutorial's loop
    plain: str = "float32"  # of the tutorial's loop
    members: int = 1  # trainings that the population trains at once
    device: str = "cpu"
    recipe: Mapping[str, Any] = field(default_factory=dict)  # of a member of the population

    @cached_property
    def data(self) -> Data:
        """All of it, in host memory."""
        return self.make()

    @property
    def steps(self) -> int:
        """An epoch's."""
        return -(-len(self.data[0]) // self.batch_size)

    def begin(self) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
        """Model, loss and optimizer on the device, with the weights that every contender begins with."""
        torch.manual_seed(0)
        model = self.model().to(self.device)
        return model, self.loss(), self.optimizer(model.parameters())

    def loader(self) -> DataLoader:
        """The tutorial's."""
        return DataLoader(TensorDataset(*self.data), self.batch_size, shuffle=True)

    def final_loss(self, model: Any) -> float:
        """Over all data, in evaluation mode and in float32."""
        model.eval()
        total, loss = 0.0, self.loss()
        with torch.no_grad():
            for inputs, targets in zip(*(part.split(self.batch_size) for part in self.data), strict=True):
                total += float(loss(model(inputs.to(self.device)), targets.to(self.device))) * len(inputs)
        return total / len(self.data[0])


def _line() -> Data:
    x = torch.linspace(-1, 1, 256 * 1024)[:, None]  # an epoch lasts long beside what it costs a process to wake up for it
    return x, 2 * x + 1 + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))


def digits(samples: int = 14336, images: bool = False) -> Data:
    """Scikit-learn's, over and over."""
    from sklearn.datasets import load_digits

    data = load_digits()
    times = -(-samples // len(data.target))
    inputs = torch.tensor(data.data / 16, dtype=torch.float32).repeat(times, 1)[:samples]
    return inputs.view(-1, 1, 8, 8) if images else inputs, torch.tensor(data.target).repeat(times)[:samples]


def _random(samples: int, *shape: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, *shape, generator=generator), torch.randint(0, 10, (samples,), generator=generator)


def _text(samples: int, length: int) -> Data:
    """65 characters, each half the time the one that always follows the one before it."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 65, (samples, length + 1), generator=generator)
    follows = torch.rand(samples, length, generator=generator) < 0.5
    for place in range(length):
        tokens[:, place + 1] = torch.where(follows[:, place], (tokens[:, place] * 7 + 3) % 65, tokens[:, place + 1])
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def cases(device: str = "cpu", tiny: bool = False) -> dict[str, Case]:
    """Those that are meant for the device; with `tiny` all of them, so small that they only show that everything runs."""
    made = _on_cpu() | _on_gpu(tiny) if tiny else _on_cpu() if device == "cpu" else _on_gpu()
    return {key: Case(**{**case, "device": device}) for key, case in made.items()}


def _on_cpu() -> dict[str, dict[str, Any]]:
    adam = {"loss": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam}
    return {
        "line": {
            "title": "straight line, `Linear(1, 1)`, SGD, batch 32",
            "make": _line,
            "model": lambda: nn.Linear(1, 1),
            "loss": nn.MSELoss,
            "optimizer": partial(torch.optim.SGD, lr=0.01),
            "batch_size": 32,
            "targets": {"epochal eager": 3, "epochal compiled": 25},
        },
        "mlp": {
            "title": "digits MLP 64-128-10, Adam, batch 32",
            "make": digits,
            "model": _mlp,
            "batch_size": 32,
            "targets": {"epochal eager": 2.5, "epochal compiled": 7},
            **adam,
        },
        "cnn": {
            "title": "digits CNN, Adam, batch 64",
            "make": partial(digits, images=True),
            "model": _cnn,
            "batch_size": 64,
            "targets": {"epochal eager": 1.3, "epochal compiled": 1.9},
            **adam,
        },
        "wide": {
            "title": "wide MLP 784-1024-1024-10, Adam, batch 256",
            "make": partial(_random, 256 * 8, 784),
            "model": lambda: MODELS["mlp"](input_shape=(784,), output_size=10, hidden=(1024, 1024)),
            "batch_size": 256,
            "targets": {"epochal eager": 1.15, "epochal compiled": 1.2},
            **adam,
        },
    }


def _on_gpu(tiny: bool = False) -> dict[str, dict[str, Any]]:
    adam = {"loss": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam}
    samples = 64 if tiny else 28_672
    images, large = (16, 8) if tiny else (20_480, 512)
    texts, context, together = (8, 16, 4) if tiny else (6_400, 256, 64)
    gpt = {"dim": 16, "heads": 2, "layers": 1} if tiny else {"dim": 384, "heads": 6, "layers": 6}
    members = 4 if tiny else 128
    return {
        "digits": {
            "title": "digits MLP 64-128-10, Adam, batch 32",
            "make": partial(digits, samples),
            "model": _mlp,
            "batch_size": 32,
            "targets": {"epochal eager": 1.4, "epochal captured": 18, "epochal compiled": 21},
            **adam,
        },
        "images": {
            "title": "digits CNN, Adam, batch 32",
            "make": partial(digits, samples, images=True),
            "model": _cnn,
            "batch_size": 32,
            "targets": {"epochal eager": 1.2, "epochal captured": 12},
            **adam,
        },
        "resnet18": {
            "title": f"ResNet-18 for 32x32 images, SGD, batch {large}, bf16 (the base float32)",
            "make": partial(_random, images, 3, 32, 32),
            "model": lambda: MODELS["resnet18"](input_shape=(3, 32, 32), output_size=10),
            "loss": nn.CrossEntropyLoss,
            "optimizer": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4),
            "batch_size": large,
            "precision": "bf16",
            "targets": {"epochal eager": 2.8, "epochal captured": 3.8, "epochal compiled": 3.8},
        },
        "gpt": {
            "title": f"character GPT {gpt['layers']}x{gpt['dim']}, context {context}, AdamW, batch {together}, bf16",
            "make": partial(_text, texts, context),
            "model": lambda: MODELS["gpt"](input_shape=(context,), output_size=65, vocabulary=65, **gpt),
            "loss": nn.CrossEntropyLoss,
            "optimizer": partial(torch.optim.AdamW, lr=3e-4),
            "batch_size": together,
            "precision": "bf16",
            "plain": "bf16",
            "targets": {"epochal eager": 1.1, "epochal captured": 1.8, "epochal compiled": 1.8},
        },
        "population": {
            "title": f"{members} digits MLPs 64-128-10, Adam, batch 32, together: steps of a member",
            "make": partial(digits, samples),
            "model": _mlp,
            "batch_size": 32,
            "members": members,
            "recipe": {
                "data": {"name": f"{__file__}:digits", "samples": samples, "validation": 0.0, "batch_size": 32},
                "model": {"name": "mlp", "hidden": [128]},
                "optimizer": {"name": "Adam"},
            },
            "targets": {"epochal population": 500},
            **adam,
        },
    }


def _mlp() -> nn.Module:
    return MODELS["mlp"](input_shape=(64,), output_size=10, hidden=(128,))


def _cnn() -> nn.Module:
    return MODELS["cnn"](input_shape=(1, 8, 8), output_size=10)
