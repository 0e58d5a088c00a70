"""Guard: keep what is not finite from the weights on a GPU, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer


class Guard:
    """Looks at loss and gradients on the device, where torch's fused optimizers look in turn whether a step may be taken.

    From the first step that is not finite on none is taken any more: the weights stay those of the step before, until the host
    comes to read. `found` is what torch.amp.GradScaler hands to these optimizers as `found_inf`; their own step counts obey it
    as well.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._optimizer = optimizer
        self.found = torch.zeros((), device=device)
        self.missed = torch.zeros((), device=device)  # steps that were not taken
        self.watched = 0  # steps
        self._unchanged = torch.ones((), device=device)

    def obeyed(self) -> Guard:
        """Let the optimizer look at it from now on."""
        self._optimizer.found_inf = self.found  # type: ignore[attr-defined]
        self._optimizer.grad_scale = None  # type: ignore[attr-defined]
        return self

    @staticmethod
    def fits(optimizer: Optimizer) -> bool:
        """Whether the optimizer is one that obeys."""
        supports = getattr(optimizer, "_step_supports_amp_scaling", False)
        return supports and all(group.get("fused") for group in optimizer.param_groups)

    def watch(self, loss: Tensor) -> None:
        """To be called between backward and the optimizer's step. `loss` is a scalar without a graph."""
        watched = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._amp_foreach_non_finite_check_and_unscale_([loss.float().reshape(()), *watched], self.found, self._unchanged)
        self.missed.add_(self.found)
        self.watched += 1

    def steps(self) -> int:
        """How many steps were taken since `reset`. Waits for the device."""
        return self.watched - int(self.missed.item())

    def reset(self) -> None:
        """The weights are others: look anew, and count from 0."""
        self.found.zero_()
        self.missed.zero_()
        self.watched = 0
