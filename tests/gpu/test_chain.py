"""On a GPU: loss and gradients without autograd are its bits, also within a captured step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engine import Recipe, Trainer
from tests.engine.chains import LOSSES, MODELS, batch, compare, loop_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_autograds_bits(name: str, loss: nn.Module) -> None:
    torch.manual_seed(0)
    model, shape = copy.deepcopy(MODELS[name])
    loss = type(loss)() if name == "one to one" else copy.deepcopy(loss)
    batches = [batch(model, shape, loss, samples, "cuda") for samples in (9, 32, 1, 67)]
    loop = loop_of(model.cuda(), loss.cuda())
    for each in batches:
        assert compare(loop, *each)


@pytest.mark.parametrize("execution", ["eager", "captured"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_run_without_autograd_is_the_run_with_it(model: str, execution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"name": "digits", "images": model == "cnn"}
    values = {"data": data, "model": {"name": model}, "training": {"epochs": 3, "device": "cuda"}}
    recipe = Recipe.from_dict(values).replace(**{"training.execution": execution, "training.deterministic": True})
    weights = []
    for without in (True, False):
        if not without:
            monkeypatch.setattr("engine.execution.hands.Chain.of", lambda *parts: None)
        result = Trainer.from_recipe(recipe, runs=None).fit()
        assert result.state == "finished"
        weights.append([parameter.detach().cpu() for parameter in result.model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))
