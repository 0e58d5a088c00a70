"""Every execution trains alike: the compiled step is held to the eager one over 300 steps, and eager to torch's own step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Recipe, Trained, Trainer
from engine.changes import parse_change
from engine.control import Control
from engine.events import Message, SettingChanged, Validated
from engine.execution import whole
from engine.execution.hands import Hands, LeanHands
from engine.models import MODELS
from tests.engine.plain import same
from tests.engine.small import some

Data = tuple[Tensor, Tensor]
TOLERANCE = 1e-3  # of the weights' norm, after 300 steps in which rounding differs
OPTIMIZERS = {
    "Adadelta": {"lr": 0.1},
    "Adagrad": {"lr": 0.01, "lr_decay": 0.01},
    "Adam": {"lr": 1e-3, "weight_decay": 0.01},
    "Adamax": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3, "amsgrad": True},
    "ASGD": {"lr": 0.01},
    "NAdam": {"lr": 1e-3},
    "RAdam": {"lr": 1e-3},
    "RMSprop": {"lr": 1e-3, "momentum": 0.9, "centered": True},
    "Rprop": {"lr": 1e-4},
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
}
QUICK = ("SGD", "Adam")
MODEL_CASES: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"hidden": (32,), "dropout": 0.2, "batch_norm": True},
    "cnn": {},
    "resnet": {},
    "rnn": {"hidden": 8},
    "transformer": {},
    "vit": {},
    "autoencoder": {},
}


def sampled(names: Any, quick: tuple[str, ...]) -> list[Any]:
    """All of them, those that are not quick as slow tests: each compiles for seconds."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def trainer_of(data: Data, model: nn.Module, optimizer: torch.optim.Optimizer, execution: str, **plan: Any) -> Trainer:
    plan = {"loss": nn.CrossEntropyLoss(), "epochs": 10, "seed": 3, "device": "cpu", **plan}
    return Trainer(model=model, optimizer=optimizer, train=data, execution=execution, **plan)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def apart(one: nn.Module, other: nn.Module) -> float:
    return float((weights(one) - weights(other)).norm() / weights(other).norm())


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 10))


@pytest.mark.parametrize("name", sampled(OPTIMIZERS, QUICK))
def test_compiled_trains_as_eager_with_every_optimizer_that_it_admits(name: str, digits: Data) -> None:
    models = {}
    for execution in ("eager", "compiled"):
        model = models[execution] = net()
        optimizer = getattr(torch.optim, name)(model.parameters(), **OPTIMIZERS[name])
        trainer = trainer_of(some(digits, 950), model, optimizer, execution)  # 29 steps of 32 and a tail
        trainer.fit()
        assert trainer.taking == execution
    assert apart(models["compiled"], models["eager"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_CASES)
def test_compiled_trains_as_eager_with_every_kind_of_model(name: str, digits: Data) -> None:
    inputs, targets = some(digits, 960)
    shape: tuple[int, ...] = (64,) if name in ("linear", "mlp", "autoencoder") else (1, 8, 8)
    data = inputs.view(-1, *shape), inputs if name == "autoencoder" else targets
    loss = nn.MSELoss() if name == "autoencoder" else nn.CrossEntropyLoss()
    rate = 1e-4 if name == "vit" else 1e-3  # above it, a ViT multiplies a change in the last bit a millionfold in 100 steps
    losses: dict[str, list[float]] = {}
    for execution in ("eager", "compiled"):
        torch.manual_seed(1)
        model = MODELS[name](input_shape=shape, output_size=64 if name == "autoencoder" else 10, **MODEL_CASES[name])
        trainer = trainer_of(data, model, torch.optim.SGD(model.parameters(), lr=rate), execution, loss=loss)
        seen = losses[execution] = []
        trainer.on(Trained, lambda event, seen=seen: seen.extend(event.loss))
        trainer.fit()
        assert trainer.taking == execution
    assert torch.tensor(losses["compiled"]).allclose(torch.tensor(losses["eager"]), rtol=0.02, atol=1e-3)


def test_live_changes_and_schedules_act_in_the_compiled_step(digits: Data) -> None:
    models = {}
    for execution in ("eager", "compiled"):
        model = models[execution] = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        control = Control()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=300)  # of rate and momentum
        plan = {"scheduler": schedule, "clip_norm": 1.0, "validate_steps": 20, "validation": some(digits, 50), "epochs": 4}
        trainer = trainer_of(some(digits, 640), model, optimizer, execution, control=control, **plan)
        changes = {40: "clip_norm=0.1", 60: "weight_decay=0.1"}
        trainer.on(Validated, lambda event, c=control, w=changes: event.step in w and c.change(parse_change(w[event.step])))
        trainer.fit()
        assert len(trainer.history.settings) == 2
    assert apart(models["compiled"], models["eager"]) < TOLERANCE


def test_a_step_that_is_not_finite_changes_nothing(digits: Data) -> None:
    inputs, targets = some(digits, 320)
    inputs = inputs.clone()
    inputs[100] = torch.nan
    model = net()
    trainer = trainer_of((inputs, targets), model, torch.optim.Adam(model.parameters()), "compiled", non_finite="skip")
    trainer.fit()
    assert trainer.step == 10 * 9
    assert weights(model).isfinite().all()


