"""On a GPU: the update without torch's wrappers is torch's own fused step to the last bit, also where a step is not taken."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engine import Recipe, Trainer
from engine.execution.hands import Hands, LeanHands
from tests.engine.plain import same

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_lean_hands_do_what_torchs_fused_step_does(name: str, scaled: bool) -> None:
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 300), nn.Tanh(), nn.Linear(300, 40)).cuda()
    models = one, copy.deepcopy(one)
    rates = {"lr": 0.01, "weight_decay": 0.1, "fused": True, **({"momentum": 0.9} if name == "SGD" else {})}
    optimizers = [getattr(torch.optim, name)(model.parameters(), **rates) for model in models]
    assert LeanHands.fits(optimizers[0], torch.device("cuda"))
    hands = [LeanHands(optimizers[0]), Hands(optimizers[1])]
    told, scale = torch.zeros((), device="cuda"), torch.tensor(8.0, device="cuda")
    for step in range(20):
        x, before = torch.randn(7, 5, device="cuda"), copy.deepcopy(one.state_dict())
        told.fill_(float(step in (4, 5)))
        for optimizer, hand, model in zip(optimizers, hands, models, strict=True):
            optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
            optimizer.found_inf, optimizer.grad_scale = told, scale if scaled else None  # type: ignore[union-attr]
            if step == 12:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            hand.clear()
            hand.backward(model(x).square().mean() * 8.0)
            assert hand.finite()
            hand.update()
        assert same(one.state_dict(), before) == (step in (4, 5))
    assert same(one.state_dict(), models[1].state_dict())
    ours, theirs = (optimizer.state_dict()["state"] for optimizer in optimizers)
    assert all(torch.equal(ours[i][key], theirs[i][key]) for i in theirs for key in theirs[i])


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_an_eager_run_on_a_gpu_has_them(optimizer: str) -> None:
    values = {"data": {"name": "digits"}, "optimizer": {"name": optimizer}, "training": {"epochs": 1, "device": "cuda"}}
    trainer = Trainer.from_recipe(Recipe.from_dict(values).replace(**{"training.execution": "eager"}), runs=None)
    assert isinstance(trainer.loop.hands, LeanHands)
    assert trainer.fit().state == "finished"
