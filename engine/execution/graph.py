"""A step of training as one graph of tensor operations, and that graph as one compiled function.

The step is traced with stand-ins for its tensors. What updates the weights is the optimizer's own `step`, traced with its
numbers (learning rate, momentum, …) as tensors: what a schedule or a person changes acts at once. Inductor compiles the graph.
All of this asks for private names of torch; what fails here fails before it has changed anything.
"""

from __future__ import annotations

import copy
import operator
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from engine.execution.hands import undressed
from engine.execution.tensors import Tensors, is_count

Call = Callable[[list[Any]], Any]
_COMPARISONS = {
    function: compare
    for name, compare in (("eq", operator.eq), ("ne", operator.ne), ("gt", operator.gt), ("ge", operator.ge))
    for function in (getattr(Tensor, name), getattr(Tensor, f"__{name}__"))
} | {Tensor.lt: operator.lt, Tensor.__lt__: operator.lt, Tensor.le: operator.le, Tensor.__le__: operator.le}


def _lerp(function: Any, start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """With a weight of another type than the tensors'."""
    return (start.add_ if function is Tensor.lerp_ else start.add)((end - start) * weight)


class Numbers(TorchFunctionMode):
    """Lets tensors stand for an optimizer's numbers.

    They may be where torch wants a Python number (`alpha`, `value`, the weight of `lerp`), and comparing one asks the number
    that it has now: `decided` holds those questions with their answers.
    """

    def __init__(self, values: dict[int, Callable[[], float]]) -> None:
        super().__init__()
        self._values = values  # by the identity of the stand-in
        self.decided: list[tuple[Callable[[], bool], bool]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in _COMPARISONS and id(args[0]) in self._values:
            return self._decide(_COMPARISONS[function], self._values[id(args[0])], args[1])
        if isinstance(kwargs.get("alpha"), Tensor):
            return function(args[0], args[1] * kwargs["alpha"])
        if isinstance(kwargs.get("value"), Tensor):
            return function(args[0], args[1] * kwargs["value"], *args[2:])
        if function in (Tensor.lerp_, Tensor.lerp) and isinstance(args[2] if len(args) > 2 else kwargs["weight"], Tensor):
            return _lerp(function, *args, **kwargs)
        return function(*args, **kwargs)

    def _decide(self, compare: Callable[[float, float], bool], value: Callable[[], float], other: float) -> bool:
        answer = compare(value(), other)
        self.decided.append((lambda: compare(value(), other), answer))
        return answer


def trace(
    tensors: Tensors,
    module: nn.Module,
    losses: Callable[..., Iterator[Tensor]],
    clip: Callable[[list[Tensor], dict[str, Tensor]], Tensor | None],
    given: Sequence[Tensor],
    judge: Callable[..., Tensor] | None = None,
) -> tuple[Any, list[Any], list[tuple[Callable[[], bool], bool]]]:
    """The graph of a step, stand-ins for its inputs, and what was decided by the present numbers.

    `losses(call, *given)` yields the loss of each batch of the step, times its share; it calls `call` for `module`, whose
    parameters are replaced meanwhile. `clip` changes gradients in place. `judge(sound, loss, norm, *given)` may overrule
    whether the step is to be taken, and write to `given`. The graph's inputs are `tensors.flat()` and `given`; its outputs
    the loss, whether the step was taken, and the gradients' norm where `clip` gives one. A step whose loss or gradient is
    not finite changes nothing but the model's buffers.
    """
    from torch._subclasses import FakeTensorMode
    from torch.func import functionalize
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils import _pytree as pytree

    flat, form = pytree.tree_flatten((*tensors.tree(), list(given)))
    on_gpu = flat[0].device.type == "cuda"
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    stand_ins = [mode.from_tensor(value, static_shapes=True) for value in flat]
    decided: list[tuple[Callable[[], bool], bool]] = []

    def step(*values: Tensor) -> tuple[Tensor, ...]:
        weights, frozen, buffers, state, numbers, limits, given = pytree.tree_unflatten(list(values), form)
        gradients: list[Tensor] = []
        total: Any = None
        with torch.enable_grad():
            leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}

            def call(inputs: Any) -> Any:
                if not on_gpu:
                    inputs = _channels_together(inputs)
                return torch.func.functional_call(module, {**leaves, **frozen, **buffers}, (inputs,))

            for loss in losses(call, *given):
                parts = torch.autograd.grad(loss, list(leaves.values()))
                gradients = [a + b for a, b in zip(gradients, parts, strict=True)] if gradients else list(parts)
                total = loss.detach() if total is None else total + loss.detach()
        with torch.no_grad():
            sound = torch.isfinite(total)
            for gradient in gradients:
                sound = sound & torch.isfinite(gradient.abs().amax())
            norm = clip(gradients, limits)
            if judge is not None:
                sound = judge(sound, total, norm, *given)
            new = [weight.clone() for weight in weights.values()]
            after = _updated(tensors, new, gradients, state, numbers, decided)
            for old, changed in zip(weights.values(), new, strict=True):
                old.copy_(torch.where(sound, changed, old))
            for held, changed in zip(state, after, strict=True):
                for key, old in held.items():
                    old.copy_(torch.where(sound, changed[key], old))
        return total, sound, *([] if norm is None else [norm])

    from torch._functorch.compile_utils import fx_graph_cse
    from torch._inductor import lowering  # noqa: F401  # a decomposition expects it to be there
    from torch._inductor.decomposition import select_decomp_table

    table = dict(select_decomp_table())
    if on_gpu:
        table.pop(torch.ops.aten.native_dropout.default, None)  # which draws as only it does
    else:
        table[torch.ops.aten.convolution_backward.default] = _convolution_backward
    table.update(_small_products(SMALL if on_gpu else TINY))
    with mode, _as_if_compiling():
        first = make_fx(step)(*stand_ins)
        pure = make_fx(functionalize(first, remove="mutations"), decomposition_table=table)(*stand_ins)
    few = sum(weight.numel() for weight in tensors.trained.values()) < SMALL
    _simplify(pure.graph, hold=not (on_gpu and few))
    pure = torch.fx.GraphModule(pure, fx_graph_cse(pure.graph))
    return pure, stand_ins, decided


def compiled(graph: Any, stand_ins: list[Any]) -> Call:
    """The function of a traced graph. It takes one list, which it empties."""
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.fx_passes.joint_graph import joint_graph_passes
    from torch._inductor.virtualized import V

    mode = stand_ins[0].fake_mode
    # Draws are those of eager execution, in the same order: dropout goes on alike after a switch.
    # Padding is measured on random matrices, which would take draws from the training.
    options = {"fallback_random": True, "shape_padding": False, "size_asserts": False, "nan_asserts": False}
    with config.patch(options), torch.no_grad(), tracing(TracingContext(mode)), V.set_fake_mode(mode):
        joint_graph_passes(graph)
        made: Any = compile_fx_inner(graph, stand_ins)
    call: Call = made.current_callable or made
    return call


def _updated(
    tensors: Tensors, weights: list[Tensor], gradients: list[Tensor], state: Any, numbers: Any, decided: list[Any]
) -> list[dict[str, Tensor]]:
    """Let a copy of the optimizer take its step on `weights`, in place; the state that follows."""
    originals = list(tensors.trained.values())
    by_identity = {id(original): i for i, original in enumerate(originals)}
    values: dict[int, Callable[[], float]] = {}
    mode = Numbers(values)

    def twin_of(optimizer: Optimizer) -> None:
        twin = copy.copy(optimizer)
        twin.state, twin.param_groups = defaultdict(dict), []
        for group in optimizer.param_groups:
            live = numbers[next(i for i, one in enumerate(tensors.optimizer.param_groups) if one is group)]
            for key, stand_in in live.items():
                for place, part in enumerate(stand_in if isinstance(stand_in, tuple) else (stand_in,)):
                    values[id(part)] = partial(_number, group, key, place)
            trained = [p for p in group["params"] if id(p) in by_identity]  # the others are frozen
            members = [weights[by_identity[id(p)]] for p in trained]
            fixed = {"foreach": False, "fused": False, "capturable": True, "differentiable": False}
            twin.param_groups.append({**group, **live, **{k: v for k, v in fixed.items() if k in group}, "params": members})
            for original, member in zip(trained, members, strict=True):
                i = by_identity[id(original)]
                member.grad = gradients[i]
                held = {key: value.clone() for key, value in state[i].items()}
                counts = {key: state[tensors.counted_as[i]][key].double() for key in held if is_count(key, held[key])}
                twin.state[member] = {**optimizer.state[original], **held, **counts}
        with mode:
            undressed(twin)()
        for member, held in twin.state.items():
            after[next(i for i, weight in enumerate(weights) if weight is member)] = held

    after: dict[int, dict[str, Tensor]] = {}
    for optimizer in tensors.members:
        twin_of(optimizer)
    decided.extend(mode.decided)
    return [
        {key: after[i][key].to(value.dtype) for key, value in held.items()} if i in after else dict(held)
        for i, held in enumerate(state)
    ]


def _number(options: dict[str, Any], key: str, place: int) -> float:
    """A number of a parameter group as it is now."""
    value = options[key]
    return float(value[place] if isinstance(value, tuple) else value)


@contextmanager
def _as_if_compiling() -> Iterator[None]:
    """torch's optimizers keep counters and rates as tensors then. Other threads are told the truth."""
    asked, here = torch.compiler.is_compiling, threading.get_ident()
    torch.compiler.is_compiling = lambda: threading.get_ident() == here or asked()
    try:
        yield
    finally:
        torch.compiler.is_compiling = asked


SMALL = 1 << 20  # multiplications of a product, and elements of all weights, up to which a launch on a GPU costs more
TINY = 1 << 11  # multiplications up to which calling a library costs more on a CPU


def _small_products(most: int) -> dict[Any, Callable[..., Any]]:
    """Products of so few multiplications as sums of products, which are fused with what is before and after them."""

    def mm(a: Tensor, b: Tensor) -> Any:
        if a.dtype != torch.float32 or a.shape[0] * a.shape[1] * b.shape[1] > most:
            return NotImplemented
        return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)

    def addmm(added: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> Any:
        product = mm(a, b) if beta == alpha == 1 else NotImplemented
        return product if product is NotImplemented else product + added

    return {torch.ops.aten.mm.default: mm, torch.ops.aten.addmm.default: addmm}


def _channels_together(x: Tensor) -> Tensor:
    """An image of one channel, which lies as torch's convolutions like it and need only be said to.

    Else the channels that a convolution makes of it lie apart, and what follows can't take several of them at once.
    """
    if x.dim() != 4 or x.shape[1] != 1 or not x.is_contiguous():
        return x
    _, _, height, width = x.shape
    return x.as_strided(x.shape, (height * width, 1, width, 1))


def _convolution_backward(gradient: Tensor, *given: Any) -> Any:
    """A convolution's gradients, that of the bias as a sum: it is fused with what computes `gradient`."""
    *others, (of_inputs, of_weight, of_bias) = given
    if not of_bias:
        return NotImplemented
    inputs, weight, _ = torch.ops.aten.convolution_backward.default(gradient, *others, [of_inputs, of_weight, False])
    return inputs, weight, gradient.sum([0, *range(2, gradient.dim())])


def _simplify(graph: torch.fx.Graph, hold: bool) -> None:
    """Take out copies, and compute what has no axes once.

    Fused into a loop over a weight, a power would be taken for each of its elements; on a GPU with few weights that is less
    than a kernel of its own, and is not held.
    """
    held_once = _hold()
    for node in list(graph.nodes) if hold else []:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
            continue
        wide = [user for user in node.users if isinstance(user.meta.get("val"), Tensor) and user.meta["val"].ndim]
        if wide:
            with graph.inserting_after(node):
                held = graph.call_function(held_once, (node,))
            held.meta = dict(node.meta)
            for user in wide:
                user.replace_input_with(node, held)
    for node in list(graph.nodes):  # nothing is changed in place any more: a copy is what it is a copy of
        if node.target is torch.ops.aten.clone.default and not node.kwargs:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()


_LIBRARY: list[torch.library.Library] = []


def _hold() -> Any:
    """An operation that does nothing but keep inductor from computing its argument again in each loop that uses it."""
    if not _LIBRARY:
        from torch._inductor.lowering import register_lowering

        library = torch.library.Library("epochal", "DEF")
        library.define("hold(Tensor x) -> Tensor")
        library.impl("hold", torch.clone, "CompositeExplicitAutograd")
        _LIBRARY.append(library)

        @register_lowering(torch.ops.epochal.hold.default, type_promotion_kind=None)
        def _(x: Any) -> Any:
            x.realize()
            return x

    return torch.ops.epochal.hold.default
