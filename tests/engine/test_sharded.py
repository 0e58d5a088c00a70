"""Weights and layers that several processes share, told without any: what is refused, counted and normalized together."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engine.distributed import sharded
from engine.distributed.normalized import Joined
from engine.distributed.ranks import Ranks
from engine.errors import RecipeError
from engine.recipe import Training
from tests.engine import ranks


def test_optimizers_that_need_whole_tensors_are_refused_where_these_are_sharded() -> None:
    plan = Training(strategy="fsdp")
    for kind in (torch.optim.LBFGS, torch.optim.Rprop, torch.optim.Adafactor):
        parts: Any = SimpleNamespace(optimizer=kind(nn.Linear(2, 2).parameters()), needs_closure=kind is torch.optim.LBFGS)
        with pytest.raises(RecipeError, match=f"'fsdp' does not go with optimizer.name = '{kind.__name__}'; 'ddp' does"):
            sharded.strategy_of(plan, parts)


class Own(nn.BatchNorm1d):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.batch_norm(inputs, None, None, training=True)


def test_layers_that_normalize_together_stay_what_they_were_to_everybody_else() -> None:
    net = nn.Sequential(ranks.normalizing(), nn.BatchNorm3d(3), Own(2))
    before, kinds = dict(net.state_dict(keep_vars=True)), [type(part) for part in net.modules()]
    parts: Any = SimpleNamespace(model=net, warnings=())
    sharded.normalize_together(parts)
    assert [isinstance(net[0][i], Joined) for i in (2, 6)] == [isinstance(net[1], Joined), True] == [True, True]
    assert all(tensor is before[name] for name, tensor in net.state_dict(keep_vars=True).items())  # which the optimizer knows
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [type(part) for part in copied.modules()] == kinds
    assert type(net[2]) is Own and len(parts.warnings) == 1 and "Own normalizes each process's share" in parts.warnings[0]


def test_two_processes_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "get_backend_config", lambda: "cpu:gloo,cuda:nccl")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=device.index))
    for other, refused in (("0", True), ("1", False)):
        some: Any = SimpleNamespace(gather=lambda value, other=other: [value, other])
        with pytest.raises(RecipeError, match="several processes would train on one GPU") if refused else nullcontext():
            Ranks.refuse_one_gpu(some, torch.device("cuda", 0))


def test_units_of_which_each_rank_holds_a_part_are_silent_where_no_rank_has_a_gradient() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3), nn.Conv2d(6, 2, 3))
    net(torch.rand(2, 4, 5, 5)).sum().backward()
    gradient = net[0].weight.grad
    gradient[:, 1] = 0  # a unit without
    gradient[:2, 3] = 0  # and one of which only the second rank knows that it has some
    told: list[torch.Tensor] = []
    for part in (slice(2, 4), slice(0, 2)):  # the rows of the second rank, and those of the first
        half = nn.Sequential(nn.ConvTranspose2d(2, 6, 3, bias=False))
        half[0].weight.grad = gradient[part].clone()

        def summing(tensor: torch.Tensor, first: bool = part.start == 0) -> Callable[[], None]:
            return lambda: tensor.add_(told.pop(0)) if first else told.append(tensor.clone())  # type: ignore[return-value]

        layers = sharded.ShardedLayers(half, SimpleNamespace(summing=summing))  # type: ignore[arg-type]
        layers.look()
        layers.after()
        layers.finish()
    assert layers.read()["silent"] == (round(1 / 6, 4),)
