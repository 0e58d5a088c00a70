"""The trainer through its public face: control, early stopping, best, NaN, accumulation, events."""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import (
    Control,
    EpochalError,
    EpochEnded,
    Event,
    Message,
    Progress,
    RecipeError,
    RunEnded,
    RunPaused,
    RunStarted,
    Trained,
    Trainer,
    Validated,
)
from engine.data.order import order
from tests.engine import plain
from tests.engine.small import Data, parts, some


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
    assert paused.wait(60)
    held = trainer.step
    assert trainer.history.state == "paused" and held == 1
    control.resume()
    thread.join(60)
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


@pytest.mark.parametrize("fails", ["reset", "update", "compute"])
def test_f7_a_metric_that_fails_is_switched_off_and_the_training_goes_on(
    digits: Data, fails: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fails:
        def reset(self) -> None:
            self._do("reset")

        def update(self, *_: Tensor) -> None:
            self._do("update")

        def compute(self) -> float:
            self._do("compute")
            return 0.5

        def _do(self, what: str) -> None:
            if what == fails:
                raise ZeroDivisionError("of no use")

    own = parts()
    trainer = Trainer(**own, train=some(digits, 64), validation=some(digits, 96), epochs=3, metrics={"mine": Fails()})
    said: list[str] = []
    trainer.on(Message, lambda event: said.append(event.text))
    result = trainer.fit()
    assert result.state == "finished" and [math.isnan(row["val/mine"]) for row in result.history] == [True] * 3
    assert said == ["the metric mine failed and is switched off: ZeroDivisionError: of no use"]
    assert "of no use" in capsys.readouterr().err, "with its traceback"


def test_a_validation_without_data_is_a_sentence(digits: Data) -> None:
    trainer = Trainer(**parts(), train=some(digits, 64), epochs=1)
    said: list[str] = []
    trainer.on(Message, lambda event: said.append(event.text))
    trainer.control.validate()
    assert trainer.fit().state == "finished"
    assert said == ["there is no validation data in this run"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"patiance": 3}, "takes no 'patiance'; the nearest is 'patience'"),
        ({"epoch": 3}, "takes no 'epoch'; the nearest is 'epochs'"),
        ({"epochs": "3"}, "training.epochs is '3'; it must be an integer"),
        ({"epochs": 0}, "training.epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"optimizer": "Adam"}, "optimizer is 'Adam'; it must be an optimizer made with"),
        ({"optimizer": torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)}, "none of the model's parameters"),
        ({"loss": "mse"}, "loss is 'mse'; it must be a function"),
        ({"metrics": ["accuracy"]}, "it must be a dict of metrics"),
        ({"train": (torch.zeros(8, 3), torch.zeros(7, 2))}, "8 inputs and 7 targets"),
        ({"train": (torch.zeros(0, 3), torch.zeros(0, 2))}, "0 inputs and 0 targets"),
        ({"train": (torch.zeros(8, 3).numpy(), torch.zeros(8, 2).numpy())}, "a pair of tensors is wanted"),
    ],
)
def test_a_mistake_with_ones_own_objects_is_one_sentence(given: dict[str, Any], says: str) -> None:
    model = nn.Linear(3, 2)
    usual = {"loss": nn.MSELoss(), "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}
    with pytest.raises(RecipeError) as caught:
        Trainer(**{"model": model, **usual, "train": (torch.zeros(8, 3), torch.zeros(8, 2)), **given})
    assert len(caught.value.problems) == 1 and says in str(caught.value)


def test_listeners_are_for_classes_of_events() -> None:
    model = nn.Linear(3, 2)
    trainer = Trainer(
        model=model,
        loss=nn.MSELoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        train=(torch.zeros(8, 3), torch.zeros(8, 2)),
    )
    with pytest.raises(EpochalError, match="such as engine.EpochEnded"):
        trainer.on("EpochEnded", print)  # type: ignore[arg-type]
