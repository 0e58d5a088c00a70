"""The tensors that a step of training reads and changes, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Limit = Callable[[], float | None]
UNUSED = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr")  # what schedulers write to a group
WHOLE = ("lr", "weight_decay", "momentum", "dampening", "lr_decay")  # numbers that may be given as 0 or 1


def is_count(key: str, value: Any) -> bool:
    """Whether an optimizer's state value is a parameter's own count of steps."""
    return key == "step" and isinstance(value, Tensor) and value.ndim == 0


class Tensors:
    """Weights, buffers and the optimizer's state of one training; its numbers (learning rate, …) and limits as tensors too."""

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, limits: Mapping[str, Limit], device: torch.device | str = "cpu"
    ) -> None:
        self.optimizer = optimizer
        self.members: tuple[Optimizer, ...] = getattr(optimizer, "members", (optimizer,))
        named = dict(module.named_parameters())
        ours = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
        self.trained = {name: p for name, p in named.items() if id(p) in ours}
        self.frozen = {name: p for name, p in named.items() if id(p) not in ours}
        self.buffers = dict(module.named_buffers())
        self.state = [
            {key: value for key, value in optimizer.state[p].items() if isinstance(value, Tensor)}
            for p in self.trained.values()
        ]
        counts = [{key: float(value) for key, value in state.items() if is_count(key, value)} for state in self.state]
        self.counted_as = [counts.index(own) for own in counts]  # for each parameter the first that has taken as many steps
        self._numbers = [
            (options, key) for options in optimizer.param_groups for key, value in options.items() if _is_number(key, value)
        ]
        self._limits = limits
        self._values = self._read()
        made = iter([_tensors(value, device) for value in self._values if value is not None])
        self.numbers: list[dict[str, Any]] = [{} for _ in optimizer.param_groups]
        for options, key in self._numbers:
            g = next(i for i, group in enumerate(optimizer.param_groups) if group is options)
            self.numbers[g][key] = next(made)
        self.limits = {name: next(made) for name, limit in limits.items() if limit() is not None}

    def tree(self) -> tuple[Any, ...]:
        """Everything, in the structure in which a traced step takes it."""
        weights = {name: p.detach() for name, p in self.trained.items()}
        frozen = {name: p.detach() for name, p in self.frozen.items()}
        return weights, frozen, self.buffers, self.state, self.numbers, self.limits

    def flat(self) -> list[Tensor]:
        """The same as a list."""
        from torch.utils import _pytree as pytree

        return pytree.tree_leaves(self.tree())  # type: ignore[no-any-return]

    def refresh(self) -> bool:
        """Take over numbers and limits as they are now; whether any has changed."""
        values = self._read()
        if values == self._values:
            return False
        self._values = values
        tensors = [*[tensor for group in self.numbers for tensor in group.values()], *map(self.limits.get, self._limits)]
        for tensor, value in zip(tensors, values, strict=True):
            if tensor is not None and value is not None:
                for part, number in zip(_parts(tensor), _parts(value), strict=True):
                    part.fill_(number)
        return True

    def limited(self) -> tuple[bool, ...]:
        """Which limits there are: with others it is another graph."""
        return tuple(limit() is not None for limit in self._limits.values())

    def _read(self) -> list[Any]:
        return [*[options[key] for options, key in self._numbers], *[limit() for limit in self._limits.values()]]


def _is_number(key: str, value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(isinstance(part, float) for part in value)
    return (isinstance(value, float) and key not in UNUSED) or (type(value) is int and key in WHOLE)


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _tensors(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, tuple):
        return tuple(_tensors(part, device) for part in value)
    return torch.tensor(value, dtype=torch.float64, device=device)
