"""The whole step as one compiled function: forward, loss, backward, clipping, the guard against NaN and the optimizer.

The step is traced once with stand-ins for its tensors. The optimizer's own `step` is what is traced, with its numbers (learning
rate, momentum, …) as tensors, so that what a schedule or a person changes acts at once. Inductor compiles the graph, and the
loop calls its function directly: no guards, no dispatch, no autograd engine. What it calls are private names of torch; whatever
fails here is said in a sentence, and the run stays eager.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

Numbers = list[dict[str, Tensor]]  # of each parameter group: its options that are floats, as tensors


class Held:
    """The tensors that a step reads and changes, as a flat list in a fixed order."""

    def __init__(self, module: nn.Module, optimizer: Optimizer) -> None:
        self.module, self.optimizer = module, optimizer
        self.parameters = dict(module.named_parameters())
        self.buffers = dict(module.named_buffers())
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]
        self.state = [
            {key: value for key, value in optimizer.state[p].items() if isinstance(value, Tensor) and not _counts(key, value)}
            for p in self.trained
        ]
        self.counters = [value for p in self.trained for key, value in optimizer.state[p].items() if _counts(key, value)]
        self.count = torch.zeros((), dtype=torch.float64)
        self.numbers: Numbers = [
            {key: torch.tensor(value, dtype=torch.float64) for key, value in group.items() if _is_number(key, value)}
            for group in optimizer.param_groups
        ]

    def tree(self) -> tuple[Any, ...]:
        """Everything, in the structure that the traced function takes."""
        trained = {id(p) for p in self.trained}
        frozen = {name: p.detach() for name, p in self.parameters.items() if id(p) not in trained}
        return [p.detach() for p in self.trained], frozen, self.buffers, self.state, self.count, self.numbers


def _counts(key: str, value: Any) -> bool:
    return key == "step" and isinstance(value, Tensor) and value.ndim == 0


def _is_number(key: str, value: Any) -> bool:
    return isinstance(value, float) and key in LIVE


LIVE = ("lr",)


class Scalars(TorchFunctionMode):
    """Lets a tensor stand where torch's in-place operations want a Python number: `alpha` and `value`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(kwargs.get("alpha"), Tensor):
            alpha = kwargs.pop("alpha")
            return function(args[0], args[1] * alpha, *args[2:], **kwargs)
        if isinstance(kwargs.get("value"), Tensor) and function in (Tensor.addcdiv_, Tensor.addcmul_):
            value = kwargs.pop("value")
            return function(args[0], args[1] * value, *args[2:], **kwargs)
        return function(*args, **kwargs)


@contextmanager
def _compiling() -> Iterator[None]:
    """Makes torch's optimizers keep their counters and rates as tensors."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def step_function(held: Held, loss_fn: Callable[[Any, Tensor], Tensor], clip: Callable[[list[Tensor]], Tensor | None]) -> Any:
    """A function of `held.tree()`, inputs and targets that changes them in place; it gives loss, whether the step was taken and the norm."""
    names = {id(p): name for name, p in held.parameters.items()}

    def step(weights, frozen, buffers, state, count, numbers, inputs, targets):  # type: ignore[no-untyped-def]
        with torch.enable_grad():
            leaves = [w.detach().requires_grad_() for w in weights]
            named = {names[id(p)]: leaf for p, leaf in zip(held.trained, leaves, strict=True)}
            output = torch.func.functional_call(held.module, {**named, **frozen, **buffers}, (inputs,))
            loss = loss_fn(output, targets)
            gradients = list(torch.autograd.grad(loss, leaves))
        with torch.no_grad():
            sound = loss.detach() * 0
            for gradient in gradients:
                sound = sound + (gradient * 0).sum()
            sound = sound == 0
            norm = clip(gradients)
            new = [w.clone() for w in weights]
            counts = count + 1
            after = update(held.optimizer, new, gradients, state, count, numbers)
            for old, changed in zip(weights, new, strict=True):
                old.copy_(torch.where(sound, changed, old))
            for old_state, new_state in zip(state, after, strict=True):
                for key, old in old_state.items():
                    old.copy_(torch.where(sound, new_state[key], old))
            count.copy_(torch.where(sound, counts, count))
        return loss.detach(), sound, *([] if norm is None else [norm])

    return step


def update(
    optimizer: Optimizer, weights: list[Tensor], gradients: list[Tensor], state: list[dict[str, Tensor]], count: Tensor, numbers: Numbers
) -> list[dict[str, Tensor]]:
    """Let a copy of the optimizer take its step on `weights`, in place; the state that follows."""
    twin = copy.copy(optimizer)
    originals = [p for group in optimizer.param_groups for p in group["params"]]
    twin.state = defaultdict(dict)
    for weight, gradient, original, tensors in zip(weights, gradients, originals, state, strict=True):
        weight.grad = gradient
        held = optimizer.state[original]
        twin.state[weight] = {
            key: count.clone() if _counts(key, value) else tensors[key].clone() if key in tensors else value
            for key, value in held.items()
        }
    rest = iter(weights)
    twin.param_groups = []
    for group, live in zip(optimizer.param_groups, numbers, strict=True):
        options = {**group, **live, "params": [next(rest) for _ in group["params"]]}
        options |= {key: value for key, value in {"foreach": False, "fused": False, "capturable": True}.items() if key in group}
        twin.param_groups.append(options)
    with _compiling(), Scalars():
        _bare_step(twin)()
    return [twin.state[weight] for weight in weights]


def _bare_step(optimizer: Optimizer) -> Callable[[], Any]:
    """The optimizer's step without the wrappers for profilers, hooks and gradients."""
    function = type(optimizer).step
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function.__get__(optimizer)  # type: ignore[no-any-return]


def build(held: Held, step: Any, batch: tuple[Any, Tensor]) -> tuple[Callable[[list[Any]], Any], list[Tensor]]:
    """Trace and compile; the function and those of its arguments that stay the same from step to step, before the batch."""
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.fx_passes.joint_graph import joint_graph_passes
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.func import functionalize
    from torch.utils import _pytree as pytree

    tree = (*held.tree(), *batch)
    flat, spec = pytree.tree_flatten(tree)
    fakes_of = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [fakes_of.from_tensor(value, static_shapes=True) if isinstance(value, Tensor) else value for value in flat]

    def called(*values: Any) -> Any:
        return step(*pytree.tree_unflatten(list(values), spec))

    with fakes_of, config.patch(fallback_random=True):
        table = select_decomp_table()
        first = make_fx(called, tracing_mode="real")(*fakes)
        second = make_fx(functionalize(first, remove="mutations"), decomposition_table=table, tracing_mode="real")(*fakes)
    second.graph.eliminate_dead_code()
    from torch._functorch.compile_utils import fx_graph_cse

    second = torch.fx.GraphModule(second, fx_graph_cse(second.graph))
    return second, flat, fakes, fakes_of
