"""The trainer through its public face: control, early stopping, best, NaN, accumulation, events."""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Control, EpochEnded, Event, Message, Progress, RunEnded, RunPaused, RunStarted, Trained, Trainer, Validated
from engine.data.order import order
from tests.engine import plain

Data = tuple[Tensor, Tensor]


def parts(seed: int = 0, lr: float = 0.1) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return {
        "model": model,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=lr),
        "device": "cpu",
    }


def some(digits: Data, count: int) -> Data:
    return digits[0][:count], digits[1][:count]


def test_a1_the_epochs_loss_is_the_mean_over_samples(digits: Data) -> None:
    given = parts(lr=0.0)
    data = some(digits, 10)  # batches of 4, 4 and 2
    row = Trainer(**given, train=data, batch_size=4, epochs=1).fit().history[0]
    assert row["train/loss"] == pytest.approx(given["loss"](given["model"](data[0]), data[1]).item(), rel=1e-6)


def test_a2_metrics_cover_the_whole_validation(digits: Data) -> None:
    given = parts()
    data = some(digits, 70)
    row = Trainer(**given, train=data, validation=data, batch_size=32, epochs=2).fit().history[-1]
    predicted = given["model"](data[0]).argmax(1)
    assert row["val/accuracy"] == pytest.approx((predicted == data[1]).double().mean().item())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(weight=torch.arange(1.0, 11.0)), nn.CrossEntropyLoss(ignore_index=3)])
def test_a3_a4_the_epochs_mean_divides_by_what_counts(digits: Data, loss: nn.Module) -> None:
    given = parts(lr=0.0) | {"loss": loss}
    data = some(digits, 50)
    row = Trainer(**given, train=data, validation=data, batch_size=16, epochs=1).fit().history[0]
    expected = loss(given["model"](data[0]), data[1]).item()
    assert row["train/loss"] == pytest.approx(expected, rel=1e-6)
    assert row["val/loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(ignore_index=3)])
def test_a5_accumulation_gives_the_gradient_of_the_big_batch(digits: Data, loss: nn.Module) -> None:
    data = some(digits, 22)  # windows of 8 + 8 + 6
    weights = []
    for batch_size, accumulate in ((8, 3), (22, 1)):
        given = parts() | {"loss": loss}
        Trainer(**given, train=data, batch_size=batch_size, accumulate=accumulate, epochs=1).fit()
        weights.append(given["model"].state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-6)


def test_a6_a7_a_trailing_window_is_stepped_in_its_epoch(digits: Data) -> None:
    given = parts()
    trainer = Trainer(**given, train=some(digits, 7 * 8), batch_size=8, accumulate=4, epochs=2)
    steps: list[int] = []
    trainer.on(EpochEnded, lambda event: steps.append(event.step))
    trainer.fit()
    assert steps == [2, 4]

    twin = parts()
    reference = {name: value.clone() for name, value in twin["model"].state_dict().items()}
    for epoch in (1, 2):
        indices = order(56, 0, epoch, True)
        for window in (indices[:32], indices[32:]):  # 4 and 3 batches: the second step divides by 3
            loss = twin["loss"](twin["model"](digits[0][window]), digits[1][window])
            twin["optimizer"].zero_grad()
            loss.backward()
            twin["optimizer"].step()
    for name, value in given["model"].state_dict().items():
        assert not torch.equal(value, reference[name])
        torch.testing.assert_close(value, twin["model"].state_dict()[name], rtol=0, atol=1e-6)


def test_a8_an_epoch_shorter_than_the_window_makes_one_step(digits: Data) -> None:
    trainer = Trainer(**parts(), train=some(digits, 10), batch_size=8, accumulate=5, epochs=3)
    trainer.fit()
    assert trainer.step == 3


def test_a9_the_logged_loss_does_not_depend_on_the_window(digits: Data) -> None:
    rows = [
        Trainer(**parts(lr=0.0), train=some(digits, 50), batch_size=8, accumulate=k, epochs=1).fit().history[0]["train/loss"]
        for k in (1, 3)
    ]
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)


