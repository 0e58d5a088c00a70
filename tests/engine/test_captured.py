"""A captured step, with a stand-in for the graph: positions, tails, accumulation, averages, live changes; what is undone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Trained, Trainer
from engine.changes import parse_change
from engine.control import Control
from engine.data.batches import StreamedBatches
from engine.events import Validated
from engine.execution import captured, whole
from engine.execution.cuda_graph import StandIn
from tests.engine.plain import same
from tests.engine.small import some

Data = tuple[Tensor, Tensor]
TAKERS = {"captured": captured.Captured, "compiled": captured.CapturedCompiled}
LONG = 1e9  # seconds: as many steps in one as there may be, however slow they are here
TOLERANCE = 1e-3  # of the weights' norm, where rounding differs


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))


def trainer_of(model: nn.Module, optimizer: Any, data: Any, way: str, **plan: Any) -> tuple[Trainer, list[str]]:
    plan = {"loss": nn.CrossEntropyLoss(), "epochs": 5, "seed": 3, "device": "cpu", **plan}
    trainer = Trainer(model=model, optimizer=optimizer, train=data, execution="eager", **plan)
    said: list[str] = []
    if way != "eager":
        taker = TAKERS[way](trainer.loop, torch.device("cpu"), StandIn)
        trainer.whole = whole.Whole(trainer.loop, said.append, [taker])
        trainer.loop.whole = trainer.whole.steps
    return trainer, said


def fitted(way: str, data: Any, optimizer: str = "SGD", **plan: Any) -> Trainer:
    model = net()
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-2)
    trainer, said = trainer_of(model, made, data, way, **plan)
    assert trainer.fit().state == "finished"
    assert trainer.taking == way, said
    return trainer


def apart(one: nn.Module, other: nn.Module) -> float:
    ours, theirs = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in (one, other))
    return float((ours - theirs).norm() / theirs.norm())


PLANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 3},
    "averaged and clipped": {"ema": 0.9, "clip_norm": 0.5, "gradient_norm": True},
    "left out": {"non_finite": "skip"},
}


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop"])
@pytest.mark.parametrize("plan", PLANS)
def test_a_captured_step_is_the_loops_own_to_the_last_bit(
    plan: str, optimizer: str, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """29 batches of 32 and a tail of 22 an epoch; the stand-in runs the operations that a graph would replay."""
    monkeypatch.setattr(whole, "BURST", LONG)
    data, losses, ended = some(digits, 950), {}, {}
    for way in ("eager", "captured"):
        model = net()
        made = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-2)
        trainer, said = trainer_of(model, made, data, way, **PLANS[plan])
        seen = losses[way] = []
        trainer.on(Trained, lambda event, seen=seen: seen.extend(event.loss))
        trainer.fit()
        assert trainer.taking == way, said
        ended[way] = trainer
    one, other = ended["captured"], ended["eager"]
    assert losses["captured"] == losses["eager"]
    assert same(one.parts.model.state_dict(), other.parts.model.state_dict())
    assert [row.metrics["train/loss"] for row in one.history.epochs] == [
        row.metrics["train/loss"] for row in other.history.epochs
    ]
    if one.loop.average is not None and other.loop.average is not None:
        assert apart(one.loop.average, other.loop.average) < 1e-6
        assert one.loop.average.n_averaged == other.loop.average.n_averaged


@pytest.mark.parametrize("way", TAKERS)
def test_several_short_steps_are_launched_as_one(way: str, digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch has 29 whole batches: three times eight, and five. Before that a step is tried, and one is taken alone."""
    monkeypatch.setattr(whole, "BURST", LONG)
    launched: list[int] = []  # steps of each launch
    body = TAKERS[way]._body
    monkeypatch.setattr(TAKERS[way], "_body", lambda taker, steps: launched.append(steps) or body(taker, steps))
    fitted(way, some(digits, 950), epochs=4, clip_norm=0.5)
    launched = launched[2:]  # the warm-up
    assert launched.count(8) == 4 * 3 and launched.count(1) == 4 + 3 * 5


