"""The verdict: what a history says, on histories written by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from engine import Trainer
from engine.changes import parse_change
from engine.events import EpochEnded, Progress, RunEnded, RunStarted, Sampled, SettingChanged, Trained
from engine.history import History
from engine.verdict import verdict

EACH = 20  # steps an epoch

STARTED = RunStarted(
    name="run", path=None, device="cpu", device_name="", precision="float32", execution="eager", epochs=50,
    steps_per_epoch=EACH, total_steps=50 * EACH, parameters=1, step=0, epoch=0, monitor="val/loss", mode="min",
)  # fmt: skip
PROGRESS = Progress(
    phase="train", step=5, epoch=1, batch=5, batches=EACH, loss=1.0, lr=1e-3, steps_per_second=1.0, samples_per_second=1.0,
    elapsed=5.0, left=5.0,
)  # fmt: skip


def history(train: Sequence[float], val: Sequence[float] = (), noise: float = 0.02, edit: int | None = None) -> History:
    """A run with these losses at the end of its epochs; the steps between lie on the line, with noise. `edit`: the epoch
    after which the learning rate was changed."""
    draw = random.Random(0)
    made = History()
    made.apply(STARTED)
    before = train[0] * 1.2 if train else 0.0
    for epoch, loss in enumerate(train, 1):
        first = (epoch - 1) * EACH + 1
        losses = tuple((before + (loss - before) * k / EACH) * (1 + draw.gauss(0, noise)) for k in range(EACH))
        made.apply(
            Trained(epoch=epoch, first=first, step=epoch * EACH, every=1, loss=losses, low=(), high=(), lr=(1e-3,) * EACH)
        )
        metrics = {"train/loss": loss, **({"val/loss": val[epoch - 1]} if val else {})}
        made.apply(EpochEnded(epoch=epoch, step=epoch * EACH, metrics=metrics, lr=1e-3, seconds=1.0, best=False))
        if epoch == edit:
            made.apply(SettingChanged(step=epoch * EACH, field="optimizer.lr", before=1e-3, value=5e-4))
        before = loss
    return made


def falling(epochs: int, low: float = 0.3, rate: float = 0.35) -> list[float]:
    return [low + 2 * math.exp(-rate * epoch) for epoch in range(epochs)]


def said(made: History) -> str:
    found = verdict(made)
    return "" if found is None else f"{found.kind}: {found.text}"


def test_silent_where_there_is_nothing_to_say() -> None:
    assert verdict(History()) is None
    assert verdict(history([2.0])) is None
    started = History()
    started.apply(STARTED)
    started.apply(PROGRESS)
    assert verdict(started) is None


def test_improving() -> None:
    val = [loss + 0.1 for loss in falling(5)]
    text = said(history(falling(5), val))
    share = round((val[-1] / val[-4] - 1) * 100)
    assert text == f"improving: still improving: val loss {share:+d}% in 3 epochs"
    assert "train loss" in said(history(falling(5)))


def test_overfitting_names_the_epoch() -> None:
    val = [1.5, 1.0, 0.7, 0.5, 0.52, 0.55, 0.56, 0.6]
    text = said(history(falling(8), val))
    assert text.startswith("overfitting: overfitting since epoch 4: val loss +20% from 0.5, train loss -")


def test_a_loss_that_multiplied_is_no_percentage() -> None:
    text = said(history(falling(8), [1.5, 0.5, 0.7, 2.0, 4.0, 8.0, 9.0, 10.0]))
    assert "since epoch 2: val loss 20 times 0.5, train loss -" in text


@pytest.mark.parametrize("val", [[1.5, 1.0, 0.7, 0.5, 0.506, 0.503, 0.507, 0.502], [1.5, 1.0, 0.7, 0.5, 0.9, 0.6, 0.55, 0.49]])
def test_noise_is_not_overfitting(val: list[float]) -> None:
    assert "overfitting" not in said(history(falling(8), val))


def test_both_losses_rising_is_not_overfitting() -> None:
    train = [1.0, 0.8, 0.7, 0.8, 0.9, 1.0, 1.1]
    assert "overfitting" not in said(history(train, [loss + 0.1 for loss in train]))


def test_plateau_counts_from_the_last_change_of_the_rate() -> None:
    train = [*falling(8, rate=0.9), *[0.302, 0.3015, 0.301, 0.3012, 0.3011, 0.301, 0.3009]]
    val = [loss + 0.05 for loss in train]
    assert said(history(train, val)) == "plateau: plateau: val loss 0.3509 has gained 0.3% in 6 epochs"
    assert said(history(train, val, edit=12)) == "", "too few epochs since then"


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_a_loss_that_is_no_number_any_more_has_diverged(lost: float) -> None:
    made = history(falling(4))
    for step, loss in enumerate((lost, lost, 1.0, lost, lost), 4 * EACH + 1):
        made.apply(Trained(epoch=5, first=step, step=step, every=1, loss=(loss,), low=(), high=(), lr=(1e-3,)))
    assert "diverg" not in said(made), "steps that were skipped"
    made.apply(Trained(epoch=5, first=86, step=86, every=1, loss=(lost,), low=(), high=(), lr=(1e-3,)))
    assert said(made) == f"diverging: diverged: train loss has been {lost:g} since step 84"


def test_diverging() -> None:
    text = said(history([*falling(5), 0.9, 2.0]))
    assert text.startswith("diverging: diverging: train loss was down to 0.")
    assert "diverging" not in said(history([*falling(5), *falling(3, low=0.29)[1:]], noise=0.3)), "noise, and a bump that falls"


def test_a_run_that_ended_with_nan() -> None:
    made = history(falling(3))
    made.apply(RunEnded(state="failed", reason="the loss is NaN at step 71", epoch=4, step=70, seconds=4.0, best={}))
    assert said(made) == "diverging: diverged: the loss is NaN at step 71"


def test_too_high_from_the_start_and_swinging() -> None:
    assert said(history([3.0, 9.0, 40.0])).startswith("too high: learning rate too high: train loss ")
    assert said(history([1.0, 1.3, 0.9, 1.25, 0.95, 1.2, 1.0], noise=0.0)).startswith(
        "too high: learning rate too high: train loss swings by "
    )
    settled = [1e-4, 1.3e-4, 0.9e-4, 1.25e-4, 0.95e-4, 1.2e-4, 1e-4]
    assert "too high" in said(history(settled, noise=0.0))
    assert "too high" not in said(history([2.3, 0.2, *settled], noise=0.0)), "that is nothing beside what it has fallen"


def test_too_low() -> None:
    train = [2.3 * 0.99**epoch for epoch in range(6)]
    text = said(history(train))
    assert text == "too low: learning rate too low: train loss -1.0% an epoch, and no slower than at the beginning"
    slowing = [2.3 - 0.02 * epoch**0.5 for epoch in range(6)]
    assert "too low" not in said(history(slowing)), "it slows down: that is an end, not a beginning"


@pytest.mark.parametrize(("waited", "kind"), [(0.5, "waiting"), (0.1, ""), (None, "")])
def test_waiting_for_data(waited: float | None, kind: str) -> None:
    made = history([2.0])
    made.apply(replace(PROGRESS, waited=waited))
    assert said(made).partition(":")[0] == kind


SAMPLE = Sampled(
    step=5, each=0.01, seconds={"data": 0.0031, "forward": 0.0069}, whole=False, cost=0.0, layers=("a", "b", "c"),
    kinds=("Linear",) * 3, sizes=(10,) * 3, gradient=(1.0,) * 3, weight=(1.0,) * 3, ratio=(1e-3,) * 3, silent=(0.0,) * 3,
)  # fmt: skip


def test_the_share_of_a_step_that_waits_for_data_and_the_workers_to_try() -> None:
    made = history([2.0])
    made.apply(SAMPLE)
    for workers in (4, None):
        made.apply(replace(PROGRESS, waited=0.9, workers=workers))  # of the last quarter of a second
        found = verdict(made)
        assert found is not None and found.kind == "waiting" and found.recipe == ({"data.workers": 4} if workers else {})
        assert found.text == "31% of each step waits for data" + (": try workers 4" if workers else "")
    made.apply(replace(PROGRESS, waited=None))
    found = verdict(made)
    assert found is not None and not found.recipe and "in memory" in found.why
    made.apply(replace(SAMPLE, seconds={"data": 0.001, "forward": 0.009}))
    made.apply(replace(SAMPLE, seconds={"data": 0.001, "forward": 0.009}))
    assert verdict(made) is None


ILL: dict[str, tuple[dict[str, Any], str, str]] = {
    "dead": ({"silent": (0.0, 0.55, 0.0)}, "dead units in b: 55% had no gradient in any of the last batches", "lr=x0.3"),
    "exploding": ({"ratio": (0.2, 1e-3, 0.3)}, "exploding: a step changes a, c by 30% of its norm at most", "clip_norm=1"),
    "vanishing": (
        {"gradient": (1e-6, 1e-5, 1.0)}, "vanishing gradient in a, b: 1e-06 of a later layer's, per weight", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ILL)
def test_layers_that_are_ill(kind: str) -> None:
    columns, text, change = ILL[kind]
    made = history([2.0, 1.0, 0.5])
    for _ in range(3):
        made.apply(replace(SAMPLE, seconds={}, **columns))
    found = verdict(made)
    assert found is not None and (found.kind, found.text, found.change) == (kind, text, change)
    assert not change or parse_change(change)
    made.apply(replace(SAMPLE, seconds={}))
    assert "still improving" in said(made)


MAKERS: list[Callable[[], History]] = [
    lambda: history([math.nan] * 9, [math.nan] * 9),
    lambda: history([0.0] * 9, [0.0] * 9),
    lambda: history([-1.0 - 0.1 * epoch for epoch in range(9)]),
    lambda: history([math.inf, 1.0, math.inf, 1.0, math.inf, 1.0, math.inf]),
]


@pytest.mark.parametrize("make", MAKERS)
def test_odd_numbers_are_no_error(make: Callable[[], History]) -> None:
    verdict(make())


def test_every_change_can_be_made() -> None:
    found = [verdict(history([3.0, 9.0, 40.0])), verdict(history([2.3 * 0.99**epoch for epoch in range(6)]))]
    assert all(item is not None and parse_change(item.change).times for item in found)


class Slow(torch.utils.data.Dataset):
    """Loads far longer than a step takes."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.clock.sleep(0.005)
        return torch.zeros(2), torch.tensor(index % 2)


@pytest.mark.parametrize("slow", [True, False])
def test_a_real_run_knows_what_it_waited_for(slow: bool, clock: Any) -> None:
    net = nn.Linear(2, 2)
    trainer = Trainer(
        model=net,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        train=Slow(clock) if slow else (torch.zeros(64, 2), torch.arange(64) % 2),
        epochs=1,
        device="cpu",
    )
    waited: list[float | None] = []
    trainer.on(Progress, lambda event: waited.append(event.waited))
    trainer.fit()
    assert waited[-1] == (1.0 if slow else None)
