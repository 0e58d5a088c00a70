"""All that the processes tell each other of a step in one sum: gradients, and beside them a few numbers.

torch's DDP sums gradients while others are still computed, which is worth its while on GPUs and for large models. For a small
model on the CPU a step is over sooner than two processes have spoken to each other: the fewer times, the better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.distributed.normalized import own_buffers
from engine.distributed.ranks import Ranks

MOST = 25 * 2**20  # bytes of gradients, up to which DDP would have them in one piece as well


class Flat:
    """The gradients of `model` as one tensor."""

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._ranks = ranks
        self._sizes = [p.numel() for p in self._parameters]
        self._all_there = torch.ones(len(self._parameters), dtype=self._parameters[0].dtype)

    @classmethod
    def fits(cls, model: nn.Module, device: torch.device) -> bool:
        """Whether it does as DDP would, which also sees to buffers and to gradients with gaps."""
        held = [p for p in model.parameters() if p.requires_grad]
        if device.type != "cpu" or not held or sum(p.numel() * p.element_size() for p in held) > MOST:
            return False
        if any(True for _ in own_buffers(model)):
            return False
        gaps = any(getattr(part, "sparse", False) for part in model.modules())
        return not gaps and {p.dtype for p in held} in ({torch.float32}, {torch.float64})

    def sum(self, told: Sequence[float], factor: float) -> tuple[list[float], Tensor]:
        """Let the gradients be the sum of those of all ranks, each by its own `factor`; the sums of what each has told.

        And the gradients as one tensor, of which they are parts. A parameter that has none anywhere is left without.
        """
        gradients = [p.grad for p in self._parameters]
        there = self._all_there
        if any(gradient is None for gradient in gradients):
            there = there.new_tensor([gradient is not None for gradient in gradients])
        lines = [
            p.new_zeros(p.numel()) if gradient is None else gradient.reshape(-1)
            for p, gradient in zip(self._parameters, gradients, strict=True)
        ]
        flat = torch.cat([there.new_tensor(told), there, *lines])
        head = len(told) + len(there)
        line = flat[head:]
        if factor == 0:  # a gradient of nothing may be anything
            line.zero_()
        elif factor != 1:
            line.mul_(factor)
        self._ranks.sum(flat)
        somewhere = flat[len(told) : head].tolist() if there is not self._all_there else [1] * len(lines)
        for parameter, part, some in zip(self._parameters, line.split(self._sizes), somewhere, strict=True):
            parameter.grad = part.view(parameter.shape) if some else None
        return flat[: len(told)].tolist(), line
