"""The schedules of recipes against torch's own schedulers stepped by hand, and against themselves after a resume."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler as torchs

from engine import catalog
from engine.parts.schedule import Schedule
from engine.parts.schedules import build_schedule
from engine.parts.state_dicts import load_optimizer, pack, pack_optimizer, unpack
from engine.recipe import Component

LR = 0.1
EPOCHS, STEPS = 6, 24
NEEDED: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9},
    "ReduceLROnPlateau": {"patience": 1, "cooldown": 1, "factor": 0.5},
    "chain": {"chain": [{"name": "LinearLR", "length": 2}, {"name": "OneCycleLR", "length": 3}, {"name": "CosineAnnealingLR"}]},
}
NAMES = [entry.name for entry in catalog.entries("scheduler") if not entry.refusal]


def sgd(*rates: float) -> tuple[nn.Module, optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.ModuleList(nn.Linear(2, 1) for _ in rates or (LR,))
    groups = [{"params": list(layer.parameters()), "lr": rate} for layer, rate in zip(model, rates or (LR,), strict=True)]
    return model, optim.SGD(groups, lr=LR, momentum=0.9)


def built(
    optimizer: optim.Optimizer, name: str, *, epochs: int = EPOCHS, steps: int | None = STEPS, **arguments: Any
) -> Schedule:
    component = Component(name, {**NEEDED.get(name, {}), **arguments})
    return build_schedule(component, optimizer, epochs=epochs, steps=steps, mode="min")


def metric(epoch: int) -> float:
    return [1.0, 0.9, 0.95, 0.97, 0.96, 0.99, float("nan"), 1.0, 0.5, 1.0, 1.0][epoch % 11]


def trained(model: nn.Module, optimizer: optim.Optimizer) -> None:
    loss = sum((layer(torch.ones(1, 2)).square().sum() for layer in model), torch.zeros(()))  # type: ignore[operator]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def rates(
    model: nn.Module,
    optimizer: optim.Optimizer,
    schedule: Schedule,
    steps: range = range(STEPS),
    per_epoch: int = STEPS // EPOCHS,
    key: str = "lr",
) -> list[tuple[float, ...]]:
    """What each step used, as the trainer has it: the schedule moves after the step, and after the epoch."""
    used = []
    for step in steps:
        used.append(tuple(group[key] for group in optimizer.param_groups))
        trained(model, optimizer)
        schedule.after_step()
        if (step + 1) % per_epoch == 0:
            schedule.after_epoch(metric(step // per_epoch))
    return used


def by_hand(
    make: Callable[[optim.Optimizer], Any], units: int, *, key: str = "lr", groups: tuple[float, ...] = ()
) -> list[tuple[float, ...]]:
    """The rates of the first `units` of a scheduler of torch's."""
    model, optimizer = sgd(*groups)
    scheduler = make(optimizer)
    used = []
    for _ in range(units):
        used.append(tuple(group[key] for group in optimizer.param_groups))
        trained(model, optimizer)
        scheduler.step()
    return used


def each(values: list[tuple[float, ...]], times: int) -> list[tuple[float, ...]]:
    return [value for value in values for _ in range(times)]