def test_b1_clipping_is_that_of_torch(digits: Data) -> None:
    data = some(digits, 64)
    given, twin = parts(lr=1.0), parts(lr=1.0)
    Trainer(**given, train=data, batch_size=16, accumulate=2, clip_norm=0.1, epochs=1).fit()
    indices = order(64, 0, 1, True)
    for window in (indices[:32], indices[32:]):
        twin["optimizer"].zero_grad()
        twin["loss"](twin["model"](digits[0][window]), digits[1][window]).backward()
        nn.utils.clip_grad_norm_(twin["model"].parameters(), 0.1)
        twin["optimizer"].step()
    for name, value in given["model"].state_dict().items():
        torch.testing.assert_close(value, twin["model"].state_dict()[name], rtol=0, atol=1e-6)


def test_a11_b5_a_loss_that_is_not_finite_is_shown_and_never_reaches_the_weights(digits: Data) -> None:
    inputs, targets = (part.clone() for part in some(digits, 96))
    given = parts()
    before: list[dict[str, Tensor]] = []
    calls = 0

    def loss(output: Tensor, wanted: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        before.append({name: value.clone() for name, value in given["model"].state_dict().items()})
        value = nn.functional.cross_entropy(output, wanted)
        return value * math.nan if calls == 3 else value

    trainer = Trainer(**given | {"loss": loss}, train=(inputs, targets), epochs=5)
    losses: list[float] = []
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    result = trainer.fit()
    assert result.state == "failed" and "step 3" in result.reason and "nan" in result.reason
    assert trainer.step == 2
    assert plain.same(given["model"].state_dict(), before[2])
    assert len(losses) == 3 and math.isnan(losses[2])


def test_b7_frozen_parameters_stay(digits: Data) -> None:
    given = parts()
    given["model"][0].weight.requires_grad_(False)
    before = given["model"][0].weight.clone()
    Trainer(**given, train=some(digits, 100), epochs=2).fit()
    assert torch.equal(before, given["model"][0].weight)


def test_modules_set_to_evaluation_stay_so(digits: Data) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
    model[1].eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = some(digits, 100)
    Trainer(model=model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, train=data, validation=data, device="cpu").fit()
    assert model.training and not model[1].training
    assert torch.equal(model[1].running_mean, torch.zeros(16))


def test_c3_a_plateau_schedule_gets_the_epochs_metric(digits: Data) -> None:
    given = parts(lr=1.0)
    seen: list[float] = []

    class Watching(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: Any = None) -> None:
            seen.append(float(metrics))
            super().step(metrics)

    scheduler = Watching(given["optimizer"], patience=0)
    data = some(digits, 64)
    result = Trainer(**given, train=data, validation=data, scheduler=scheduler, epochs=4).fit()
    assert seen == [row["val/loss"] for row in result.history]


def test_c4_nan_is_no_improvement(digits: Data) -> None:
    class Broken:
        higher_is_better = True

        def __init__(self) -> None:
            self.values = iter([0.5, math.nan, 0.6, math.nan, math.nan, 0.1])

        def update(self, output: Tensor, targets: Tensor) -> None: ...
        def reset(self) -> None: ...

        def compute(self) -> float:
            return next(self.values)

    data = some(digits, 32)
    trainer = Trainer(
        **parts(), train=data, validation=data, metrics={"broken": Broken()}, monitor="val/broken", patience=3, epochs=20
    )
    result = trainer.fit()
    assert result.best["epoch"] == 3 and result.best["val/broken"] == 0.6
    assert len(result.history) == 6 and result.state == "finished" and "val/broken" in result.reason


def test_early_stopping_counts_epochs_without_a_gain(digits: Data) -> None:
    data = some(digits, 64)
    result = Trainer(**parts(lr=0.0), train=data, validation=data, patience=2, epochs=50).fit()
    assert len(result.history) == 3 and result.best["epoch"] == 1


def test_an_unknown_monitor_is_one_sentence(digits: Data) -> None:
    data = some(digits, 64)
    with pytest.raises(Exception, match="val/f1.*val/accuracy"):
        Trainer(**parts(), train=data, validation=data, monitor="val/f1", epochs=1).fit()


def test_stop_takes_effect_at_the_step(digits: Data) -> None:
    control = Control()
    trainer = Trainer(**parts(), train=some(digits, 320), epochs=100, control=control)
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 13:
            control.stop("enough")

    trainer.parts.optimizer.register_step_post_hook(count)
    result = trainer.fit()
    assert (result.state, result.reason, steps, trainer.step) == ("stopped", "enough", 13, 13)


def test_pause_holds_and_resume_goes_on(digits: Data) -> None:
    control = Control()
    trainer = Trainer(**parts(), train=some(digits, 320), epochs=3, control=control)
    paused = threading.Event()
    trainer.on(RunPaused, lambda event: paused.set())
    control.pause()
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    assert paused.wait(30)
    held = trainer.step
    assert trainer.history.state == "paused" and held == 1
    control.resume()
    thread.join(30)
    assert trainer.history.state == "finished" and trainer.step == 30


def test_validate_now_is_stated_and_changes_nothing(digits: Data) -> None:
    data = some(digits, 320)
    given, twin = parts(), parts()
    control = Control()
    trainer = Trainer(**given, train=data, validation=data, epochs=1, control=control)
    asked: list[Validated] = []
    trainer.on(Validated, asked.append)
    trainer.parts.optimizer.register_step_post_hook(lambda *_: control.validate() if trainer.step == 3 else None)
    trainer.fit()
    Trainer(**twin, train=data, epochs=1).fit()
    assert [event.step for event in asked] == [4] and "val/accuracy" in asked[0].metrics
    assert plain.same(given["model"].state_dict(), twin["model"].state_dict())


def test_events_come_in_order(digits: Data) -> None:
    data = some(digits, 64)
    trainer = Trainer(**parts(), train=data, validation=data, epochs=2)
    kinds: list[type[Event]] = []
    trainer.on(Event, lambda event: kinds.append(type(event)))
    trainer.fit()
    stated = [kind for kind, _ in itertools.groupby(kind for kind in kinds if kind is not Progress)]
    assert stated == [RunStarted, Trained, EpochEnded, Trained, EpochEnded, RunEnded]


def test_f7_a_listener_that_fails_is_switched_off(digits: Data, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(**parts(), train=some(digits, 64), epochs=3)

    def broken(event: EpochEnded) -> None:
        raise KeyError("mine")

    trainer.on(EpochEnded, broken)
    messages: list[Message] = []
    trainer.on(Message, messages.append)
    assert trainer.fit().state == "finished"
    assert len(messages) == 1 and "mine" in messages[0].text
    assert "in broken" in capsys.readouterr().err


def test_f8_an_error_in_the_users_model_is_raised_as_it_is(digits: Data) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("here")

    model = Net()
    optimizer = torch.optim.SGD(model.parameters())
    trainer = Trainer(model=model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, train=some(digits, 64), device="cpu")
    with pytest.raises(ZeroDivisionError):
        trainer.fit()
    assert trainer.history.ended is not None and trainer.history.ended.state == "failed"


def test_the_users_loader_is_used_as_it_is(digits: Data) -> None:
    batches = [(digits[0][i : i + 10], digits[1][i : i + 10]) for i in range(0, 50, 10)]
    given, twin = parts(), parts()
    Trainer(**given, train=batches, epochs=2).fit()
    for _ in range(2):
        for inputs, targets in batches:
            twin["optimizer"].zero_grad()
            twin["loss"](twin["model"](inputs), targets).backward()
            twin["optimizer"].step()
    assert plain.same(given["model"].state_dict(), twin["model"].state_dict())


# Precision, averages, budgets, validation on the way


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
    result = Trainer(**parts(), train=some(digits, 320), max_minutes=0.005, epochs=1_000_000).fit()
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


def test_where_the_device_is_not_waited_for_the_run_ends_at_the_next_look(digits: Data) -> None:
    """As on a GPU: the loss is read late, and what it reached is not saved."""
    calls = 0

    def loss(output: Tensor, wanted: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = nn.functional.cross_entropy(output, wanted)
        return value * math.nan if calls == 2 else value

    trainer = Trainer(**parts() | {"loss": loss}, train=some(digits, 96), epochs=3)
    trainer.loop.check = False
    losses: list[float] = []
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    result = trainer.fit()
    assert result.state == "failed" and "step 2" in result.reason and "not saved" in result.reason
    assert math.isnan(losses[1]) and result.history == []
