"""Loss and gradients of a chain of torch's layers by torch's own kernels alone, without autograd: the same bits, only sooner.

What autograd does between the kernels takes longer than the kernels where a model is small. A layer's derivative is the one of
torch's `tools/autograd/derivatives.yaml`, called in the same order. Nobody need trust that: the first batch of a kind is given
to autograd as well, and where a single bit differs the chain is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Back = Callable[[Tensor], Tensor]  # from the gradient of the output to that of the input; leaves gradients at parameters
Link = Callable[[Tensor], tuple[Tensor, Back]]
Criterion = Callable[[Any, Tensor, Tensor], tuple[Tensor, Back]]
MEAN = 1  # torch's number for that reduction
LANES = 4  # channels from which the CPU finds maxima sooner where they lie together: it compares them at once, without a guess
aten = torch.ops.aten


class Chain:
    """The `layers` of `model`, one after another, and its `loss`: `forward`, `criterion`, `backward`, without gradient mode."""

    def __init__(self, model: nn.Module, loss: nn.Module, layers: Sequence[nn.Module]) -> None:
        self.loss, self.layers = loss, layers
        self._parameters = list(model.parameters())
        first = next(i for i, layer in enumerate(layers) if list(layer.parameters()))
        self._before = layers[:first]  # of what lies before the first parameter no gradient is wanted
        self._links = [LINKS[type(layer)](layer, i > 0) for i, layer in enumerate(layers[first:])]
        self._criterion = LOSSES[type(loss)]
        self._backs: list[Back] = []
        self._kind: tuple[object, ...] | None = None  # of the batches for which it has proven itself
        self._differs = False

    @classmethod
    def of(cls, model: nn.Module, loss: Any, layers: Sequence[nn.Module]) -> Chain | None:
        """None where the derivative of a part is not known here."""
        held = [parameter for layer in layers for parameter in layer.parameters()]
        if not held or len({id(p) for p in held}) < len(held):  # one that is in two places gets a sum of gradients
            return None
        if any(type(layer) is nn.Dropout and layer.p > 0 for layer in layers) and held[0].device.type != "cpu":
            return None  # there one kernel draws and multiplies
        known = all(type(layer) in LINKS and _usual(layer) for layer in layers)
        return cls(model, loss, layers) if known and type(loss) in LOSSES and _usual(loss) else None

    def takes(self, inputs: Any) -> bool:
        """Whether it may take a batch: no gradient is there to be added to, and nobody asks to hear of one.

        Whether modules have hooks is for others to see.
        """
        if self._differs or type(inputs) is not Tensor or inputs.requires_grad or torch.is_anomaly_enabled():
            return False
        for parameter in self._parameters:
            if parameter.grad is not None or not parameter.requires_grad:
                return False
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
                return False
        return True

    def proven(self, inputs: Tensor, targets: Tensor) -> bool:
        """Whether it has been shown to give autograd's bits for batches of this kind."""
        return _kind(inputs, targets) == self._kind

    def prove(self, inputs: Tensor, targets: Tensor, derive: Callable[[], Tensor]) -> Tensor:
        """The loss that `derive` returns, whose gradients are there then; and see whether those of the chain are the same."""
        before = torch.get_rng_state()
        loss = derive()
        if not loss.isfinite():  # of which no two are the same: the next batch shows it
            return loss
        gradients = [parameter.grad for parameter in self._parameters]
        try:
            with torch.random.fork_rng(devices=()), torch.no_grad():
                torch.set_rng_state(before)
                ours = self.criterion(self.forward(inputs), targets)
                self.backward(torch.ones_like(ours))
            pairs = [(ours, loss), *((p.grad, gradient) for p, gradient in zip(self._parameters, gradients, strict=True))]
            self._differs = not all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)
        except RuntimeError:  # shapes that are another formula's: autograd has taken them
            self._differs = True
        finally:
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
        self._kind = _kind(inputs, targets)
        return loss

    def follow(self, earlier: Chain | None) -> Chain:
        """What was proven of the same layers holds."""
        if earlier is not None and earlier.loss is self.loss and earlier.layers == self.layers:
            self._kind, self._differs = earlier._kind, earlier._differs
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self._before:
            inputs = layer.forward(inputs)
        self._backs = []
        for link in self._links:
            inputs, back = link(inputs)
            self._backs.append(back)
        return inputs

    def criterion(self, output: Tensor, targets: Tensor) -> Tensor:
        loss, back = self._criterion(self.loss, output, targets)
        self._backs.append(back)
        return loss

    def backward(self, gradient: Tensor) -> None:
        """From the gradient of the loss, a 1, to those of the parameters, which have none yet."""
        backs = self._backs
        while backs:
            gradient = backs.pop()(gradient)