def test_checkpoints_move_between_executions(digits: Data, tmp_path: Path) -> None:
    ends = []
    for executions in (("eager", "eager"), ("compiled", "eager"), ("eager", "compiled")):
        for epochs, execution in zip((3, 6), executions, strict=True):
            model = net()
            optimizer = torch.optim.Adam(model.parameters())
            run_dir = tmp_path / "-".join(executions)
            trainer_of(some(digits, 640), model, optimizer, execution, epochs=epochs, run_dir=run_dir).fit()
        ends.append(model)
    assert apart(ends[1], ends[0]) < TOLERANCE
    assert apart(ends[2], ends[0]) < TOLERANCE


def test_auto_switches_at_a_recorded_step_and_a_resume_does_the_same(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(whole.REPAID, "compiled", 0.0)
    model = net()
    control = Control()
    trainer = trainer_of(
        some(digits, 640), model, torch.optim.Adam(model.parameters()), "auto", epochs=10**6, run_dir=tmp_path, control=control
    )
    switched: list[SettingChanged] = []
    trainer.on(SettingChanged, switched.append)
    trainer.on(Trained, lambda event: switched and event.step > switched[0].step + 50 and control.stop())
    trainer.fit()
    assert [event.field for event in switched] == ["training.execution"]
    assert trainer.taking == "compiled"

    again = net()
    resumed = trainer_of(some(digits, 640), again, torch.optim.Adam(again.parameters()), "auto", run_dir=tmp_path, epochs=10**6)
    assert resumed.taking == "compiled"


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_lean_hands_heed_what_a_scaler_tells_a_fused_step(name: str) -> None:
    """`found_inf` says that the step must not be taken, `grad_scale` by what the gradients are too large."""
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 40))
    models = one, copy.deepcopy(one)
    rates = {"lr": 0.01, "weight_decay": 0.1, "fused": True, **({"momentum": 0.9} if name == "SGD" else {})}
    optimizers = [getattr(torch.optim, name)(model.parameters(), **rates) for model in models]
    hands = [LeanHands(optimizers[0]), Hands(optimizers[1])]
    told = torch.zeros(())
    for step in range(9):
        x, before = torch.randn(7, 5), copy.deepcopy(one.state_dict())
        told.fill_(float(step in (4, 5)))
        for optimizer, hand, model in zip(optimizers, hands, models, strict=True):
            optimizer.found_inf, optimizer.grad_scale = told, torch.tensor(8.0) if step % 2 else None  # type: ignore[union-attr]
            hand.clear()
            hand.backward(model(x).square().mean() * 8.0)
            hand.update()
        assert same(one.state_dict(), before) == (step in (4, 5))
    assert same(one.state_dict(), models[1].state_dict())
    ours, theirs = (optimizer.state_dict()["state"] for optimizer in optimizers)
    assert all(torch.equal(ours[i][key], theirs[i][key]) for i in theirs for key in theirs[i])


@pytest.mark.parametrize(
    ("name", "why"),
    [("Adafactor", "asks for the value of a norm"), ("Muon", "plain numbers"), ("LBFGS", "evaluates the loss itself")],
)
def test_an_optimizer_that_can_not_be_compiled_is_named_and_trains(
    name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda module: module)
    values = {"data": {"name": "iris"}, "model": {"name": "mlp", "hidden": [8]}, "optimizer": {"name": name}}
    recipe = Recipe.from_dict({**values, "training": {"epochs": 2, "device": "cpu", "execution": "compiled"}})
    trainer, said = Trainer.from_recipe(recipe, runs=None), list[str]()
    trainer.on(Message, lambda event: said.append(event.text))
    history = trainer.fit().history
    assert any(why in text for text in said)
    eager = Trainer.from_recipe(recipe.replace(**{"training.execution": "eager"}), runs=None).fit().history
    assert [row["val/loss"] for row in history] == [row["val/loss"] for row in eager]


def test_what_can_not_be_compiled_is_named_and_trains(digits: Data) -> None:
    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1.0 if x.sum().item() > -1 else 2.0)

    model = Watched(64, 10)
    trainer = trainer_of(some(digits, 96), model, torch.optim.SGD(model.parameters(), lr=0.1), "compiled", epochs=2)
    said: list[str] = []
    trainer.on(Message, lambda event: said.append(event.text))
    assert trainer.fit().state == "finished"
    assert any("can't be compiled" in text for text in said)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"fused": True}, {"foreach": True}, {"amsgrad": True}])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
@pytest.mark.parametrize("width", [8, 2000])
def test_lean_hands_do_what_torchs_step_does_to_the_last_bit(name: str, options: dict[str, Any], width: int) -> None:
    if (name in ("SGD", "RMSprop") and "amsgrad" in options) or (name == "RMSprop" and "fused" in options):
        pytest.skip("no such option")
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 40))
    other = copy.deepcopy(one)
    rates = {"lr": 0.01, **({"momentum": 0.9} if name == "SGD" else {}), **options}
    optimizers = [getattr(torch.optim, name)(model.parameters(), **rates) for model in (one, other)]
    hands = [LeanHands(optimizers[0]), Hands(optimizers[1])]
    for step in range(25):
        x = torch.randn(7, 5)
        for optimizer, hand, model in zip(optimizers, hands, (one, other), strict=True):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            if step == 12:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            hand.clear()
            hand.backward(model(x).square().mean())
            assert hand.finite()
            hand.update()
    assert same(one.state_dict(), other.state_dict())
    ours, theirs = (optimizer.state_dict()["state"] for optimizer in optimizers)
    assert all(torch.equal(ours[i][key], theirs[i][key]) for i in theirs for key in theirs[i])
