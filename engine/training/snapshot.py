"""Snapshot: everything a checkpoint holds, copied at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.errors import CheckpointError
from engine.loop import Loop
from engine.parts import Parts, state_dicts

if TYPE_CHECKING:
    from engine.run.checkpoints import Saved


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run after `step` steps. `state` is JSON values; the tensors, by file name, are copies in host memory."""

    step: int
    epoch: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def take(parts: Parts, loop: Loop, position: dict[str, Any]) -> Snapshot:
    """Copy everything that a resume needs. `position` are the trainer's own counters, as JSON values."""
    optimizer: dict[str, Tensor] = {}
    together = loop.together
    whole = None if together is None else together.gathered
    random = state_dicts.pack_random_state(parts.device)
    held = {
        **position,
        "optimizer": state_dicts.pack_optimizer(parts.optimizer, parts.model, optimizer),
        "schedule": parts.schedule and state_dicts.pack(parts.schedule.state_dict(), optimizer, "$schedule"),
        "scaler": loop.scaler and loop.scaler.state_dict(),
        "random": random,
        "ranks": [] if together is None else together.ranks.gather(random)[1:],  # of the others
        "fingerprint": parts.fingerprint,
    }
    tensors = {"model": state_dicts.copied(parts.model.state_dict(), whole), "optimizer": state_dicts.copied(optimizer, whole)}
    if loop.average is not None:
        tensors["average"] = state_dicts.copied(loop.average.state_dict(), whole)
    return Snapshot(step=position["step"], epoch=position["epoch"], tensors=tensors, state=held)


def restore(saved: Saved, parts: Parts, loop: Loop) -> None:
    """Put back what `take` copied, all but the trainer's counters. Raises CheckpointError when it does not fit."""
    held, tensors = saved.state, saved.tensors
    if held["fingerprint"] != parts.fingerprint:
        raise CheckpointError(
            f"the training data is not that of {saved.path}: an exact resume is not possible; start a new run instead"
        )
    part = {} if loop.together is None else {"part": loop.together.part}
    state_dicts.load_model(parts.model, tensors["model"], **part)
    state_dicts.load_optimizer(parts.optimizer, parts.model, held["optimizer"], tensors["optimizer"], **part)
    if parts.schedule is not None and held["schedule"]:
        parts.schedule.load_state_dict(state_dicts.unpack(held["schedule"], tensors["optimizer"]))
    if loop.scaler is not None and held["scaler"]:
        loop.scaler.load_state_dict(held["scaler"])
    if loop.average is not None:
        state_dicts.load_model(loop.average, tensors.get("average", {}), **part)
    rank, others = 0 if loop.together is None else loop.together.ranks.rank, held.get("ranks", [])
    state_dicts.load_random_state(others[rank - 1] if 0 < rank <= len(others) else held["random"], parts.device)
    if rank > len(others):  # more processes than there were: draws of its own, which follow from those of the first
        torch.manual_seed(int(torch.randint(2**62, ())) + rank)
