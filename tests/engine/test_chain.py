"""Loss and gradients without autograd: its bits, and autograd's own wherever somebody could tell the difference."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Recipe, Trainer
from engine.events import Sampled
from engine.execution import chain as chains
from engine.execution.chain import Chain
from engine.models.mlp import MLP
from tests.engine.chains import LOSSES, MODELS, batch, compare, loop_of


def used(loop: Any, inputs: Tensor, targets: Tensor) -> bool:
    """Whether a step is taken without autograd, which only then would see a graph."""
    graphs = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: graphs.append(tensor) or tensor, lambda tensor: tensor):  # type: ignore[func-returns-value]
        loop.hands.clear()
        loop.hands.derive(loop, inputs, targets)
    return not graphs


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_autograds_bits(name: str, loss: nn.Module) -> None:
    torch.manual_seed(0)
    model, shape = copy.deepcopy(MODELS[name])
    if name == "one to one":
        loss = type(loss)()
    loop = loop_of(model, loss)
    batches = [batch(model, shape, loss, samples) for samples in (9, 32, 1, 2, 67)]
    assert all(compare(loop, *each) for each in batches)
    assert all(used(loop, *each) for each in batches)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1, 2, ceil_mode=True)], ids=repr)
@pytest.mark.parametrize("channels", [3, 8])
def test_of_equal_numbers_the_same_one_is_the_largest(channels: int, pool: nn.Module) -> None:
    torch.manual_seed(0)
    model, loss = nn.Sequential(nn.Conv2d(2, channels, 3), pool, nn.Flatten(), nn.LazyLinear(3)), nn.MSELoss()
    inputs, targets = batch(model, (2, 11, 10), loss, 6)
    loop = loop_of(model, loss)
    loop.hands.derive(loop, inputs, targets)  # shows its bits where no two are equal
    with torch.no_grad():
        model[0].weight.copy_(torch.randint(-1, 2, model[0].weight.shape))
    inputs = torch.randint(0, 2, inputs.shape).float()
    assert compare(loop, inputs, targets) and used(loop, inputs, targets)


def test_dropout_draws_what_torchs_does() -> None:
    model, loss = MLP((5,), 3, hidden=(40, 20), dropout=0.3), nn.MSELoss()
    loop = loop_of(model, loss)
    batches = [batch(model.train(), (5,), loss, 16) for _ in range(4)]
    assert all(compare(loop, *each) for each in batches) and used(loop, *batches[0])
    model.eval()
    assert compare(loop, *batches[0]) and used(loop, *batches[0])


def loop_in_use(model: nn.Module | None = None, loss: Any = None) -> tuple[Any, Tensor, Tensor]:
    """A loop that steps without autograd, and a batch of it."""
    model = model or nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    loss = loss or nn.CrossEntropyLoss()
    loop = loop_of(model, loss)
    inputs, targets = batch(model, (5,), loss, 12)
    loop.hands.derive(loop, inputs, targets)
    assert used(loop, inputs, targets)
    return loop, inputs, targets


def test_a_parameters_hook_is_called() -> None:
    loop, inputs, targets = loop_in_use()
    seen: list[Tensor] = []
    handles = [
        loop.module[0].weight.register_hook(seen.append),
        loop.module[2].bias.register_post_accumulate_grad_hook(seen.append),
        loop.module[1].register_full_backward_hook(lambda *given: seen.append(given[0])),
    ]
    assert not used(loop, inputs, targets)
    assert len(seen) == 3
    for handle in handles:
        handle.remove()
    assert used(loop, inputs, targets)


def test_what_is_frozen_gets_no_gradient() -> None:
    loop, inputs, targets = loop_in_use()
    loop.module[0].requires_grad_(False)
    loop.hands.clear()
    loop.hands.derive(loop, inputs, targets)
    assert loop.module[0].weight.grad is None and loop.module[2].weight.grad is not None


def test_gradients_of_inputs_and_anomalies_are_autograds() -> None:
    loop, inputs, targets = loop_in_use()
    wanted = inputs.clone().requires_grad_()
    loop.hands.derive(loop, wanted, targets)
    assert wanted.grad is not None
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        assert not used(loop, inputs, targets)


class Own(nn.Linear):
    """A layer of somebody's own."""


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3))
    model[2].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), nn.CrossEntropyLoss()),
        (nn.Sequential(Own(5, 3)), nn.CrossEntropyLoss()),
        (nn.Sequential(nn.Linear(5, 3), nn.ReLU()), nn.CrossEntropyLoss(label_smoothing=0.1)),
        (nn.Linear(5, 3), nn.CrossEntropyLoss(reduction="sum")),
        (nn.Linear(5, 3), nn.functional.cross_entropy),
        (nn.Linear(5, 3), nn.MSELoss(reduction="sum")),
        (tied(), nn.CrossEntropyLoss()),
    ],
)
def test_whose_derivative_is_not_known_goes_by_autograd(model: nn.Module, loss: Any) -> None:
    loop = loop_of(model, loss)
    targets = torch.randn(9, 3) if isinstance(loss, nn.MSELoss) else torch.randint(3, (9,))
    for _ in range(3):
        inputs = torch.randn(9, 5)
        assert compare(loop, inputs, targets) and not used(loop, inputs, targets)


