"""What carries a step out: clearing gradients, backward, the look at them, the update. Plainly, or without waste.

Without waste means no profiler's scopes, no rounds of hooks where there is none, and no operation for each small tensor:
torch's SGD, Adam and AdamW are carried out operation by operation as torch does it, but on lists of tensors, and where a group
is small on one flat tensor. On the CPU that is the same arithmetic for each element, to the last bit, and every other optimizer
takes its own step, undressed. On a GPU fused kernels are called as torch calls them, with what the guard has found.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.optim import SGD, Adam, AdamW, Optimizer

from engine.execution.chain import Chain
from engine.execution.direct import Direct

if TYPE_CHECKING:
    from engine.loop import Loop

FLAT = 1 << 16  # elements of a group up to which its state is one flat tensor
Update = Callable[[list[Tensor]], None]


class Hands:
    """By torch's own public ways."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def settle(self) -> None:
        """Let the optimizer's state be in the tensors in which it stays, unless another is loaded."""

    def begin(self, loop: Loop) -> None:
        """An epoch of this loop begins."""

    def forward(self, loop: Loop, inputs: Any, targets: Tensor) -> Tensor:
        """The loss of one batch, a scalar with its graph."""
        with loop.precision():
            output = loop.model(inputs)
            return loop.loss(output, targets)

    def derive(self, loop: Loop, inputs: Any, targets: Tensor) -> Tensor:
        """Forward, loss and backward of one batch: its loss, without a graph."""
        loss = loop.forward(inputs, targets)
        self.backward(loss if loop.scaler is None else loop.scaler.scale(loss))
        return loss.detach()

    def chain(self, loop: Loop, inputs: Any) -> Chain | None:
        """What can do this in autograd's place."""
        return None

    def clear(self) -> None:
        self.optimizer.zero_grad()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def finite(self) -> bool:
        """One pass over all gradients by the kernel of torch's GradScaler, which here divides by 1; waits for it."""
        return _finite([p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None])

    def update(self) -> None:
        self.optimizer.step()


def _finite(gradients: list[Tensor]) -> bool:
    found = torch.zeros((), device=gradients[0].device) if gradients else torch.zeros(())
    dense = [gradient._values() if gradient.is_sparse else gradient for gradient in gradients]
    torch._amp_foreach_non_finite_check_and_unscale_(dense, found, torch.ones_like(found))
    return found.item() == 0