def _kind(inputs: Tensor, targets: Tensor) -> tuple[object, ...]:
    """All of a batch but how many samples it has."""
    return inputs.shape[1:], targets.shape[1:], inputs.dtype, targets.dtype


def _usual(layer: nn.Module) -> bool:
    """Whether it is set so that its derivative is the one below."""
    match layer:
        case nn.Conv2d():
            return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        case nn.MaxPool2d():
            return not layer.return_indices
        case nn.MSELoss() | nn.L1Loss() | nn.SmoothL1Loss() | nn.HuberLoss():
            return layer.reduction == "mean"
        case nn.CrossEntropyLoss():
            return layer.reduction == "mean" and layer.label_smoothing == 0
    return True


def _linear(layer: nn.Module, inner: bool) -> Link:
    held = layer._parameters

    def link(inputs: Tensor) -> tuple[Tensor, Back]:
        weight, bias = held["weight"], held["bias"]
        assert weight is not None

        def back(gradient: Tensor) -> Tensor:
            if bias is not None:
                bias.grad = gradient.sum(0)
            weight.grad = gradient.t().mm(inputs)
            return gradient.mm(weight) if inner else gradient

        return functional.linear(inputs, weight, bias), back

    return link


def _conv2d(layer: Any, inner: bool) -> Link:
    stride, padding, dilation, groups = layer.stride, layer.padding, layer.dilation, layer.groups
    held = layer._parameters

    def link(inputs: Tensor) -> tuple[Tensor, Back]:
        weight, bias = held["weight"], held["bias"]
        sizes, mask = None if bias is None else list(bias.shape), [inner, True, bias is not None]

        def back(gradient: Tensor) -> Tensor:
            given = (gradient, inputs, weight, sizes, stride, padding, dilation, False, [0, 0], groups, mask)
            found, weight.grad, of_bias = aten.convolution_backward.default(*given)
            if bias is not None:
                bias.grad = of_bias
            return found if inner else gradient

        return torch.conv2d(inputs, weight, bias, stride, padding, dilation, groups), back

    return link


def _max_pool2d(layer: Any, inner: bool) -> Link:
    sides = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    options = [*([side, side] if isinstance(side, int) else list(side) for side in sides), layer.ceil_mode]

    def link(inputs: Tensor) -> tuple[Tensor, Back]:
        seen = inputs
        if not inputs.is_cuda and inputs.dim() == 4 and inputs.shape[1] >= LANES and inputs.is_contiguous():
            seen = inputs.contiguous(memory_format=torch.channels_last)
        output, indices = aten.max_pool2d_with_indices.default(seen, *options)
        output = output if seen is inputs else output.contiguous()
        return output, lambda gradient: aten.max_pool2d_with_indices_backward.default(gradient, inputs, *options, indices)

    return link


def _dropout(layer: Any, inner: bool) -> Link:
    def link(inputs: Tensor) -> tuple[Tensor, Back]:
        if not layer.training or layer.p == 0:
            return inputs, lambda gradient: gradient
        kept = torch.empty_like(inputs).bernoulli_(1 - layer.p).div_(1 - layer.p)
        return inputs * kept, lambda gradient: gradient * kept

    return link