def test_targets_of_another_kind_are_tried_anew() -> None:
    loop, inputs, targets = loop_in_use()
    shares = torch.rand(12, 3).softmax(1)  # of classes
    for _ in range(2):
        assert compare(loop, inputs, shares) and not used(loop, inputs, shares)
    assert compare(loop, inputs, targets)


def test_shapes_that_are_spread_are_told_of_as_by_torch() -> None:
    loop = loop_of(nn.Linear(5, 1), nn.MSELoss())
    inputs, targets = torch.randn(9, 5), torch.randn(9)
    for _ in range(2):
        with pytest.warns(UserWarning, match="target size"):
            assert compare(loop, inputs, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not used(loop, inputs, targets)


def test_inputs_of_three_axes_and_none() -> None:
    loop = loop_of(nn.Linear(5, 3), nn.MSELoss())
    for shape in ((4, 6), (), (4, 6)):
        inputs, targets = torch.randn(*shape, 5), torch.randn(*shape, 3)
        assert compare(loop, inputs, targets) and not used(loop, inputs, targets)


def test_a_wrong_shape_raises_what_torch_raises() -> None:
    loop, inputs, targets = loop_in_use()
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        loop.hands.derive(loop, torch.randn(12, 7), targets)
    with pytest.raises(IndexError, match="out of bounds"):
        loop.hands.derive(loop, inputs, torch.full((12,), 99))


def test_a_chain_that_is_not_autograd_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = chains._of(lambda layer, gradient, inputs, output: gradient * 1.0000001)
    monkeypatch.setitem(chains.LINKS, nn.Tanh, wrong)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    loop = loop_of(model, nn.CrossEntropyLoss())
    for _ in range(3):
        each = batch(model, (5,), nn.CrossEntropyLoss(), 12)
        assert compare(loop, *each) and not used(loop, *each)


def test_a_batch_that_is_not_finite_says_nothing_of_the_chain() -> None:
    model = nn.Linear(5, 3)
    loop = loop_of(model, nn.MSELoss())
    inputs, targets = torch.randn(9, 5), torch.randn(9, 3)
    for given in (targets * torch.nan, targets):
        loop.hands.clear()
        loop.hands.derive(loop, inputs, given)
    assert used(loop, inputs, targets)


def test_a_run_steps_so_and_its_phases_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of the default recipe, the steps that are looked at among them."""
    backward, steps = Chain.backward, [0]

    def counted(chain: Chain, gradient: Tensor) -> None:
        steps[0] += 1
        backward(chain, gradient)

    monkeypatch.setattr(Chain, "backward", counted)
    recipe = Recipe.from_dict({"data": {"name": "digits"}, "training": {"epochs": 3, "execution": "eager"}})
    trainer = Trainer.from_recipe(recipe, runs=None)
    samples: list[Sampled] = []
    trainer.on(Sampled, samples.append)
    result = trainer.fit()
    assert result.state == "finished"
    assert steps[0] == 3 * (trainer.parts.train.length or 0)  # the first step by both
    assert samples and {"forward", "loss", "backward", "step"} <= set(samples[0].seconds)
