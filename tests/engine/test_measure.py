"""Metrics, meters, best, pace and packed state, each against an independent reference."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine import metrics
from engine.errors import CheckpointError, RecipeError
from engine.loop import Taken
from engine.measure import LossMeter, counter
from engine.parts.state_dicts import load_model, load_optimizer, pack, pack_optimizer, unpack
from engine.training.best import Best
from engine.training.pace import Pace


def test_metrics_equal_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(103, 5, generator=generator)
    classes = torch.randint(0, 5, (103,), generator=generator)
    numbers = torch.randn(103, 2, generator=generator) * 3 + 1000  # far from zero: where naive sums lose it
    guesses = numbers + torch.randn(103, 2, generator=generator)
    found = {"accuracy": metrics.Accuracy(), "mae": metrics.MAE(), "r2": metrics.R2()}
    for start in range(0, 103, 10):
        part = slice(start, start + 10)
        found["accuracy"].update(logits[part], classes[part])
        found["mae"].update(guesses[part], numbers[part])
        found["r2"].update(guesses[part], numbers[part])
    assert found["accuracy"].compute() == pytest.approx(sklearn.metrics.accuracy_score(classes, logits.argmax(1)))
    assert found["mae"].compute() == pytest.approx(
        sklearn.metrics.mean_absolute_error(numbers.double(), guesses.double()), rel=1e-9
    )
    assert found["r2"].compute() == pytest.approx(sklearn.metrics.r2_score(numbers.double(), guesses.double()), rel=1e-9)


def test_the_usual_metrics_follow_the_tensors() -> None:
    classes, numbers = torch.zeros(4, dtype=torch.int64), torch.zeros(4, 2)
    assert set(metrics.usual(torch.zeros(4, 3), classes)) == {"accuracy"}
    assert set(metrics.usual(torch.zeros(4, 2), numbers)) == {"mae", "r2"}
    assert metrics.usual(torch.zeros(4, 3), numbers) == {}
    assert metrics.usual({"logits": torch.zeros(4, 3)}, classes) == {}


def test_torchmetrics_by_name() -> None:
    found = metrics.named(["F1Score", "accuracy"], "classification", 3, torch.device("cpu"))
    output, targets = torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 2, 1])
    for metric in found.values():
        metric.update(output, targets)
    expected = sklearn.metrics.f1_score(targets, output.argmax(1), average="micro")
    assert float(found["F1Score"].compute()) == pytest.approx(expected)
    with pytest.raises(RecipeError, match="F1Scoer.*'F1Score'"):
        metrics.named(["F1Scoer"], "classification", 3, torch.device("cpu"))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_count_is_what_torch_divides_by(weighted: bool) -> None:
    weight = torch.tensor([1.0, 2.0, 5.0]) if weighted else None
    output, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, -100, 1])
    count = counter(nn.CrossEntropyLoss(weight=weight))(targets)
    mean = nn.CrossEntropyLoss(weight=weight)(output, targets)
    total = nn.CrossEntropyLoss(weight=weight, reduction="sum")(output, targets)
    assert float(mean * count) == pytest.approx(float(total), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60),
    st.integers(1, 7),
    st.lists(st.integers(1, 60), max_size=10),
    st.integers(0, 60),
)
def test_points_do_not_depend_on_when_they_are_read(losses: list[float], every: int, reads: list[int], saved: int) -> None:
    def points(reads: list[int], saved: int | None) -> list[tuple[int, float, float, float, float]]:
        meter, events = LossMeter(every), []
        meter.start_epoch(0)
        for step, loss in enumerate(losses, start=1):
            meter.add(Taken(torch.tensor(loss), 1, 1, 1, step * 0.1))
            if step in reads or step == saved:
                meter.read()
                events.append(meter.take_points(1))
            if step == saved:  # through a checkpoint
                state = json.loads(json.dumps(meter.state_dict()))
                meter = LossMeter()
                meter.load_state_dict(state)
        meter.read()
        meter.end_epoch()
        events.append(meter.take_points(1))
        found = []
        for event in filter(None, events):
            low, high = event.low or event.loss, event.high or event.loss
            for k, values in enumerate(zip(event.loss, low, high, event.lr, strict=True)):
                found.append((min(event.first + (k + 1) * event.every - 1, event.step), *values))
        assert meter.mean == pytest.approx(sum(losses) / len(losses), rel=1e-6, abs=1e-6)
        return found

    expected = points([], None)
    assert points(reads, saved) == expected
    assert [point[0] for point in expected] == [*range(every, len(losses), every), len(losses)]
    assert min(point[2] for point in expected) == min(losses)
    assert max(point[3] for point in expected) == max(losses)


def test_best_knows_its_direction_and_nan() -> None:
    best = Best("x", "max", patience=3, min_delta=0.1)
    seen = [best.update({"epoch": i, "x": value}) for i, value in enumerate([math.nan, 1.0, 1.05, 0.2, math.nan])]
    assert seen == [False, True, True, False, False]
    assert best.row["epoch"] == 2 and best.exhausted  # three epochs in a row gained 0.1 or less
    again = Best("x", "max", patience=3)
    again.load_state_dict(best.state_dict())
    assert not again.update({"epoch": 9, "x": 1.0})


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_best(mode: str, value: float) -> None:
    best = Best("x", mode, patience=2)
    assert [best.update({"x": x}) for x in (value, 1.0, value, value)] == [False, True, False, False]
    assert best.row == {"x": 1.0} and best.exhausted


def test_pace_leaves_pauses_out_and_counts_validation() -> None:
    now = 0.0
    pace = Pace(elapsed=100.0, clock=lambda: now)
    now = 2.0
    pace.took(20, 640)
    assert (pace.steps_per_second, pace.samples_per_second) == (10.0, 320.0)
    now = 52.0
    pace.leave_out(50.0)
    pace.validation_seconds = 3.0
    assert pace.elapsed == 102.0
    assert pace.left(100, 2) == 16.0
    assert pace.left(None, 2) is None


NESTED: list[Any] = [
    {"a": [1, 2.5, None, True, "x"], "b": (0.9, (1, 2))},
    {1: "one", "two": {2.5: ()}},
    Counter({3: 2, 7: 1}),
    {"$tensor": "a user's own key"},
]


@pytest.mark.parametrize("value", NESTED)
def test_what_is_packed_comes_back(value: Any) -> None:
    tensors: dict[str, Tensor] = {}
    packed = json.loads(json.dumps(pack(value, tensors, "at")))
    assert unpack(packed, tensors) == value
    assert type(unpack(packed, tensors)) is type(value)


def test_tensors_are_packed_by_name() -> None:
    tensors: dict[str, Tensor] = {}
    packed = pack({"step": torch.tensor(3.0), "list": [torch.ones(2)]}, tensors, "layer")
    assert set(tensors) == {"layer/step", "layer/list/0"}
    assert torch.equal(unpack(packed, tensors)["list"][0], torch.ones(2))


def test_a_function_is_refused() -> None:
    with pytest.raises(CheckpointError, match="schedule/f holds a function"):
        pack({"f": test_a_function_is_refused}, {}, "schedule")


def test_b9_optimizer_state_is_matched_by_name() -> None:
    def made(reverse: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        parameters = list(model.parameters())
        return model, torch.optim.Adam(parameters[::-1] if reverse else parameters)

    model, optimizer = made(False)
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    tensors: dict[str, Tensor] = {}
    packed = json.loads(json.dumps(pack_optimizer(optimizer, model, tensors)))
    twin, other = made(True)
    load_optimizer(other, twin, packed, tensors)
    names = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(other.state[names[name]]["exp_avg"], optimizer.state[parameter]["exp_avg"])

    stranger = nn.Linear(3, 3)
    with pytest.raises(CheckpointError, match=r"not those of the checkpoint: 0\.bias, 0\.weight"):
        load_optimizer(torch.optim.Adam(stranger.parameters()), stranger, packed, tensors)


def test_e5_a_checkpoint_that_does_not_fit_loads_nothing() -> None:
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    with pytest.raises(
        CheckpointError, match=r"bias is missing; extra is not in the model; weight is \(3, 3\), the model has \(2, 3\)"
    ):
        load_model(model, {"weight": torch.ones(3, 3), "extra": torch.ones(1)})
    with pytest.raises(CheckpointError):
        load_model(model, {"weight": torch.ones(2, 3)})
    assert torch.equal(model.weight, before)
