"""The same operations as a call of a model of torch's own layers, without its modules: to the last bit, only sooner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as hooked

from engine.models.cnn import CNN
from engine.models.mlp import MLP

if TYPE_CHECKING:
    from engine.loop import Loop

Call = Callable[..., Any]


class Direct:
    """Forward and loss of `model` and `loss`, for as long as `hooks` are all empty. To be made anew for each epoch."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Tensor], Tensor], layers: list[nn.Module]) -> None:
        self.model, self.loss, self.layers = model, loss, layers
        self._calls = [_call(layer) for layer in layers]
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
        known = all(type(layer).__module__.startswith("torch.nn.modules.") for layer in layers)
        return cls(model, loss, layers) if known else None

    def holds(self, loop: Loop) -> bool:
        """Whether it does what the loop would."""
        return self.model is loop.model and self.loss is loop.loss and not any(self.hooks)

    def __call__(self, inputs: Any, targets: Tensor) -> Tensor:
        for call in self._calls:
            inputs = call(inputs)
        return self._loss(inputs, targets)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """What is called one after another."""
    if type(module) in (nn.Sequential, MLP, CNN):  # whose parts are in the order in which they are called
        for part in module.children():
            yield from _layers(part)
    else:
        yield module


def _call(layer: nn.Module) -> Call:
    if type(layer) is nn.Linear:
        held = layer._parameters
        return lambda inputs: functional.linear(inputs, held["weight"], held["bias"])  # type: ignore[arg-type]
    if type(layer) is nn.ReLU and not layer.inplace:
        return torch.relu
    forward: Call = layer.forward
    return forward


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
