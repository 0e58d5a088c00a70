"""The same operations as a call of a model of torch's own layers, without its modules: to the last bit, only sooner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as hooked

from engine.models.mlp import MLP

Call = Callable[..., Any]


class Direct:
    """Forward and loss of `model` and `loss`, for as long as `hooks` are all empty. To be made anew for each epoch."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Tensor], Tensor], layers: list[Call]) -> None:
        self.model, self.loss = model, loss
        self._layers = layers
        self._loss = _loss(loss)
        parts = [*model.modules(), *(loss.modules() if isinstance(loss, nn.Module) else ())]
        names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        everywhere = [getattr(hooked, f"_global{name}") for name in names]
        self.hooks: list[Any] = [*everywhere, *(getattr(part, name) for part in parts for name in names)]

    @classmethod
    def of(cls, model: Any, loss: Callable[[Any, Tensor], Tensor]) -> Direct | None:
        """None for a model that is not a chain of torch's layers."""
        if not isinstance(model, nn.Module) or any("forward" in vars(part) for part in model.modules()):
            return None
        layers = list(_layers(model))
        known = [layer for layer in layers if layer is not None]
        return cls(model, loss, known) if len(known) == len(layers) else None

    def __call__(self, inputs: Any, targets: Tensor) -> Tensor:
        for layer in self._layers:
            inputs = layer(inputs)
        return self._loss(inputs, targets)


def _layers(module: nn.Module) -> Iterator[Call | None]:
    """What is called one after another; None among it where that is not known."""
    kind = type(module)
    if kind is nn.Sequential or kind is MLP:
        for part in module.children() if kind is nn.Sequential else (module.layers,):
            yield from _layers(part)  # type: ignore[arg-type]
    elif kind is nn.Linear:
        held = module._parameters
        yield lambda inputs: functional.linear(inputs, held["weight"], held["bias"])  # type: ignore[arg-type]
    elif kind is nn.ReLU and not module.inplace:
        yield torch.relu
    else:
        yield module.forward if kind.__module__.startswith("torch.nn.modules.") else None


def _loss(loss: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Without the look at shapes that are the same, for the mean of squares."""
    if type(loss) is nn.MSELoss and loss.reduction == "mean" and "forward" not in vars(loss):
        squares: Call = torch._C._nn.mse_loss  # type: ignore[assignment]  # whose reductions are numbers: 1 is the mean
        return lambda output, targets: (
            squares(output, targets, 1) if type(output) is Tensor and output.shape == targets.shape else loss(output, targets)
        )
    if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn.modules."):
        forward: Callable[[Any, Tensor], Tensor] = loss.forward
        return forward
    return loss
