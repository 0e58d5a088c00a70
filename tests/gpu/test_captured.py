"""On a GPU: a step that is one CUDA graph trains as the eager one, stops where it must, and goes on after a resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Trained, Trainer
from engine.changes import parse_change
from engine.control import Control
from engine.data.batches import StreamedBatches
from engine.events import Message, SettingChanged, Validated
from engine.execution import whole
from engine.models import MODELS
from tests.engine import plain
from tests.engine.test_execution import OPTIMIZERS as EVERY
from tests.engine.test_execution import apart, weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
NO_CELLS = pytest.mark.real("a host has no fused recurrent cells")
NO_COMPILER = pytest.mark.real("torch's compiler knows no other")
QUICK = ("captured", pytest.param("compiled", marks=NO_COMPILER))
TOLERANCE = 2e-3  # of the weights' norm, after 300 steps in which rounding differs
OPTIMIZERS = {name: options for name, options in EVERY.items() if name != "Adagrad"}  # which counts its steps on the host
MODEL_CASES: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (32,), "dropout": 0.2, "batch_norm": True},
    "cnn": {},
    "resnet": {},
    "rnn": {"hidden": 8},
    "transformer": {},
    "vit": {},
}


def digits(samples: int, shape: tuple[int, ...] = (64,)) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.data[:samples] / 16, dtype=torch.float32).view(-1, *shape), torch.tensor(data.target[:samples])


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10)).cuda()


def trainer_of(model: nn.Module, optimizer: torch.optim.Optimizer, execution: str, **plan: Any) -> Trainer:
    standard = {"train": digits(950), "loss": nn.CrossEntropyLoss(), "epochs": 10, "seed": 3, "device": "cuda"}
    return Trainer(model=model, optimizer=optimizer, execution=execution, **{**standard, **plan})  # 29 steps of 32 and a tail


def ends(optimizer: str, execution: str, **plan: Any) -> tuple[nn.Module, Trainer]:
    model = net()
    trainer = trainer_of(model, getattr(torch.optim, optimizer)(model.parameters(), **OPTIMIZERS[optimizer]), execution, **plan)
    said: list[str] = []
    trainer.on(Message, lambda event: said.append(event.text))
    assert trainer.fit().state == "finished"
    assert trainer.taking == execution, said
    return model, trainer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_captured_trains_as_eager_with_every_optimizer_that_it_admits(name: str) -> None:
    assert apart(ends(name, "captured")[0], ends(name, "eager")[0]) < TOLERANCE


@pytest.mark.parametrize("execution", QUICK)
def test_a_layer_that_is_frozen_for_two_epochs_is_trained_after_them(execution: str) -> None:
    plan: dict[str, Any] = {"epochs": 4, "freeze": ["0.*"], "freeze_epochs": 2}
    assert apart(ends("Adam", execution, **plan)[0], ends("Adam", "eager", **plan)[0]) < TOLERANCE
    assert apart(ends("Adam", execution, **plan)[0], ends("Adam", "eager", epochs=4)[0]) > 0.01
    frozen = ends("Adam", execution, epochs=2, freeze=["0.*"])[0]
    assert plain.same(frozen[0].state_dict(), net()[0].state_dict())  # type: ignore[index]


@NO_COMPILER
@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_compiled_trains_as_eager(name: str) -> None:
    assert apart(ends(name, "compiled")[0], ends(name, "eager")[0]) < TOLERANCE


@NO_COMPILER
def test_a_compiler_takes_no_draws_from_the_training() -> None:
    """Dropout after it is that of eager execution: the losses are the same from the first step on."""
    losses: dict[str, list[float]] = {}
    for execution in ("eager", "compiled"):
        model = net()
        trainer = trainer_of(model, torch.optim.SGD(model.parameters(), lr=0.01), execution, epochs=2)
        seen = losses[execution] = []
        trainer.on(Trained, lambda event, seen=seen: seen.extend(event.loss))
        trainer.fit()
    assert torch.tensor(losses["compiled"]).allclose(torch.tensor(losses["eager"]), rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", [name if name != "rnn" else pytest.param(name, marks=NO_CELLS) for name in MODEL_CASES])
def test_captured_trains_as_eager_with_every_kind_of_model(name: str, precision: str) -> None:
    shape: tuple[int, ...] = (64,) if name == "mlp" else (1, 8, 8)
    losses: dict[str, list[float]] = {}
    for execution in ("eager", "captured"):
        torch.manual_seed(1)
        model = MODELS[name](input_shape=shape, output_size=10, **MODEL_CASES[name]).cuda()
        rate = 1e-4 if name == "vit" else 1e-3
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, fused=True)
        trainer = trainer_of(model, optimizer, execution, train=digits(960, shape), precision=precision)
        seen = losses[execution] = []
        trainer.on(Trained, lambda event, seen=seen: seen.extend(event.loss))
        assert trainer.fit().state == "finished" and trainer.taking == execution
    tolerance = 0.02 if precision == "float32" else 0.05
    assert torch.tensor(losses["captured"]).allclose(torch.tensor(losses["eager"]), rtol=tolerance, atol=1e-2)


@pytest.mark.parametrize("execution", QUICK)
def test_accumulation_averages_and_clipping_are_in_the_graph(execution: str) -> None:
    plan = {"accumulate": 3, "ema": 0.9, "clip_norm": 0.5, "gradient_norm": True}
    (one, ours), (other, theirs) = ends("Adam", execution, **plan), ends("Adam", "eager", **plan)
    assert apart(one, other) < TOLERANCE
    assert ours.loop.average is not None and theirs.loop.average is not None
    assert apart(ours.loop.average, theirs.loop.average) < TOLERANCE
    assert ours.loop.average.n_averaged == theirs.loop.average.n_averaged


@pytest.mark.parametrize("execution", QUICK)
def test_live_changes_and_schedules_act_in_the_graph(execution: str) -> None:
    models = {}
    for way in ("eager", execution):
        model = models[way] = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        control = Control()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=300, cycle_momentum=False)
        plan = {"scheduler": schedule, "clip_norm": 1.0, "validate_steps": 20, "validation": digits(50), "epochs": 4}
        trainer = trainer_of(model, optimizer, way, train=digits(640), control=control, **plan)
        changes = {40: "clip_norm=0.1", 60: "weight_decay=0.1"}
        trainer.on(Validated, lambda event, c=control, w=changes: event.step in w and c.change(parse_change(w[event.step])))
        assert trainer.fit().state == "finished"
        assert len(trainer.history.settings) == 2 and trainer.taking == way
    assert apart(models[execution], models["eager"]) < TOLERANCE


@pytest.mark.parametrize("execution", QUICK)
@pytest.mark.parametrize("optimizer", ["Adam", "RMSprop"])
def test_b5_what_is_not_finite_does_not_reach_the_weights(optimizer: str, execution: str) -> None:
    inputs, targets = digits(950)
    inputs = inputs.clone()
    inputs[100] = torch.nan
    model = net()
    made = getattr(torch.optim, optimizer)(model.parameters(), **OPTIMIZERS[optimizer])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randperm", lambda n, **_: torch.arange(n - 1, -1, -1))
        result = trainer_of(model, made, execution, train=(inputs, targets)).fit()
    assert (result.state == "failed" and "not finite" in result.reason) or "nan" in result.reason
    assert torch.isfinite(weights(model)).all()


@pytest.mark.parametrize("execution", QUICK)
def test_steps_that_are_not_finite_are_left_out(execution: str) -> None:
    inputs, targets = digits(320)
    inputs = inputs.clone()
    inputs[100] = torch.nan
    model = net()
    trainer = trainer_of(
        model, torch.optim.Adam(model.parameters()), execution, train=(inputs, targets), non_finite="skip", non_finite_limit=3
    )
    trainer.fit()
    assert trainer.step == 10 * 9 and trainer.taking == execution
    assert weights(model).isfinite().all()


@pytest.mark.real("the simulation itself stands in the traceback")
def test_a_model_that_looks_at_the_device_is_named_and_trains() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.1), nn.Linear(32, 10))

        def forward(self, inputs: Tensor) -> Tensor:
            return self.inner(inputs) * (1.0 if inputs.sum().item() > -1 else 2.0)

    model = Looks().cuda()
    said: list[str] = []
    trainer = trainer_of(model, torch.optim.Adam(model.parameters(), fused=True), "captured")
    trainer.on(Message, lambda event: said.append(event.text))
    assert trainer.fit().state == "finished"
    assert trainer.taking == "eager" and any("can't be captured" in text and "test_captured.py" in text for text in said)
    assert trainer.loop.after_step is None and math.isfinite(trainer.history.epochs[-1].metrics["train/loss"])


def test_streamed_batches_are_copied_to_where_the_graph_looks() -> None:
    models = {}
    for execution in ("eager", "captured"):
        model = models[execution] = net()
        data = StreamedBatches(torch.utils.data.TensorDataset(*digits(950)), batch_size=32, seed=3, device="cuda", workers=2)
        trainer = trainer_of(model, torch.optim.Adam(model.parameters(), fused=True), execution, train=data, epochs=3)
        said: list[str] = []
        trainer.on(Message, lambda event, said=said: said.append(event.text))
        assert trainer.fit().state == "finished" and trainer.taking == execution, said
    assert apart(models["captured"], models["eager"]) < TOLERANCE


def test_what_a_loss_counts_is_counted_on_the_device() -> None:
    ended = []
    for execution in ("eager", "captured"):
        inputs, targets = digits(950)
        loss = nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, 10).cuda(), ignore_index=3)
        _, trainer = ends("SGD", execution, loss=loss, train=(inputs, targets), accumulate=2)
        ended.append([row.metrics["train/loss"] for row in trainer.history.epochs])
    assert ended[1] == pytest.approx(ended[0], rel=1e-3)


@pytest.mark.parametrize("execution", QUICK)
def test_d1_stopped_and_resumed_is_never_stopped(tmp_path: Path, execution: str) -> None:
    ended = []
    for cuts in ((), (40, 100)):
        run_dir = tmp_path / str(len(cuts))
        for steps in (*cuts, None):
            model = net()
            optimizer = torch.optim.Adam(model.parameters(), fused=True)
            plan = {"max_steps": steps, "run_dir": run_dir, "deterministic": True}
            trainer_of(model, optimizer, execution, **plan).fit()
        ended.append(model)
    assert plain.same(ended[0].state_dict(), ended[1].state_dict())


def test_auto_switches_at_recorded_steps_and_a_resume_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(whole.REPAID, "captured", 0.0)
    model = net()
    steps: list[SettingChanged] = []
    trainer = trainer_of(
        model,
        torch.optim.Adam(model.parameters(), fused=True),
        "auto",
        epochs=400,
        run_dir=tmp_path / "run",
        deterministic=True,
    )
    trainer.on(SettingChanged, steps.append)
    trainer.fit()
    assert trainer.taking == "captured" and steps[0].field == "training.execution" and steps[0].step > 0
