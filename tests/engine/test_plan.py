"""What a plan can add around the loop: precision, clipping, averages, budgets, validation on the way, steps left out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import EpochEnded, RunStarted, Trained, Trainer, Validated
from engine.data.order import order
from tests.engine import plain
from tests.engine.small import Data, parts, some


def test_clip_value_is_that_of_torch(digits: Data) -> None:
    data = some(digits, 32)
    given, twin = parts(lr=1.0), parts(lr=1.0)
    Trainer(**given, train=data, clip_value=1e-3, epochs=1).fit()
    twin["loss"](twin["model"](data[0]), data[1]).backward()
    nn.utils.clip_grad_value_(twin["model"].parameters(), 1e-3)
    twin["optimizer"].step()
    for name, value in given["model"].state_dict().items():
        torch.testing.assert_close(value, twin["model"].state_dict()[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_b4_the_logged_norm_is_the_one_before_clipping(digits: Data, clip: float | None) -> None:
    data = some(digits, 32)
    given, twin = parts(), parts()
    trainer = Trainer(**given, train=data, clip_norm=clip, gradient_norm=True, epochs=1)
    norms: list[float] = []
    trainer.on(Trained, lambda event: norms.extend(event.norm))
    trainer.fit()
    twin["loss"](twin["model"](data[0]), data[1]).backward()
    expected = math.sqrt(sum(float(p.grad.double().square().sum()) for p in twin["model"].parameters()))
    assert norms == [pytest.approx(expected, rel=1e-5)]


def test_b5_an_infinite_gradient_never_reaches_the_weights(digits: Data) -> None:
    given = parts()
    calls = 0

    def loss(output: Tensor, wanted: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = nn.functional.cross_entropy(output, wanted)
        return value + (torch.sqrt(output.sum() * 0) if calls == 3 else 0.0)  # finite, with an infinite slope

    trainer = Trainer(**given | {"loss": loss}, train=some(digits, 96), epochs=5)
    result = trainer.fit()
    assert result.state == "failed" and "gradient" in result.reason and "step 3" in result.reason
    assert "epoch 1, batch 3, samples " in result.reason
    assert all(bool(value.isfinite().all()) for value in given["model"].state_dict().values())


def test_b5_such_steps_are_left_out_where_the_recipe_says_so(digits: Data) -> None:
    given, twin = parts(), parts()
    data = some(digits, 96)
    calls = 0

    def loss(output: Tensor, wanted: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = nn.functional.cross_entropy(output, wanted)
        return value * math.nan if calls == 2 else value

    trainer = Trainer(**given | {"loss": loss}, train=data, epochs=1, non_finite="skip")
    notes: list[tuple[str, ...]] = []
    trainer.on(EpochEnded, lambda event: notes.append(event.notes))
    assert trainer.fit().state == "finished" and trainer.step == 2
    assert notes == [("1 steps left out",)]
    indices = order(96, 0, 1, True)
    for window in (indices[:32], indices[64:]):
        twin["optimizer"].zero_grad()
        twin["loss"](twin["model"](digits[0][window]), digits[1][window]).backward()
        twin["optimizer"].step()
    assert plain.same(given["model"].state_dict(), twin["model"].state_dict())


def test_b2_an_fp16_overflow_is_no_step(digits: Data) -> None:
    given = parts(lr=0.01)
    data = some(digits, 96)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(given["optimizer"], 0.1, total_steps=30)
    trainer = Trainer(**given, train=data, scheduler=scheduler, precision="fp16", epochs=2)
    assert trainer.loop.scaler is not None
    trainer.loop.scaler.load_state_dict({**trainer.loop.scaler.state_dict(), "scale": 2.0**40})  # overflows at once
    before = {name: value.clone() for name, value in given["model"].state_dict().items()}
    taken = 0

    def stepping(*_: Any) -> None:  # torch's scaler calls the optimizer only where nothing overflowed
        nonlocal taken
        taken += 1
        if taken == 1:
            assert plain.same(given["model"].state_dict(), before)

    given["optimizer"].register_step_pre_hook(stepping)
    notes: list[str] = []
    trainer.on(EpochEnded, lambda event: notes.extend(event.notes))
    trainer.fit()
    refused = 6 - taken
    assert refused >= 1 and trainer.step == taken and notes
    assert scheduler.last_epoch == taken
    assert trainer.loop.scaler.get_scale() == 2.0**40 / 2**refused


def test_b1_fp16_gradients_are_clipped_unscaled(digits: Data) -> None:
    data = some(digits, 32)
    trainer = Trainer(**parts(), train=data, precision="fp16", clip_norm=0.5, epochs=1)
    norms: list[float] = []
    trainer.on(Trained, lambda event: norms.extend(event.norm))
    trainer.fit()
    twin = parts()
    twin["loss"](twin["model"](data[0]), data[1]).backward()
    expected = float(nn.utils.get_total_norm([p.grad for p in twin["model"].parameters()]))
    assert norms == [pytest.approx(expected, rel=0.02)]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "tf32", "float32"])
def test_each_precision_learns(digits: Data, precision: str) -> None:
    data = some(digits, 640)
    result = Trainer(**parts(lr=0.5), train=data, validation=data, precision=precision, epochs=8).fit()
    assert result.history[-1]["val/accuracy"] > 0.85
    assert all(value.dtype == torch.float32 for value in result.model.state_dict().values())


def test_the_average_of_the_weights_is_validated(digits: Data) -> None:
    data = some(digits, 128)
    given, twin = parts(lr=0.5), parts(lr=0.5)
    result = Trainer(**given, train=data, validation=data, ema=0.9, epochs=2).fit()
    average = [p.detach().clone() for p in twin["model"].parameters()]
    steps = 0
    for epoch in (1, 2):
        for window in order(128, 0, epoch, True).split(32):
            twin["optimizer"].zero_grad()
            twin["loss"](twin["model"](digits[0][window]), digits[1][window]).backward()
            twin["optimizer"].step()
            for mean, now in zip(average, twin["model"].parameters(), strict=True):
                mean.copy_(now.detach() if steps == 0 else 0.9 * mean + 0.1 * now.detach())
            steps += 1
    assert result.average is not None
    for mean, ours in zip(average, result.average.parameters(), strict=True):
        torch.testing.assert_close(ours, mean, rtol=0, atol=1e-6)
    expected = twin["loss"](result.average(data[0]), data[1]).item()
    assert result.history[-1]["val/loss"] == pytest.approx(expected, rel=1e-5)


def test_b8_lbfgs_gets_its_closure(digits: Data) -> None:
    data = some(digits, 64)
    given, twin = parts(), parts()
    given["optimizer"] = torch.optim.LBFGS(given["model"].parameters(), lr=0.5, max_iter=5)
    other = torch.optim.LBFGS(twin["model"].parameters(), lr=0.5, max_iter=5)
    losses: list[float] = []
    trainer = Trainer(**given, train=data, epochs=3)
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    trainer.fit()
    expected = []
    for epoch in (1, 2, 3):
        for window in order(64, 0, epoch, True).split(32):

            def closure(window: Tensor = window) -> Tensor:
                other.zero_grad()
                loss: Tensor = twin["loss"](twin["model"](digits[0][window]), digits[1][window])
                loss.backward()
                return loss

            expected.append(other.step(closure).item())  # type: ignore[arg-type,attr-defined]
    assert losses == expected
    assert plain.same(given["model"].state_dict(), twin["model"].state_dict())


def test_a_budget_of_steps_replaces_the_epochs(digits: Data) -> None:
    trainer = Trainer(**parts(), train=some(digits, 320), validation=some(digits, 32), max_steps=25)
    result = trainer.fit()
    assert (result.state, trainer.step) == ("finished", 25) and "25 steps" in result.reason
    assert [row["epoch"] for row in result.history] == [1, 2, 3] and "val/loss" in result.history[-1]


def test_d8_an_endless_loader_with_a_budget(digits: Data) -> None:
    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield digits[0][:16], digits[1][:16]

    trainer = Trainer(**parts(), train=Endless(), max_steps=17)
    assert trainer.fit().state == "finished" and trainer.step == 17


def test_a_budget_of_minutes(digits: Data) -> None:
    result = Trainer(**parts(), train=some(digits, 320), max_minutes=0.005, epochs=1_000_000, execution="eager").fit()
    assert result.state == "finished" and "minutes" in result.reason


def test_validation_every_so_many_steps_and_epochs(digits: Data) -> None:
    data = some(digits, 320)
    given, twin = parts(), parts()
    trainer = Trainer(**given, train=data, validation=data, validate_steps=4, validate_every=2, epochs=3)
    steps: list[int] = []
    trainer.on(Validated, lambda event: steps.append(event.step))
    result = trainer.fit()
    assert steps == [4, 8, 12, 16, 20, 24, 28]
    assert ["val/loss" in row for row in result.history] == [False, True, True]
    Trainer(**twin, train=data, epochs=3).fit()
    assert plain.same(given["model"].state_dict(), twin["model"].state_dict())


def test_deterministic_is_put_back(digits: Data) -> None:
    seen: list[bool] = []
    trainer = Trainer(**parts(), train=some(digits, 32), deterministic=True, epochs=1)
    trainer.on(RunStarted, lambda event: seen.append(torch.are_deterministic_algorithms_enabled()))
    trainer.fit()
    assert seen == [True] and not torch.are_deterministic_algorithms_enabled()


def test_a10_no_graph_is_kept(digits: Data) -> None:
    """Memory is flat: as many tensors after many steps as after few."""
    import gc

    counts: list[int] = []

    def look(event: EpochEnded) -> None:
        if event.epoch not in (5, 40):
            return
        gc.collect()
        counts.append(sum(issubclass(type(item), Tensor) for item in gc.get_objects()))

    trainer = Trainer(**parts(), train=some(digits, 64), batch_size=4, epochs=40)
    trainer.on(EpochEnded, look)
    trainer.fit()
    assert counts[1] <= counts[0] + 2