# As torch's own.


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"ReduceLROnPlateau", "OneCycleLR", "chain", "constant"}))
def test_warm_up_is_torchs_sequence(name: str, unit: str) -> None:
    model, optimizer = sgd()
    schedule = built(optimizer, name, unit=unit, warmup=2, warmup_start=0.1)
    entry = catalog.find("scheduler", name)
    length = STEPS if unit == "step" else EPOCHS
    arguments = {**dict.fromkeys(entry.derived, length - 2), **NEEDED.get(name, {})}

    def make(optimizer: optim.Optimizer) -> Any:
        base = [group["lr"] for group in optimizer.param_groups]
        warm = torchs.LinearLR(optimizer, start_factor=0.1, end_factor=1.0, total_iters=2)
        main = entry.target(optimizer, **arguments)
        if name == "CyclicLR":  # whose constructor leaves the others its own first rate as theirs
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["initial_lr"] = rate
        return torchs.SequentialLR(optimizer, [warm, main], milestones=[2])

    expected = by_hand(make, length)
    found = rates(model, optimizer, schedule)
    assert found == (expected if unit == "step" else each(expected, STEPS // EPOCHS))


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"ReduceLROnPlateau", "chain", "constant"}))
def test_alone_it_is_torchs_own(name: str, unit: str) -> None:
    model, optimizer = sgd()
    schedule = built(optimizer, name, unit=unit)
    entry = catalog.find("scheduler", name)
    length = STEPS if unit == "step" else EPOCHS
    derived = {key: {"lr": LR}.get(source, length) for key, source in entry.derived.items()}
    expected = by_hand(lambda optimizer: entry.target(optimizer, **{**derived, **NEEDED.get(name, {})}), length)
    assert rates(model, optimizer, schedule) == (expected if unit == "step" else each(expected, STEPS // EPOCHS))


def test_a_chain_is_torchs_sequence() -> None:
    model, optimizer = sgd()
    chain = [
        {"name": "LinearLR", "length": 5, "start_factor": 0.1},
        {"name": "StepLR", "length": 7, "step_size": 3},
        {"name": "CosineAnnealingLR", "eta_min": 0.001},
    ]
    schedule = built(optimizer, "chain", chain=chain, unit="step")

    def make(optimizer: optim.Optimizer) -> Any:
        parts = [
            torchs.LinearLR(optimizer, start_factor=0.1, total_iters=5),
            torchs.StepLR(optimizer, 3),
            torchs.CosineAnnealingLR(optimizer, T_max=STEPS - 12, eta_min=0.001),
        ]
        return torchs.SequentialLR(optimizer, parts, milestones=[5, 12])

    assert rates(model, optimizer, schedule) == by_hand(make, STEPS)


def test_a_warm_up_may_come_before_a_chain() -> None:
    model, optimizer = sgd()
    schedule = built(optimizer, "chain", chain=[{"name": "ConstantLR", "factor": 1.0}], warmup=2, warmup_start=0.5)
    assert rates(model, optimizer, schedule) == each([(LR * 0.5,), (LR * 0.75,), *[(LR,)] * 4], 4)


def test_one_cycle_inside_a_chain_takes_its_length() -> None:
    model, optimizer = sgd()
    schedule = built(optimizer, "chain", unit="step", chain=[{"name": "OneCycleLR", "length": 10}, {"name": "constant"}])
    expected = by_hand(lambda optimizer: torchs.OneCycleLR(optimizer, LR, total_steps=10), 10)
    assert rates(model, optimizer, schedule) == [*expected, *[(LR,)] * (STEPS - 10)]
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_constant_is_constant() -> None:
    model, optimizer = sgd()
    assert set(rates(model, optimizer, built(optimizer, "constant"))) == {(LR,)}
    model, optimizer = sgd()
    found = rates(model, optimizer, built(optimizer, "constant", unit="step", warmup=4, warmup_start=0.2))
    assert found == [*by_hand(lambda optimizer: torchs.LinearLR(optimizer, 0.2, 1.0, 4), 4), *[(LR,)] * (STEPS - 4)]


def test_c3_plateau_after_a_warm_up_sees_no_metric_of_it() -> None:
    model, optimizer = sgd()
    found = rates(model, optimizer, built(optimizer, "ReduceLROnPlateau", warmup=2, warmup_start=0.5, patience=0), range(44))
    _, other = sgd()
    plateau = torchs.ReduceLROnPlateau(other, patience=0, cooldown=1, factor=0.5)
    expected = [(LR * 0.5,), (LR * 0.75,)]
    for epoch in range(2, 11):
        expected.append((other.param_groups[0]["lr"],))
        plateau.step(metric(epoch))
    assert found == each(expected, 4)


def test_an_epoch_without_validation_does_not_move_a_plateau_schedule() -> None:
    _, optimizer = sgd()
    schedule = built(optimizer, "ReduceLROnPlateau", patience=0)
    for value in (1.0, None, None, None):
        schedule.after_epoch(value)
    assert optimizer.param_groups[0]["lr"] == LR
    schedule.after_epoch(2.0)
    assert optimizer.param_groups[0]["lr"] == LR / 2


def test_warm_up_in_steps_before_epochs() -> None:
    warm = [rate for (rate,) in by_hand(lambda optimizer: torchs.LinearLR(optimizer, 0.1, 1.0, 6), 6)]

    def halves(units: int) -> list[float]:
        return [rate for (rate,) in by_hand(lambda optimizer: torchs.ExponentialLR(optimizer, 0.5), units)]

    model, optimizer = sgd()
    schedule = built(optimizer, "ExponentialLR", warmup=6, warmup_start=0.1, warmup_unit="step")
    found = [rate for (rate,) in rates(model, optimizer, schedule)]
    main = halves(5)  # the epoch in which the warm-up ends, with its other two steps, is the first
    assert found == [*warm, *[main[0]] * 2, *(rate for rate in main[1:] for _ in range(4))]

    model, optimizer = sgd()  # one that ends with an epoch: the next is the first
    warm = [rate for (rate,) in by_hand(lambda optimizer: torchs.LinearLR(optimizer, 0.1, 1.0, 8), 8)]
    schedule = built(optimizer, "ExponentialLR", warmup=8, warmup_start=0.1, warmup_unit="step")
    found = [rate for (rate,) in rates(model, optimizer, schedule)]
    assert found == [*warm, *(rate for rate in halves(4) for _ in range(4))]


def test_cosine_ends_with_the_run_after_a_warm_up_in_either_unit() -> None:
    for options in ({"warmup": 8, "warmup_unit": "step"}, {"warmup": 6, "warmup_unit": "step"}, {"warmup": 2}):
        model, optimizer = sgd()
        rates(model, optimizer, built(optimizer, "CosineAnnealingLR", **options))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    model, optimizer = sgd()
    rates(model, optimizer, built(optimizer, "CosineAnnealingLR", unit="step", warmup=1, warmup_unit="epoch"))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_warm_up_in_epochs_before_steps_is_made_of_steps() -> None:
    model, optimizer = sgd()
    found = rates(model, optimizer, built(optimizer, "constant", unit="step", warmup=2, warmup_unit="epoch", warmup_start=0.5))
    assert found[:8] == by_hand(lambda optimizer: torchs.LinearLR(optimizer, 0.5, 1.0, 8), 8)


# The end, and beyond.


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"chain"}))
def test_c7_a_schedule_of_the_planned_length_holds_at_its_end(name: str, warmup: int) -> None:
    if warmup and name == "OneCycleLR":
        pytest.skip("has no other warm-up")
    model, optimizer = sgd()
    schedule = built(optimizer, name, **({"warmup": warmup} if warmup else {}))
    rates(model, optimizer, schedule)
    at_the_end = optimizer.param_groups[0]["lr"]
    beyond = rates(model, optimizer, schedule, range(STEPS, 3 * STEPS))
    if catalog.find("scheduler", name).derived:
        assert set(beyond) == {(at_the_end,)}


