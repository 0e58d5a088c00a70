"""Vanishing, exploding and dead layers are named, in nets that have them; the catalog's models have none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Recipe, Sampled, Trainer
from engine.execution import sampled
from engine.health import findings, kind, words

Data = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STEPS": 1, "SECONDS": 0.0, "SHARE": math.inf, "SETTLE": 1}.items():
        monkeypatch.setattr(sampled, name, value)


def deep(activation: type[nn.Module], depth: int = 10, width: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(64, width), activation(), *hidden, nn.Linear(width, 10))


def found(digits: Data, model: nn.Module, lr: float = 1e-3, **plan: Any) -> dict[str, tuple[str, ...]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    data = digits[0][:128], digits[1][:128]
    trainer = Trainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        train=data,
        epochs=8,
        device="cpu",
        execution="eager",
        **plan,
    )
    trainer.fit()
    return {one.kind: one.layers for one in findings(trainer.history.samples)}


def test_a_deep_net_of_sigmoids_vanishes(digits: Data) -> None:
    seen = found(digits, deep(nn.Sigmoid))
    assert set(seen) == {"vanishing"} and seen["vanishing"][0] == "0" and "22" not in seen["vanishing"]
    assert not found(digits, deep(nn.Sigmoid, depth=1))


def test_a_net_with_large_weights_explodes(digits: Data) -> None:
    model = deep(nn.ReLU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    assert "0" in found(digits, model, lr=1e-9)["exploding"]  # by its gradient alone: such steps change nothing


def test_dead_relus_are_named(digits: Data) -> None:
    model = deep(nn.ReLU, depth=1)
    with torch.no_grad():
        model[2].bias[:16] = -100.0
    assert found(digits, model) == {"dead": ("2",)}
    with torch.no_grad():
        model[2].bias[:] = -100.0
    assert found(digits, model) == {"dead": ("0", "2")}  # and nothing reaches the layer before it


def test_a_healthy_net_is_not_named(digits: Data) -> None:
    assert not found(digits, deep(nn.ReLU, depth=2), lr=0.05)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "vit", "rnn", "transformer", "autoencoder"])
def test_the_models_of_the_catalog_are_not_named(name: str) -> None:
    changes = {"model.name": name, "training.max_steps": 12, "training.execution": "eager", "training.validate_every": 100}
    if name in ("cnn", "resnet", "vit"):
        changes |= {"data.images": True}
    if name == "autoencoder":
        changes |= {"data.reconstruct": True, "loss.name": "MSELoss"}
    trainer = Trainer.from_recipe(Recipe().replace(**changes), runs=None)
    trainer.fit()
    samples = trainer.history.samples
    assert samples and not [sample for sample in samples for i in range(len(sample.layers)) if kind(sample, i)]


def sample(**columns: Any) -> Sampled:
    usual = {
        "layers": ("a", "b", "c"), "kinds": ("Linear",) * 3, "sizes": (100,) * 3, "gradient": (1.0, 1.0, 1.0),
        "weight": (1.0,) * 3, "ratio": (1e-3,) * 3, "silent": (0.0,) * 3,
    }  # fmt: skip
    return Sampled(step=1, each=1.0, seconds={}, whole=False, cost=0.0, **{**usual, **columns})


def test_only_what_lasts_is_named() -> None:
    ill, well = sample(silent=(0.0, 0.5, 0.0)), sample()
    assert not findings([ill, ill]) and not findings([ill, well, ill])
    assert [one.kind for one in findings([well, ill, ill, ill])] == ["dead"]


def test_thresholds_and_words() -> None:
    assert [words(sample(silent=(0.39, 0.4, 0.9)), i) for i in range(3)] == ["39% silent", "40% dead", "90% silent"]
    assert [words(sample(ratio=(0.11, 0.09, 1e-7)), i) for i in range(3)] == ["exploding", "large steps", "hardly moves"]
    assert [kind(sample(gradient=(0.9e-4, 1.1e-4, 1.0)), i) for i in range(3)] == ["vanishing", "", ""]
    assert kind(sample(gradient=(math.inf, 1.0, 1.0)), 0) == kind(sample(gradient=(math.nan, 1.0, 1.0)), 0) == "exploding"
    embedding = sample(gradient=(math.nan, 1e-9, 1.0), silent=(math.nan, math.nan, 0.0))
    assert [words(embedding, i) for i in range(3)] == ["no gradient", "", ""]
