"""B5: what is not finite never reaches the weights; the run stops, leaves the step out, or goes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Recipe, RecipeError, Trained, Trainer
from engine.events import Rewound, SettingChanged
from engine.execution.guard import Guard
from engine.recipe import Checkpoint
from engine.run import Journal, load_history
from tests.engine import plain
from tests.engine.small import Data, parts, some

Loss = Callable[[Tensor, Tensor], Tensor]


def broken_at(call: int, times: int = 1) -> Loss:
    """A loss that is NaN in its so-manieth call, and in the next ones if so often."""
    calls = 0

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = nn.functional.cross_entropy(output, targets)
        return value * math.nan if call <= calls < call + times else value

    return loss


def broken_gradient_at(call: int) -> Loss:
    """A loss that is a number, with a gradient that is none."""
    calls = 0

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = nn.functional.cross_entropy(output, targets)
        return value + (0 * output).sum().abs().sqrt() if calls == call else value  # the root's slope at 0 is infinite

    return loss


def after(steps: int, digits: Data, optimizer: Callable[[Any], torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The weights after so many steps of the plain loop."""
    own = parts()
    plain.train(own["model"], own["loss"], optimizer(own["model"].parameters()), some(digits, 32 * steps), epochs=1, seed=0)
    return own["model"].state_dict()  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("loss", [broken_at, broken_gradient_at])
def test_b5_the_device_decides_and_nobody_waits(digits: Data, make: Any, loss: Any) -> None:
    """As on a GPU: steps go on until the host reads, and from the broken one on none reaches the weights."""
    own = parts()
    optimizer = make(own["model"].parameters(), lr=0.01, fused=True)
    trainer = Trainer(**own | {"loss": loss(3), "optimizer": optimizer}, train=some(digits, 320), epochs=1)
    trainer.loop.guard, trainer.loop.check = Guard(optimizer, torch.device("cpu")).obeyed(), False
    weights: list[dict[str, Tensor]] = []
    optimizer.register_step_post_hook(lambda *_: weights.append({k: v.clone() for k, v in own["model"].state_dict().items()}))
    losses: list[float] = []
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    result = trainer.fit()
    assert result.state == "failed" and "step 3" in result.reason and "did not reach the weights" in result.reason
    assert len(weights) > 3, "others were tried"
    assert not plain.same(weights[0], weights[1])
    assert all(plain.same(weights[1], later) for later in weights[2:])
    assert len(losses) == 3


def test_only_optimizers_that_obey_are_guarded() -> None:
    model = nn.Linear(2, 1)
    assert Guard.fits(torch.optim.Adam(model.parameters(), fused=True))
    assert not Guard.fits(torch.optim.Adam(model.parameters()))
    assert not Guard.fits(torch.optim.RMSprop(model.parameters()))


def test_left_out_steps_in_a_row_have_a_limit(digits: Data) -> None:
    own = parts() | {"loss": broken_at(2, times=10**6)}
    trainer = Trainer(**own, train=some(digits, 320), epochs=5, non_finite="skip", non_finite_limit=4)
    result = trainer.fit()
    assert result.state == "failed" and "5 steps in a row after step 1 were not finite" in result.reason
    assert trainer.step == 1


def rewinding(digits: Data, run_dir: Path, loss: Loss, **plan: Any) -> Trainer:
    own = parts() | {"loss": loss}
    scheduler = torch.optim.lr_scheduler.ExponentialLR(own["optimizer"], 0.9)
    return Trainer(
        **own,
        train=some(digits, 128),
        validation=some(digits, 64),
        scheduler=scheduler,
        epochs=4,
        run_dir=run_dir,
        checkpoint=Checkpoint(min_seconds=0.0),
        non_finite="rewind",
        **plan,
    )


def test_a_run_goes_back_with_a_lower_learning_rate(digits: Data, tmp_path: Path) -> None:
    """4 training and 2 validation batches an epoch: call 17 is in the middle of the third epoch."""
    trainer = rewinding(digits, tmp_path / "run", broken_at(15))
    result = trainer.fit()
    assert result.state == "finished" and trainer.step == 16
    assert result.run is not None
    events, problems = Journal.read(result.run.journal.path)
    assert not problems
    (back,) = [event for event in events if isinstance(event, Rewound)]
    assert (back.step, back.to) == (11, 8)
    (changed,) = [event for event in events if isinstance(event, SettingChanged)]
    assert changed.cause == "rewind" and changed.value == pytest.approx(changed.before * 0.5)
    rates = dict(zip(*load_history(result.run).series["lr"].columns()[:2], strict=True))
    assert list(rates) == list(range(1, 17)), "every step once"
    assert [rates[step] for step in (1, 5, 9, 13)] == pytest.approx([0.1, 0.09, 0.0405, 0.03645])
    losses = [mean for _, mean, _, _ in result_series(result)]
    assert all(map(math.isfinite, losses))


def result_series(result: Any) -> Any:
    return load_history(result.run).series["train/loss"]


def test_going_back_has_a_limit_and_the_first_steps_a_checkpoint(digits: Data, tmp_path: Path) -> None:
    trainer = rewinding(digits, tmp_path / "run", broken_at(2, times=10**6), non_finite_limit=3)
    result = trainer.fit()
    assert result.state == "failed" and "at step 1 " in result.reason
    assert result.run is not None
    back = [event for event in Journal.read(result.run.journal.path)[0] if isinstance(event, Rewound)]
    assert [(event.step, event.to) for event in back] == [(2, 0), (1, 0), (1, 0)]
    assert trainer.parts.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 8)


def test_going_back_needs_a_run() -> None:
    with pytest.raises(RecipeError, match="needs a run directory"):
        Trainer.from_recipe(Recipe().replace(**{"training.non_finite": "rewind"}), runs=None)