def _of(derivative: Callable[[Any, Tensor, Tensor, Tensor], Tensor]) -> Callable[[Any, bool], Link]:
    """A layer without parameters, from the gradient of its input: a function of layer, gradient, inputs and output."""

    def make(layer: Any, inner: bool) -> Link:
        def link(inputs: Tensor) -> tuple[Tensor, Back]:
            output = layer.forward(inputs)
            return output, lambda gradient: derivative(layer, gradient, inputs, output)

        return link

    return make


def _cross_entropy(loss: Any, output: Tensor, targets: Tensor) -> tuple[Tensor, Back]:
    logs, rest = torch.log_softmax(output, 1), (loss.weight, MEAN, loss.ignore_index)
    value, total = aten.nll_loss_forward.default(logs, targets, *rest)

    def back(gradient: Tensor) -> Tensor:
        gradient = aten.nll_loss_backward.default(gradient, logs, targets, *rest, total)
        return aten._log_softmax_backward_data.default(gradient, logs, 1, output.dtype)  # type: ignore[no-any-return]

    return value, back


def _of_numbers(
    value: Callable[[Any, Tensor, Tensor], Tensor], derivative: Callable[[Any, Tensor, Tensor, Tensor], Tensor]
) -> Criterion:
    """A loss of numbers, and the gradient of its output: a function of loss, gradient, output and targets."""
    return lambda loss, output, targets: (value(loss, output, targets), lambda g: derivative(loss, g, output, targets))


LINKS: dict[type[nn.Module], Callable[[Any, bool], Link]] = {
    nn.Linear: _linear,
    nn.Conv2d: _conv2d,
    nn.MaxPool2d: _max_pool2d,
    nn.Dropout: _dropout,
    nn.Flatten: _of(lambda layer, g, x, y: g.reshape(x.shape)),
    nn.Unflatten: _of(lambda layer, g, x, y: g.reshape(x.shape)),
    nn.Identity: _of(lambda layer, g, x, y: g),
    nn.ReLU: _of(lambda layer, g, x, y: aten.threshold_backward.default(g, y, 0)),
    nn.LeakyReLU: _of(lambda layer, g, x, y: aten.leaky_relu_backward.default(g, x, layer.negative_slope, False)),
    nn.ELU: _of(lambda layer, g, x, y: aten.elu_backward.default(g, layer.alpha, 1, 1, False, x)),
    nn.GELU: _of(lambda layer, g, x, y: aten.gelu_backward.default(g, x, approximate=layer.approximate)),
    nn.SiLU: _of(lambda layer, g, x, y: aten.silu_backward.default(g, x)),
    nn.Mish: _of(lambda layer, g, x, y: aten.mish_backward.default(g, x)),
    nn.Tanh: _of(lambda layer, g, x, y: aten.tanh_backward.default(g, y)),
    nn.Sigmoid: _of(lambda layer, g, x, y: aten.sigmoid_backward.default(g, y)),
}
LOSSES: dict[type[nn.Module], Criterion] = {
    nn.CrossEntropyLoss: _cross_entropy,
    nn.MSELoss: _of_numbers(
        lambda loss, x, y: aten.mse_loss.default(x, y, MEAN),
        lambda loss, g, x, y: aten.mse_loss_backward.default(g, x, y, MEAN),
    ),
    nn.L1Loss: _of_numbers(
        lambda loss, x, y: (x - y).abs().mean(),
        lambda loss, g, x, y: (g.expand_as(x) / x.numel()) * (x - y).sgn(),
    ),
    nn.SmoothL1Loss: _of_numbers(
        lambda loss, x, y: loss.forward(x, y),
        lambda loss, g, x, y: aten.smooth_l1_loss_backward.default(g, x, y, MEAN, loss.beta),
    ),
    nn.HuberLoss: _of_numbers(
        lambda loss, x, y: loss.forward(x, y),
        lambda loss, g, x, y: aten.huber_loss_backward.default(g, x, y, MEAN, loss.delta),
    ),
}
