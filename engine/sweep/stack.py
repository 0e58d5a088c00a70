"""Stack: the weights and the optimizers' states of several trainings as the rows of one tensor, and the step of all of them.

What each training calls its weights and its optimizer's state are views of its row: validation, checkpoints and a resume know
nothing of the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from engine.data.batches import ResidentBatches
from engine.execution.generators import random_state, set_random_state
from engine.parts import Parts

STATE = {  # of each optimizer
    "SGD": ("momentum_buffer",),
    "Adam": ("exp_avg", "exp_avg_sq"),
    "AdamW": ("exp_avg", "exp_avg_sq"),
}


class Misfit(Exception):
    """Why these trainings can't be one step; the text goes on after "because"."""


class Stack:
    """The weights and the optimizers' states of several trainings as one, and the step.

    `parts` must be of recipes that are `alike` and no `misfit`. Raises Misfit where the step of all can't be made, or would not
    be the step of each.
    """

    def __init__(self, parts: Sequence[Parts]) -> None:
        self.parts = list(parts)
        for other in parts:
            share(parts[0], other)
        train = parts[0].train
        assert isinstance(train, ResidentBatches)
        self.train = train
        self._model = _in_training(copy.deepcopy(parts[0].model))
        self._loss = parts[0].loss
        self._optimizer = type(parts[0].optimizer).__name__
        self._steps_of: dict[tuple[int, ...], GraphModule] = {}
        self._gather()
        self._try()
        for position in range(len(self.parts)):
            self._attach(position)

    # The rows

    def _gather(self) -> None:
        """Copy what the trainings hold into rows."""
        names = {id(parameter): name for name, parameter in self.parts[0].model.named_parameters()}
        groups = self.parts[0].optimizer.param_groups
        order = [parameter for group in groups for parameter in group["params"]]
        self._names = [names[id(parameter)] for parameter in order]
        self._shapes = [parameter.shape for parameter in order]
        self._sizes = [parameter.numel() for parameter in order]
        rows = [_parameters(parts) for parts in self.parts]
        self.flat = torch.stack([torch.cat([p.detach().reshape(-1) for p in row]) for row in rows])
        self.state = {
            key: torch.stack(
                [
                    torch.cat([_held(parts, p, key).reshape(-1) for p in row])
                    for parts, row in zip(self.parts, rows, strict=True)
                ]
            )
            for key in STATE[self._optimizer]
        }
        self.steps = torch.stack(
            [torch.stack([_counted(parts, p) for p in row]) for parts, row in zip(self.parts, rows, strict=True)]
        )
        others = [_others(parts.model, set(self._names)) for parts in self.parts]
        self.others = {name: torch.stack([each[name].detach() for each in others]) for name in others[0]}
        ends = list(accumulate(map(_size, groups)))
        firsts = [0, *accumulate(len(group["params"]) for group in groups)]
        self._columns = [slice(end - size, end) for end, size in zip(ends, map(_size, groups), strict=True)]
        self._rows = [
            [
                (self.flat[i, columns], [held[i, columns] for held in self.state.values()], self.steps[i, first])
                for columns, first in zip(self._columns, firsts, strict=False)
            ]
            for i in range(len(self.parts))
        ]

    def _attach(self, position: int) -> None:
        """Let a training's weights and state be views of its row."""
        parts = self.parts[position]
        row = _parameters(parts)
        views = self._split(self.flat[position])
        states = {key: self._split(held[position]) for key, held in self.state.items()}
        for k, parameter in enumerate(row):
            parameter.data = views[k]
            held = {key: values[k] for key, values in states.items()}
            if self._optimizer == "SGD":
                held = held if _momentum(parts, parameter) else {}
            else:
                held["step"] = self.steps[position, k]
            parts.optimizer.state[parameter] = held
        for name, tensor in _others(parts.model, set(self._names)).items():
            tensor.data = self.others[name][position]
        parts.optimizer._opt_called = True  # type: ignore[attr-defined]  # a scheduler asks whether steps are taken

    def leave(self, positions: Sequence[int]) -> None:
        """Give these trainings what is theirs; the others move together."""
        for position in positions:
            self._release(position)
        self._keep([parts for position, parts in enumerate(self.parts) if position not in positions])

    def _release(self, position: int) -> None:
        parts = self.parts[position]
        for parameter in _parameters(parts):
            parameter.data = parameter.data.clone()
            held = parts.optimizer.state[parameter]
            parts.optimizer.state[parameter] = {key: value.clone() for key, value in held.items()}
        for tensor in _others(parts.model, set(self._names)).values():
            tensor.data = tensor.data.clone()

    def _keep(self, kept: list[Parts]) -> None:
        self.parts = kept
        if kept:
            self._gather()
            for position in range(len(kept)):
                self._attach(position)

    def _split(self, row: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(row.split(self._sizes), self._shapes, strict=True)]

    # The step

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples of each training's own `indices` (M, B)."""
        chosen = indices.reshape(-1)
        inputs, targets = self.train.inputs.index_select(0, chosen), self.train.targets.index_select(0, chosen)
        return inputs.view(*indices.shape, *inputs.shape[1:]), targets.view(*indices.shape, *targets.shape[1:])

    def gradients(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (M,) and the gradients in rows. Buffers such as running means move on."""
        losses, gradients = self._step(inputs, targets)(self.flat, self.others, inputs, targets)
        return losses, gradients

    def _step(self, inputs: Tensor, targets: Tensor) -> GraphModule:
        """The step for batches of this shape as a list of torch's operations, without vmap's cost for each."""
        step = self._steps_of.get(tuple(inputs.shape))
        if step is None:

            def whole(flat: Tensor, others: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
                return self._all(flat, others, inputs, targets)

            others = {name: held.clone() for name, held in self.others.items()}  # tracing computes, and moves buffers
            step = self._steps_of[tuple(inputs.shape)] = _slim(make_fx(whole)(self.flat, others, inputs, targets))
        return step

    def _all(self, flat: Tensor, others: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        parts = zip(self._names, flat.split(self._sizes, 1), self._shapes, strict=True)
        weights = {name: part.view(-1, *shape) for name, part, shape in parts}

        def loss(weights: Mapping[str, Tensor], others: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            return self._loss(functional_call(self._model, {**weights, **others}, (inputs,)), targets)

        gradients, losses = vmap(grad_and_value(loss))(weights, others, inputs, targets)
        return losses, torch.cat([gradients[name].reshape(len(flat), -1) for name in self._names], 1)

    @staticmethod
    def broken(losses: Tensor, gradients: Tensor) -> list[int]:
        """Which trainings have a loss or a gradient that is not finite."""
        found = torch.zeros(())
        torch._amp_foreach_non_finite_check_and_unscale_([losses, gradients], found, torch.ones(()))
        if found.item() == 0:
            return []
        finite = losses.isfinite() & gradients.isfinite().all(1)
        return (~finite).nonzero().flatten().tolist()

    def clip(
        self, gradients: Tensor, norm: Sequence[float | None], value: Sequence[float | None], measure: bool
    ) -> Tensor | None:
        """Keep each training's gradients within its own bounds; their norms before that, where somebody asks."""
        norms = None
        if measure or any(limit is not None for limit in norm):
            norms = gradients.norm(dim=1)
            limits = torch.tensor([float("inf") if limit is None else limit for limit in norm])
            gradients.mul_((limits / (norms + 1e-6)).clamp_(max=1.0)[:, None])  # as torch.nn.utils.clip_grad_norm_
        if any(limit is not None for limit in value):
            bound = _column(float("inf") if limit is None else limit for limit in value)
            torch.clamp(gradients, -bound, bound, out=gradients)
        return norms

    def update(self, gradients: Tensor) -> None:
        """One step of each training's optimizer, with its own numbers as they stand: torch's fused kernels, a row at a time."""
        self.steps += 1
        for parts, row, of_row in zip(self.parts, self._rows, gradients.unbind(), strict=True):
            for group, columns, (weights, state, steps) in zip(parts.optimizer.param_groups, self._columns, row, strict=True):
                update = self._sgd if self._optimizer == "SGD" else self._adam
                update(group, [weights], [of_row[columns]], [[held] for held in state], [steps])

    @staticmethod
    def _sgd(
        group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], state: list[list[Tensor]], _: list[Tensor]
    ) -> None:
        torch._fused_sgd_(
            weights,
            gradients,
            state[0] if group["momentum"] else [],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=False,  # the buffer is zeros then, which comes to the same
        )

    def _adam(
        self,
        group: dict[str, Any],
        weights: list[Tensor],
        gradients: list[Tensor],
        state: list[list[Tensor]],
        steps: list[Tensor],
    ) -> None:
        decoupled = self._optimizer == "AdamW" or group.get("decoupled_weight_decay")
        (torch._fused_adamw_ if decoupled else torch._fused_adam_)(
            weights,
            gradients,
            state[0],
            state[1],
            [],
            steps,
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    # Whether it is the step of each

    def _try(self) -> None:
        """Hold the step of all to the step of each, on a real batch and on copies. Raises Misfit."""
        samples = min(self.train.batch_size, self.train.samples)
        inputs, targets = self.batch(torch.arange(samples, device=self.flat.device).expand(len(self.parts), -1))
        alone = [self._alone(parts, inputs[i], targets[i]) for i, parts in enumerate(self.parts)]
        others = {name: held.clone() for name, held in self.others.items()}
        try:
            losses, gradients = self._step(inputs, targets)(self.flat, others, inputs, targets)
        except Exception as error:  # of any kind: the user's model, and what torch can't vectorize
            says = (str(error).splitlines() or [type(error).__name__])[0]
            raise Misfit(f"the model can't be vectorized ({says[:200]})") from error
        for i, wanted in enumerate(alone):
            held = [others[name][i] for name in others]
            if not all(map(_close, [losses[i], *self._split(gradients[i]), *held], wanted)):
                raise Misfit("the vectorized step is not the step of each alone")

    def _alone(self, parts: Parts, inputs: Tensor, targets: Tensor) -> list[Tensor]:
        """The loss of one training, its gradients and what of the model moves on by itself."""
        model, random = _in_training(copy.deepcopy(parts.model)), random_state(parts.device)
        before = _plain_values(model)
        loss = self._loss(model(inputs), targets)
        if not all(torch.equal(now, then) for (_, now), (_, then) in zip(random_state(parts.device), random, strict=True)):
            set_random_state(random)
            raise Misfit("the model draws random numbers (dropout), others than each alone would")
        if changed := [name for name, value in _plain_values(model).items() if before.get(name) != value]:
            raise Misfit(f"the model changes its own {changed[0]} while it computes")
        weights = dict(model.named_parameters())
        gradients = torch.autograd.grad(loss, [weights[name] for name in self._names], allow_unused=True)
        if any(gradient is None for gradient in gradients):
            raise Misfit("the model has a parameter that the loss does not depend on")
        return [loss.detach(), *gradients, *_others(model, set(self._names)).values()]


def _in_training(model: nn.Module) -> nn.Module:
    """As the loop has it: modules that were set to evaluation on their own stay so."""
    return model if model.training else model.train()


def share(first: Parts, other: Parts) -> None:
    """Let both hold the same data, once in memory. Raises Misfit where what they train on is not the same."""
    if not isinstance(first.train, ResidentBatches):
        raise Misfit("the data is not held in memory")
    if not _shared(first.train, other.train):
        raise Misfit("their training data is not the same")
    _shared(first.validation, other.validation)


def _shared(one: object, other: object) -> bool:
    if not (isinstance(one, ResidentBatches) and isinstance(other, ResidentBatches)):
        return False
    if not (one is other or (_equal(one.inputs, other.inputs) and _equal(one.targets, other.targets))):
        return False
    other.inputs, other.targets = one.inputs, one.targets
    return True


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _size(group: dict[str, Any]) -> int:
    return sum(parameter.numel() for parameter in group["params"])


def _parameters(parts: Parts) -> list[nn.Parameter]:
    return [parameter for group in parts.optimizer.param_groups for parameter in group["params"]]


def _others(model: nn.Module, trained: set[str]) -> dict[str, Tensor]:
    """Frozen parameters and buffers."""
    everything = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor for name, tensor in everything if name not in trained}


