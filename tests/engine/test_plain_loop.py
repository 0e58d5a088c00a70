"""Promise 1: on the CPU, eager, the run is the tutorial's loop to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from engine import Recipe, Trained, Trainer
from engine.models import MODELS
from tests.engine import plain

LOSSES = {"classification": nn.CrossEntropyLoss, "regression": nn.MSELoss}

CASES = [
    ("digits", {}, "mlp", {"hidden": [32], "dropout": 0.2}, "Adam", {"lr": 1e-3}),
    ("digits", {"images": True}, "cnn", {}, "SGD", {"lr": 0.05, "momentum": 0.9}),
    ("digits", {"images": True}, "rnn", {"hidden": 16}, "RMSprop", {"lr": 1e-3}),
    ("diabetes", {}, "mlp", {"hidden": [16], "batch_norm": True}, "AdamW", {"lr": 1e-2}),
    ("iris", {}, "linear", {}, "Adagrad", {"lr": 0.1}),
]


@pytest.mark.parametrize(("data", "source", "model", "arguments", "optimizer", "rates"), CASES)
def test_losses_and_weights_are_bit_identical(
    data: str, source: dict[str, Any], model: str, arguments: dict[str, Any], optimizer: str, rates: dict[str, Any]
) -> None:
    task = "regression" if data == "diabetes" else "classification"
    seed, epochs = 7, 3
    recipe = Recipe.from_dict(
        {
            "name": "plain",
            "seed": seed,
            "data": {"name": data, **source},
            "model": {"name": model, **arguments},
            "loss": {"name": LOSSES[task].__name__},
            "optimizer": {"name": optimizer, **rates},
            "training": {"epochs": epochs, "device": "cpu"},
        }
    )
    trainer = Trainer.from_recipe(recipe, runs=None)
    losses: list[float] = []
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    result = trainer.fit()

    train, validation = trainer.parts.train, trainer.parts.validation
    torch.manual_seed(seed)
    twin = MODELS[model](
        input_shape=tuple(train.inputs.shape[1:]),
        output_size=3 if data == "iris" else 1 if task == "regression" else 10,
        **{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()},
    )
    expected, validated = plain.train(
        twin,
        LOSSES[task](),
        getattr(torch.optim, optimizer)(twin.parameters(), **rates),
        (train.inputs, train.targets),
        epochs=epochs,
        seed=seed,
        validation=(validation.inputs, validation.targets),
    )
    assert losses == expected
    assert plain.same(result.model.state_dict(), twin.state_dict())
    assert [row["val/loss"] for row in result.history] == pytest.approx(validated, rel=1e-12)


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_c6_a_schedule_moves_as_in_the_tutorial(unit: str, digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if unit == "step":
            return model, optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=3 * 16)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    data = digits[0][:500], digits[1][:500]
    model, optimizer, scheduler = made()
    trainer = Trainer(
        model=model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, scheduler=scheduler, train=data, epochs=3, device="cpu"
    )
    rates: list[float] = []
    trainer.on(Trained, lambda event: rates.extend(event.lr))
    trainer.fit()

    twin, other, schedule = made()
    expected: list[float] = []
    other.register_step_pre_hook(lambda *_: expected.append(other.param_groups[0]["lr"]))
    plain.train(twin, nn.CrossEntropyLoss(), other, data, epochs=3, **{f"each_{unit}": schedule.step})
    assert rates == expected  # what is logged at a step is what that step used
    assert plain.same(model.state_dict(), twin.state_dict())


def test_validation_changes_neither_order_nor_dropout(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    """D4."""
    weights = []
    for validation in (None, (digits[0][1400:], digits[1][1400:])):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(64, 16), nn.Dropout(0.5), nn.Linear(16, 10), _NoisyAlways())
        optimizer = torch.optim.Adam(model.parameters())
        Trainer(
            model=model,
            loss=nn.CrossEntropyLoss(),
            optimizer=optimizer,
            train=(digits[0][:300], digits[1][:300]),
            validation=validation,
            epochs=3,
            device="cpu",
        ).fit()
        weights.append(model.state_dict())
    assert plain.same(*weights)


class _NoisyAlways(nn.Module):
    """Draws in evaluation mode as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.01 * torch.randn_like(x)