def test_a_compiled_step_may_be_captured(digits: Data) -> None:
    plan = {"accumulate": 2, "ema": 0.9, "epochs": 2}
    one, other = (fitted(way, some(digits, 950), **plan) for way in ("compiled", "eager"))
    assert apart(one.parts.model, other.parts.model) < TOLERANCE
    assert one.loop.average is not None and other.loop.average is not None
    assert apart(one.loop.average, other.loop.average) < TOLERANCE


def test_class_weights_count_in_the_epochs_mean(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "BURST", LONG)
    loss = nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, 10))
    one, other = (fitted(way, some(digits, 950), loss=loss) for way in ("captured", "eager"))
    assert [row.metrics["train/loss"] for row in one.history.epochs] == [
        row.metrics["train/loss"] for row in other.history.epochs
    ]


def test_streamed_batches_are_copied_to_where_the_step_looks(digits: Data) -> None:
    ended = []
    for way in ("captured", "eager"):
        data = StreamedBatches(torch.utils.data.TensorDataset(*some(digits, 950)), batch_size=32, seed=3)
        ended.append(fitted(way, data).parts.model.state_dict())
    assert same(*ended)


def test_live_changes_and_schedules_act(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "BURST", 0.0)  # look at what is asked after each step
    ended = []
    for way in ("captured", "eager"):
        model, control = net(), Control()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.9)
        plan = {"scheduler": schedule, "clip_norm": 1.0, "validate_steps": 20, "validation": some(digits, 50), "epochs": 4}
        trainer, said = trainer_of(model, optimizer, some(digits, 640), way, control=control, **plan)
        changes = {20: "lr=x0.5", 40: "clip_norm=0.1", 60: "weight_decay=0.1"}
        trainer.on(Validated, lambda event, c=control, w=changes: event.step in w and c.change(parse_change(w[event.step])))
        trainer.fit()
        assert len(trainer.history.settings) == 3 and trainer.taking == way, said
        ended.append(model)
    assert apart(*ended) < 1e-6  # the rate is a float32 number on the device


def test_what_is_not_finite_does_not_reach_the_weights(digits: Data) -> None:
    """The guard is on the device: the host learns of it when it reads."""
    inputs, targets = some(digits, 640)
    inputs = inputs.clone()
    inputs[100] = torch.nan
    model = net()
    trainer, said = trainer_of(model, torch.optim.RMSprop(model.parameters()), (inputs, targets), "captured")
    result = trainer.fit()
    assert result.state == "failed" and trainer.taking == "captured", said
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


class Steep(nn.Module):
    """Its gradient is not finite where the first input is above 2, though its output is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.inner(inputs)
        flat = (inputs[:, :1] <= 2).float()
        return output + torch.maximum((output - output.detach()).abs(), flat).sqrt() - flat


def test_a_gradient_that_is_not_finite_ends_the_run_where_it_was(digits: Data) -> None:
    inputs, targets = some(digits, 640)
    inputs = inputs.clone()
    inputs[100, 0] = 3.0
    ends = []
    for way in ("eager", "captured"):
        torch.manual_seed(0)
        model = Steep()
        trainer, said = trainer_of(model, torch.optim.RMSprop(model.parameters()), (inputs, targets), way)
        result = trainer.fit()
        assert result.state == "failed" and trainer.taking == way, said
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
        ends.append(re.findall(r"gradient is not finite .* at step \d+", result.reason))
    assert ends[0] == ends[1] != []


def test_a_capture_that_fails_changes_nothing_and_is_named(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: StandIn, body: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(StandIn, "record", fails)
    model = net()
    trainer, said = trainer_of(model, torch.optim.SGD(model.parameters(), lr=1e-2), some(digits, 950), "captured")
    trainer.fit()
    assert trainer.taking == "eager" and "not permitted" in said[0] and "eagerly" in said[0]
    assert same(model.state_dict(), fitted("eager", some(digits, 950)).parts.model.state_dict())


def test_numbers_that_change_at_each_step_are_left_to_eager(digits: Data) -> None:
    ended = []
    for way in ("captured", "eager"):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=200)  # of rate and momentum
        trainer, _ = trainer_of(model, optimizer, some(digits, 640), way, scheduler=schedule, epochs=4)
        trainer.fit()
        ended.append(model)
    assert apart(*ended) < 1e-6