def test_c7_a_resume_for_more_epochs_keeps_the_planned_length() -> None:
    model, optimizer = sgd()
    schedule = built(optimizer, "CosineAnnealingLR", warmup=1)
    rates(model, optimizer, schedule, range(10))
    held = copy.deepcopy(schedule.state_dict()), copy.deepcopy(optimizer.state_dict())
    longer, again = sgd()
    resumed = built(again, "CosineAnnealingLR", warmup=1, epochs=3 * EPOCHS, steps=3 * STEPS)
    again.load_state_dict(held[1])
    resumed.load_state_dict(held[0])
    assert rates(longer, again, resumed, range(10, STEPS)) == rates(model, optimizer, schedule, range(10, STEPS))
    assert set(rates(longer, again, resumed, range(STEPS, 3 * STEPS))) == {(again.param_groups[0]["lr"],)}


# Resume.


def variants() -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in NAMES]
    for name in NAMES:
        if name != "OneCycleLR":
            found.append((name, {"warmup": 1}))
            found.append((name, {"warmup": 6, "warmup_unit": "step"}))
        if "unit" in catalog.find("scheduler", name).extras and name != "OneCycleLR":
            found.append((name, {"unit": "step", "warmup": 5}))
    chain = [{"name": "CyclicLR", "length": 5, **NEEDED["CyclicLR"]}, {"name": "ReduceLROnPlateau", "patience": 0}]
    found.append(("chain", {"chain": chain}))
    return found


@pytest.mark.parametrize(("name", "options"), variants())
def test_c1_c5_c8_a_resume_at_any_step_goes_on_exactly(name: str, options: dict[str, Any]) -> None:
    groups = (LR, LR / 4)
    total = 11 * 4
    model, optimizer = sgd(*groups)
    schedule = built(optimizer, name, **options)
    expected, momentum = [], []
    states = []
    for step in range(total):
        tensors: dict[str, Tensor] = {}
        packed = pack_optimizer(optimizer, model, tensors), pack(schedule.state_dict(), tensors, "$schedule")
        states.append((copy.deepcopy(packed), {key: value.clone() for key, value in tensors.items()}))
        momentum.append(optimizer.param_groups[0]["momentum"])
        expected += rates(model, optimizer, schedule, range(step, step + 1))
    if name in ("CyclicLR", "OneCycleLR") and not options:
        assert len(set(momentum)) > 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for at in range(0, total, 3):
            again, other = sgd(*groups)
            resumed = built(other, name, **options)
            (of_optimizer, of_schedule), tensors = states[at]
            load_optimizer(other, again, of_optimizer, tensors)
            resumed.load_state_dict(unpack(of_schedule, tensors))
            assert other.param_groups[0]["momentum"] == momentum[at]
            assert rates(again, other, resumed, range(at, total)) == expected[at:]


# Several groups.


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_groups_keep_their_ratio(name: str, warmup: int) -> None:
    options: dict[str, Any] = {"warmup": warmup} if warmup and name != "OneCycleLR" else {}
    if "eta_min" in {field.key for field in catalog.find("scheduler", name).fields}:
        options["eta_min"] = 0.02
    if name == "ReduceLROnPlateau":
        options["min_lr"] = 0.07
    model, optimizer = sgd(LR, LR / 4, LR * 2)
    schedule = built(optimizer, name, **options)
    for first, second, third in rates(model, optimizer, schedule, range(40)):
        assert second == pytest.approx(first / 4, rel=1e-12) and third == pytest.approx(first * 2, rel=1e-12)
    alone, single = sgd()
    found = rates(alone, single, built(single, name, **options), range(40))
    model, optimizer = sgd(LR, LR / 4, LR * 2)
    both = rates(model, optimizer, built(optimizer, name, **options), range(40))
    assert [first for (first,) in found] == pytest.approx([first for first, _, _ in both], rel=1e-12)
