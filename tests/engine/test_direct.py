"""The call of a chain of torch's layers without their modules: the same bits, and hooks are called where there are some."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.execution.direct import Direct
from engine.execution.hands import LeanHands
from engine.loop import Loop
from engine.models.mlp import MLP


def chain() -> nn.Sequential:
    inner = nn.Sequential(nn.Linear(5, 6, bias=False), nn.ReLU())
    return nn.Sequential(nn.Flatten(), inner, nn.BatchNorm1d(6), nn.Dropout(0.5), nn.GELU(), nn.Linear(6, 3))


def loop_of(model: nn.Module, loss: Any) -> Loop:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = Loop(model=model, module=model, loss=loss, optimizer=optimizer, count=torch.numel)
    loop.hands = LeanHands(optimizer)
    loop.hands.begin(loop)
    return loop


@pytest.mark.parametrize("model", [chain(), MLP((5,), 3, hidden=(8, 7), activation="ReLU", dropout=0.3), nn.Linear(5, 3)])
@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.functional.mse_loss, nn.MSELoss(reduction="sum")])
def test_loss_and_gradients_are_the_same_bits(model: nn.Module, loss: Any) -> None:
    inputs, targets = torch.randn(9, 5), torch.randn(9, 3)
    model, other = copy.deepcopy(model), copy.deepcopy(model)
    loop = loop_of(model, loss)
    assert Direct.of(model, loss) is not None
    torch.manual_seed(1)
    ours = loop.forward(inputs, targets)
    torch.manual_seed(1)
    theirs = loss(other(inputs), targets)
    ours.backward()
    theirs.backward()
    assert torch.equal(ours, theirs)
    for one, two in zip((*model.parameters(), *model.buffers()), (*other.parameters(), *other.buffers()), strict=True):
        assert torch.equal(one, two)
        assert one.grad is None or torch.equal(one.grad, two.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["model", "layer", "loss", "everywhere"])
def test_a_hook_that_comes_in_the_middle_of_an_epoch_is_called(where: str) -> None:
    model, loss, called = chain(), nn.MSELoss(), []
    loop = loop_of(model, loss)
    loop.forward(torch.randn(9, 5), torch.randn(9, 3))
    register = {
        "model": model.register_forward_hook,
        "layer": model[1][0].register_forward_hook,
        "loss": loss.register_forward_hook,
        "everywhere": nn.modules.module.register_module_forward_hook,
    }[where]
    handle = register(lambda *given: called.append(1))  # type: ignore[operator]
    loop.forward(torch.randn(9, 5), torch.randn(9, 3))
    handle.remove()
    assert called


def test_what_is_no_chain_of_torchs_layers_is_called_as_it_is() -> None:
    class Own(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) * 2

    assert Direct.of(nn.Sequential(Own(5, 3)), nn.MSELoss()) is None
    patched = nn.Sequential(nn.Linear(5, 3))
    patched[0].forward = lambda inputs: inputs  # type: ignore[method-assign]
    assert Direct.of(patched, nn.MSELoss()) is None
    assert Direct.of(nn.utils.parametrizations.weight_norm(nn.Linear(5, 3)), nn.MSELoss()) is None
    loop = loop_of(nn.Linear(5, 3), nn.MSELoss())
    loop.loss = lambda output, targets: output.sum() * 0 + 7  # put in its place while the epoch is under way
    assert loop.forward(torch.randn(9, 5), torch.randn(9, 3)).item() == 7
    with pytest.warns(UserWarning, match="target size"):
        loop_of(nn.Linear(5, 3), nn.MSELoss()).forward(torch.randn(9, 5), torch.randn(9, 1))