def _held(parts: Parts, parameter: nn.Parameter, key: str) -> Tensor:
    """The optimizer's state of that name; zeros before the first step."""
    held: Tensor | None = parts.optimizer.state[parameter].get(key)
    return torch.zeros_like(parameter.detach()) if held is None else held


def _counted(parts: Parts, parameter: nn.Parameter) -> Tensor:
    step: Tensor | None = parts.optimizer.state[parameter].get("step")
    return torch.zeros((), device=parameter.device) if step is None else step


def _momentum(parts: Parts, parameter: nn.Parameter) -> float:
    groups = parts.optimizer.param_groups
    return next(float(group["momentum"]) for group in groups if any(parameter is each for each in group["params"]))


def _column(values: Iterable[float]) -> Tensor:
    return torch.tensor([float(value) for value in values])[:, None]


def _slim(step: GraphModule) -> GraphModule:
    """Without the calls that only concern gradients of gradients."""
    for node in list(step.graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            step.graph.erase_node(node)
    step.graph.eliminate_dead_code()
    step.recompile()
    return step


def _plain_values(model: nn.Module) -> dict[str, Any]:
    """What modules hold beside tensors, as far as it can be compared."""
    return {
        f"{name}.{key}".lstrip("."): value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple)
    }


def _close(one: Tensor, other: Tensor) -> bool:
    scale = other.abs().max().item() if other.numel() else 0.0
    return bool(((one - other).abs() <= 1e-3 * scale + 1e-6).all())
