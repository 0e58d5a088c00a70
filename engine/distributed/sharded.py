"""Weights, gradients and the optimizer's state, on every rank or sharded among them (torch's DDP and FSDP2)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adafactor, Optimizer, Rprop

from engine.data.batches import LoaderBatches
from engine.distributed.normalized import Joined, calls_torchs, joined, own_buffers
from engine.distributed.ranks import Ranks
from engine.errors import Problem, RecipeError
from engine.execution.hands import Hands
from engine.execution.layers import REMEMBERED, Layers
from engine.loop import Loop
from engine.parts import Parts
from engine.recipe import Training

BYTES = 16  # of a float32 parameter, its gradient and Adam's state
ROOM = 0.6  # share of a device's memory that these may take before "auto" shards them


def strategy_of(plan: Training, parts: Parts) -> str:
    """ "ddp" or "fsdp"; "auto" shards what does not fit on each device. RecipeError for what does not go with it."""
    strategy = plan.strategy
    if strategy == "auto":
        device = parts.device
        room = torch.cuda.get_device_properties(device).total_memory * ROOM if device.type == "cuda" else float("inf")
        strategy = "fsdp" if parts.parameters * BYTES > room else "ddp"
    if strategy == "fsdp" and plan.freeze_epochs is not None:
        message = "training.freeze_epochs does not go with training.strategy = 'fsdp'; 'ddp' does"
        raise RecipeError([Problem("training.freeze_epochs", message)])
    # torch's LBFGS makes one vector of all gradients; the others need more of a tensor than some rows.
    if strategy == "fsdp" and (parts.needs_closure or isinstance(parts.optimizer, Adafactor | Rprop)):
        given = type(parts.optimizer).__name__
        message = f"training.strategy = 'fsdp' does not go with optimizer.name = {given!r}; 'ddp' does"
        raise RecipeError([Problem("training.strategy", message)])
    return strategy


def shared(loop: Loop, parts: Parts, strategy: str, ranks: Ranks) -> nn.Module:
    """What is called instead of the model, whose weights are the same everywhere: that are shards from now on with "fsdp"."""
    model, device = parts.model, parts.device
    if strategy == "ddp":
        all_take_part = ranks.everywhere(not _leaves_some_out(loop, parts))  # as all see it: each has looked at its own share
        return DistributedDataParallel(
            model,
            find_unused_parameters=not all_take_part or parts.freezing.epochs is not None,
            broadcast_buffers=any(True for _ in own_buffers(model)),
            gradient_as_bucket_view=True,
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    mesh = init_device_mesh(device.type, (ranks.count,))
    for held in (model,) if loop.average is None else (model, loop.average.module):
        held.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as shards must be
        for block in _blocks(held):
            fully_shard(block, mesh=mesh)
        fully_shard(held, mesh=mesh)
    if loop.scaler is not None:  # it asks whether a gradient overflowed on any rank, which a fused step would not
        parts.optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    parameters, state = dict(model.named_parameters()), parts.optimizer.state
    for group in parts.optimizer.param_groups:  # they were replaced by shards
        whole, group["params"] = group["params"], [parameters[names[id(parameter)]] for parameter in group["params"]]
        for old, new in zip(whole, group["params"], strict=True):
            if old in state:  # Adagrad has one from the beginning
                state[new] = {key: part(value, new) for key, value in state.pop(old).items()}
    return model


def normalize_together(parts: Parts) -> None:
    """Batch normalization over all ranks, in place: the names and tensors stay."""
    for part in parts.model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and not isinstance(part, Joined):
            if calls_torchs(type(part)):
                part.__class__ = joined(type(part))
            else:
                name = type(part).__name__
                said = f"{name} normalizes each process's share of a batch by itself: its forward does not call torch's"
                parts.warnings = (*parts.warnings, said)


def _leaves_some_out(loop: Loop, parts: Parts) -> bool:
    """Whether some parameters have no part in the loss of a batch: torch would wait for their gradients, unless it is told.

    In evaluation mode, so that nothing is drawn or changed. Of one's own loader no batch is taken for that.
    """
    if isinstance(parts.train, LoaderBatches):
        return True
    training = [part for part in parts.model.modules() if part.training]
    parts.model.eval()
    loss = loop.forward(*next(iter(parts.train.epoch(1))))
    for part in training:
        part.training = True
    found, ahead = set(), [loss.grad_fn]
    reached: set[int] = set()
    while ahead:
        node = ahead.pop()
        if node is not None and node not in found:
            found.add(node)
            reached.add(id(getattr(node, "variable", None)))
            ahead += [following for following, _ in node.next_functions]
    return any(id(parameter) not in reached for parameter in parts.model.parameters() if parameter.requires_grad)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """What is gathered as a whole when it is its turn: the blocks that a model repeats."""
    for part in model.modules():
        if isinstance(part, nn.ModuleList):
            yield from (block for block in part if any(True for _ in block.parameters()))


class Held:
    """Gradients stay where they are meanwhile: all but the last batch of a window."""

    def __init__(self, model: FSDPModule) -> None:
        self.model = model

    def __enter__(self) -> None:
        self.model.set_requires_gradient_sync(False)

    def __exit__(self, *_: object) -> None:
        self.model.set_requires_gradient_sync(True)


class ShardedHands(Hands):
    """Looks at the gradients of all ranks."""

    def __init__(self, optimizer: Optimizer, ranks: Ranks) -> None:
        super().__init__(optimizer)
        self._ranks = ranks

    def finite(self) -> bool:
        held = (p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None)
        local = [part.to_local() if isinstance(part, DTensor) else part for part in held]
        return self._ranks.everywhere(all(bool(part.isfinite().all()) for part in local))


class ShardedLayers(Layers):
    """Layers of whose parameters each rank holds some rows."""

    def __init__(self, module: nn.Module, ranks: Ranks) -> None:
        super().__init__(module)
        self._ranks = ranks
        self._turned = [(i, p) for i, p, turned in self._with_units if turned]  # whose units are columns: some of each here
        self._with_units = [(i, p, turned) for i, p, turned in self._with_units if not turned]
        self._moved: deque[Tensor] = deque(maxlen=REMEMBERED)  # for each sample, which columns had a gradient here

    def _here(self, tensor: Tensor) -> Tensor:
        return super()._here(tensor.to_local() if isinstance(tensor, DTensor) else tensor)

    def _count_silent(self, gradients: dict[int, Tensor]) -> None:
        super()._count_silent(gradients)
        if not self._turned:
            return
        self._found.setdefault("silent", torch.zeros(len(self.names), device=self._parameters[0].device))
        columns = []
        for i, p in self._turned:
            found = gradients.get(id(p))
            there = torch.ones(p.shape[1], p.shape[0]) if found is None else found.transpose(0, 1).flatten(1)
            columns.append((there != 0).any(1).to(self._parameters[0].device))
            self._units[i] += 0 if found is None else p.shape[1]
        self._moved.append(torch.cat(columns))

    def finish(self) -> None:
        """Sum over all ranks. Where one could not look it says so, as a number that is none: nobody waits in vain."""
        names, unknown = ("gradient", "weight", "change", "silent"), torch.full((len(self.names),), math.nan)
        device = self._parameters[0].device
        held = torch.stack([self._found.get(name, unknown).to(device, torch.float64) for name in names])
        held[:3].square_()
        self._ranks.summing(held)()
        held[:3].sqrt_()
        if self._turned:
            sizes = [p.shape[1] for _, p in self._turned]
            moved = torch.stack(tuple(self._moved)).any(0) if self._moved else torch.ones(sum(sizes), device=device)
            moved = moved.to(torch.float64)
            self._ranks.summing(moved)()
            for (i, _), column in zip(self._turned, moved.split(sizes), strict=True):
                held[3, i] += (column == 0).sum()
        self._found = dict(zip(names, held, strict=True))


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which the ranks hold shards; on every rank, so each must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(value: Any, like: Tensor) -> Any:
    """What this process holds of a whole tensor that belongs to `like`, which may be sharded; anything else as it is."""
    if not isinstance(like, DTensor) or getattr(value, "shape", None) != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