class LeanHands(Hands):
    """Without waste. Groups and state of the optimizer stay the truth: what is loaded into it or set there acts."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._groups: Any = None  # the optimizer's list of groups: it is another one after a state was loaded
        self._parameters: list[Tensor] = []
        self._members: list[Group] = []
        self._gathered: list[list[Tensor]] | None = None
        self._early = True  # before the first step
        self._direct: Direct | None = None
        self._chain: Chain | None = None
        self._one = torch.ones(())
        self._step = undressed(optimizer)

    @staticmethod
    def fits(optimizer: Optimizer, device: torch.device) -> bool:
        """Whether it is one of torch's own and on the CPU, or one with fused kernels on a GPU."""
        if device.type == "cuda":
            return type(optimizer) in KINDS and all(group.get("fused") for group in optimizer.param_groups)
        return type(optimizer).__module__.startswith("torch.optim.") and device.type == "cpu"

    def begin(self, loop: Loop) -> None:
        self._direct = direct = Direct.of(loop.model, loop.loss) if loop.precision is nullcontext else None
        chain = Chain.of(direct.model, direct.loss, direct.layers) if direct is not None and loop.scaler is None else None
        self._chain = chain and chain.follow(self._chain)

    def forward(self, loop: Loop, inputs: Any, targets: Tensor) -> Tensor:
        direct = self._direct
        return super().forward(loop, inputs, targets) if direct is None or not direct.holds(loop) else direct(inputs, targets)

    def chain(self, loop: Loop, inputs: Any) -> Chain | None:
        chain, direct = self._chain, self._direct
        return chain if chain is not None and direct is not None and direct.holds(loop) and chain.takes(inputs) else None

    def derive(self, loop: Loop, inputs: Any, targets: Tensor) -> Tensor:
        chain = self.chain(loop, inputs)
        if chain is None:
            return super().derive(loop, inputs, targets)
        if not chain.proven(inputs, targets):
            return chain.prove(inputs, targets, lambda: super(LeanHands, self).derive(loop, inputs, targets))
        with torch.no_grad():
            loss = chain.criterion(chain.forward(inputs), targets)
            chain.backward(self._seed(loss))
        return loss

    def settle(self) -> None:
        if self.optimizer.param_groups is not self._groups:
            self._bind()

    def clear(self) -> None:
        self.settle()
        self._gathered = None
        for parameter in self._parameters:
            parameter.grad = None

    def backward(self, loss: Tensor) -> None:
        Variable._execution_engine.run_backward(
            (loss,), (self._seed(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )

    def _seed(self, loss: Tensor) -> Tensor:
        """The gradient of the loss: a 1."""
        one = self._one
        return one if loss.dtype == one.dtype and loss.device == one.device else torch.ones_like(loss)

    def finite(self) -> bool:
        """Looks at the squares first, which may overflow: only then at each gradient."""
        if self._one.is_cuda:  # where each look would be a wait
            return super().finite()
        self._gathered = gathered = self._gather()
        if gathered is None:
            return super().finite()
        total = 0.0
        for gradients in gathered:
            for gradient in gradients:
                line = gradient.view(-1) if gradient.is_contiguous() else gradient.reshape(-1)
                total += torch.dot(line, line).item()
        return math.isfinite(total) or _finite([gradient for gradients in gathered for gradient in gradients])

    def update(self) -> None:
        optimizer = self.optimizer
        if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
            optimizer.step()
            return
        gathered = self._gathered or self._gather()
        if gathered is not None:  # of tensors that know nothing of gradients
            for member, gradients in zip(self._members, gathered, strict=True):
                member.update(gradients)
            return
        with torch.no_grad():
            self._step()
        if self._early:
            self._groups = None  # what the first step has made is there now

    def _bind(self) -> None:
        optimizer = self.optimizer
        self._groups = optimizer.param_groups
        self._parameters = [p for group in self._groups for p in group["params"]]
        self._one = torch.ones((), device=self._parameters[0].device)
        self._early = not optimizer.state
        kind = KINDS.get(type(optimizer))
        self._members = [kind(optimizer, group) for group in self._groups] if kind and _whole(optimizer) else []
        optimizer._opt_called = True  # type: ignore[attr-defined]  # or schedulers warn that no step was taken before theirs

    def _gather(self) -> list[list[Tensor]] | None:
        """The gradients of each group, in one flat tensor where its state is; None where the optimizer must see to it."""
        gathered = []
        for member in self._members:
            gradients = [p.grad for p in member.parameters if p.grad is not None]
            if len(gradients) < len(member.parameters):
                return None
            gathered.append([torch.cat([g.reshape(-1) for g in gradients])] if member.flat else gradients)
        return gathered or None


def undressed(optimizer: Optimizer) -> Callable[..., Any]:
    """The optimizer's step without what torch wraps it in: a profiler's scope, hooks, and switching gradients off."""
    function: Any = type(optimizer).step
    while hasattr(function, "__wrapped__") and f"{os.sep}torch{os.sep}" in function.__code__.co_filename:
        function = function.__wrapped__
    return function.__get__(optimizer)  # type: ignore[no-any-return]


def _whole(optimizer: Optimizer) -> bool:
    """Whether every group is of the usual kind, and the state that a first step makes is there."""
    for group in optimizer.param_groups:
        if any(group.get(key) for key in ("maximize", "amsgrad", "capturable", "differentiable")):
            return False
        if isinstance(group["lr"], Tensor) or not group["params"]:
            return False
        states = [optimizer.state[p] for p in group["params"] if p in optimizer.state]
        if not (isinstance(optimizer, SGD) and group["momentum"] == 0) and len(states) != len(group["params"]):
            return False
        if len({float(state["step"]) for state in states if "step" in state}) > 1:
            return False
        if any(p.dtype not in (torch.float32, torch.float64) or not p.is_contiguous() for p in group["params"]):
            return False
        if len({(p.dtype, p.device) for p in group["params"]}) > 1:
            return False
    return True


class Group(ABC):
    """A parameter group and the update of its parameters from their gradients."""

    flat = False

    def __init__(self, optimizer: Optimizer, options: dict[str, Any]) -> None:
        self.optimizer = optimizer
        self.options = options
        self.parameters: list[Tensor] = options["params"]
        self.weights = [p.detach() for p in self.parameters]
        self.states = [optimizer.state[p] for p in self.parameters if p in optimizer.state]

    @property
    def scaling(self) -> dict[str, Tensor | None]:
        """What a scaler or the guard tells a fused kernel, as torch's own step passes it on."""
        optimizer = self.optimizer
        return {"grad_scale": getattr(optimizer, "grad_scale", None), "found_inf": getattr(optimizer, "found_inf", None)}

    @abstractmethod
    def update(self, gradients: list[Tensor]) -> None:
        """One step, from the gradients of all parameters."""


class SGDGroup(Group):
    def __init__(self, optimizer: Optimizer, options: dict[str, Any]) -> None:
        super().__init__(optimizer, options)
        self.buffers = [state["momentum_buffer"] for state in self.states] if options["momentum"] != 0 else []

    def update(self, gradients: list[Tensor]) -> None:
        options = self.options
        lr, decay, momentum = options["lr"], options["weight_decay"], options["momentum"]
        if options["fused"]:
            torch._fused_sgd_(
                self.weights,
                gradients,
                self.buffers,
                weight_decay=decay,
                momentum=momentum,
                lr=lr,
                dampening=options["dampening"],
                nesterov=options["nesterov"],
                maximize=False,
                is_first_step=False,
                **self.scaling,
            )
            return
        if decay != 0:
            gradients = torch._foreach_add(gradients, self.weights, alpha=decay)  # type: ignore[assignment]
        if self.buffers:
            torch._foreach_mul_(self.buffers, momentum)
            torch._foreach_add_(self.buffers, gradients, alpha=1 - options["dampening"])
            nesterov = options["nesterov"]
            gradients = torch._foreach_add(gradients, self.buffers, alpha=momentum) if nesterov else self.buffers  # type: ignore[assignment]
        torch._foreach_add_(self.weights, gradients, alpha=-lr)


class AdamGroup(Group):
    """Adam and AdamW."""

    def __init__(self, optimizer: Optimizer, options: dict[str, Any]) -> None:
        super().__init__(optimizer, options)
        self.counts = [state["step"] for state in self.states]
        self.flat = not options["fused"] and sum(p.numel() for p in self.parameters) <= FLAT
        if self.flat:
            self.means, self.squares = [self._flattened("exp_avg")], [self._flattened("exp_avg_sq")]
            self.count = torch.stack(self.counts)
            for state, view in zip(self.states, self.count.unbind(), strict=True):
                state["step"] = view
            sizes = [p.numel() for p in self.parameters]
            self.roots = torch.empty_like(self.squares[0])
            self.flat_weights = [weight.view(-1) for weight in self.weights]
            self.flat_means, self.flat_roots = self.means[0].split(sizes), self.roots.split(sizes)
        else:
            self.means = [state["exp_avg"] for state in self.states]
            self.squares = [state["exp_avg_sq"] for state in self.states]

    def _flattened(self, key: str) -> Tensor:
        """The state `key` of all parameters as one tensor; the optimizer's own become views of it."""
        flat = torch.cat([state[key].reshape(-1) for state in self.states])
        views = flat.split([p.numel() for p in self.parameters])
        for state, view, parameter in zip(self.states, views, self.parameters, strict=True):
            state[key] = view.view_as(parameter)
        return flat

    def update(self, gradients: list[Tensor]) -> None:
        options = self.options
        lr, decay, eps, (beta1, beta2) = options["lr"], options["weight_decay"], options["eps"], options["betas"]
        if options["fused"]:
            torch._foreach_add_(self.counts, 1)
            scaling = self.scaling
            fused = torch._fused_adamw_ if options["decoupled_weight_decay"] else torch._fused_adam_
            fused(
                self.weights,
                gradients,
                self.means,
                self.squares,
                [],
                self.counts,
                lr=lr,
                beta1=beta1,
                beta2=beta2,
                weight_decay=decay,
                eps=eps,
                amsgrad=False,
                maximize=False,
                **scaling,
            )
            if scaling["found_inf"] is not None:  # then the step was not taken
                torch._foreach_sub_(self.counts, [scaling["found_inf"]] * len(self.counts))
            return
        if self.flat:
            self.count.add_(1)
        else:
            torch._foreach_add_(self.counts, 1)
        steps = (self.count if self.flat else self.counts)[0].item()
        size, root = -(lr / (1 - beta1**steps)), (1 - beta2**steps) ** 0.5
        if decay != 0:
            if options["decoupled_weight_decay"]:
                torch._foreach_mul_(self.weights, 1 - lr * decay)
            elif self.flat:
                gradients = [gradients[0].add(torch.cat(self.flat_weights), alpha=decay)]
            else:
                gradients = torch._foreach_add(gradients, self.weights, alpha=decay)  # type: ignore[assignment]
        if self.flat:
            (gradient,), (mean,), (square,), roots = gradients, self.means, self.squares, self.roots
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            torch.sqrt(square, out=roots).div_(root).add_(eps)
            torch._foreach_addcdiv_(self.flat_weights, self.flat_means, self.flat_roots, size)
        else:
            torch._foreach_lerp_(self.means, gradients, 1 - beta1)
            torch._foreach_mul_(self.squares, beta2)
            torch._foreach_addcmul_(self.squares, gradients, gradients, 1 - beta2)
            divisors = torch._foreach_sqrt(self.squares)
            torch._foreach_div_(divisors, root)
            torch._foreach_add_(divisors, eps)
            torch._foreach_addcdiv_(self.weights, self.means, divisors, size)


KINDS: dict[type[Optimizer], type[Group]] = {SGD: SGDGroup, Adam: AdamGroup, AdamW: AdamGroup}
