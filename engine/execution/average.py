"""The exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average(AveragedModel):
    """torch's, with a way to follow the weights on a GPU that never waits for it."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._part = 1 - decay
        device = next(model.parameters()).device
        self.n_averaged = self.n_averaged.to(device)
        self._nothing = torch.zeros((), device=device)

    @torch.no_grad()
    def follow(self, model: nn.Module, found: Tensor | None = None) -> None:
        """What `update_parameters` does; nothing where `found`, a scalar on the device, is not 0: no step was taken then."""
        if found is None and self.n_averaged.device.type == "cpu":
            self.update_parameters(model)
            return
        found = self._nothing if found is None else found
        held, weights = ([_here(p) for p in module.parameters()] for module in (self, model))
        part = ((self.n_averaged == 0) * (1 - self._part) + self._part) * (found == 0)  # whole where there is none yet
        way = torch._foreach_sub(weights, held)
        torch._foreach_mul_(way, part)  # type: ignore[call-overload]
        torch._foreach_add_(held, way)
        for ours, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)
        self.n_averaged.add_(found == 0)


def _here(parameter: Tensor) -> Tensor:
    """What this process holds of it, where the weights are sharded."""
    here: Tensor = getattr(parameter, "to_local", lambda: parameter)()
    return here.detach()
