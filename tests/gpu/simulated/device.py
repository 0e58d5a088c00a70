"""What the simulated device does with an operation: it is counted, refused, recorded, or computed by the host."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

launches: Counter[str] = Counter()  # kernels by operation; a replayed graph counts as one, "graph"
waits: Counter[str] = Counter()  # of the host for the device, by what and by the line that asked
graphs: list[Graph] = []  # that were recorded
generator = torch.Generator()  # of the device

Entry = tuple[Any, Any, Any, "list[Tensor] | None", bool]  # operation, arguments, what it made, whether it draws numbers
_recorded: list[Entry] | None = None  # of the graph that is recorded now
_known: dict[Any, Operation] = {}
_library = torch.library.Library("_", "IMPL")
_aten = torch.library.Library("aten", "IMPL")
_WAITING = {"nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "equal", "is_nonzero"}
_VIEWS = {"view", "as_strided", "detach", "alias", "_reshape_alias", "unfold", "_unsafe_view", "lift_fresh", "set_"}


@dataclass(slots=True)
class Operation:
    """What is asked of an operation again and again, read from its schema."""

    name: str
    draws: bool  # random numbers
    view: bool
    tensors: set[int]  # arguments that are no other
    out: bool  # writes to a tensor that it may give another shape
    written: dict[tuple[str, ...], tuple[int, str]]  # arguments, by the set of what they alias
    returned: list[tuple[str, ...] | None]  # the same for what is returned; None for a new tensor

    @classmethod
    def of(cls, op: Any) -> Operation:
        schema = op._schema
        name = schema.name.partition("::")[2]

        def aliased(one: Any) -> tuple[str, ...] | None:
            return tuple(sorted(one.alias_info.before_set)) if one.alias_info is not None and one.alias_info.is_write else None

        seen = any(one.alias_info is not None and not one.alias_info.is_write for one in schema.arguments)
        written = {key: (i, one.name) for i, one in enumerate(schema.arguments) if (key := aliased(one)) is not None}
        draws = torch.Tag.nondeterministic_seeded in op.tags
        tensors = {i for i, one in enumerate(schema.arguments) if str(one.type) == "Tensor"}
        view, out = seen or name in _VIEWS, "out" in op._overloadname
        return cls(name, draws, view, tensors, out, written, [aliased(one) for one in schema.returns])


def _wait(what: str) -> None:
    """Something asks for what the device has computed."""
    if _recorded is not None:
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
    frame = sys._getframe(1)
    while frame.f_back is not None and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    waits[f"{what} at {frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"] += 1


def _host(x: Any) -> Any:
    return torch.ops.simulated.host(x) if isinstance(x, Tensor) and x.is_cuda else x


def _wrapped(x: Any) -> Any:
    """A number that torch gave as a tensor, which comes here as the number that it was."""
    return torch.tensor(x) if isinstance(x, int | float) else x


def _zeros(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else torch.zeros_like(x)


def _map(function: Callable[[Tensor], Any], x: Any) -> Any:
    if isinstance(x, Tensor):
        return function(x)
    return type(x)(_map(function, part) for part in x) if type(x) in (list, tuple) else x


def _tensors(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return [tensor for part in x for tensor in _tensors(part)] if type(x) in (list, tuple) else []


def _compute(op: Any, arguments: Any, options: dict[str, Any], draws: bool) -> Any:
    """By the host, with random numbers of the device."""
    if options.get("device") is not None:
        options = {**options, "device": torch.device("cpu")}
    if not draws:
        return op(*arguments, **options)
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        return op(*arguments, **options)
    finally:
        if _recorded is None:
            generator.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


def _launch(op: Any, *arguments: Any, **options: Any) -> Any:
    """Any operation that has a tensor of the device among its arguments."""
    known = _known.get(op) or _known.setdefault(op, Operation.of(op))
    arguments = tuple(_wrapped(x) if i in known.tensors else x for i, x in enumerate(arguments))
    given = [*_tensors(arguments), *_tensors(list(options.values()))]
    if any(not x.is_cuda and x.ndim > 0 for x in given):
        if "index" not in known.name:
            raise RuntimeError(f"{known.name}: expected all tensors on the same device, but found cuda:0 and cpu")
        _wait("indices of the host")
    if known.name in _WAITING:
        _wait(known.name)
    if not known.view:
        launches[known.name] += 1
    written = {key: options[name] if name in options else arguments[i] for key, (i, name) in known.written.items()}
    if known.out:
        _give_shapes(op, arguments, options, written, given)
    theirs, others = _map(_host, arguments), {key: _map(_host, value) for key, value in options.items()}
    if _recorded is not None and written:
        _recorded.append((op, theirs, others, None, known.draws))
        made = None
    else:
        shapes = _recorded is not None and not known.view  # is all that is wanted then: nothing is an index yet
        made = _compute(op, _map(_zeros, theirs) if shapes else theirs, others, known.draws)
        if _recorded is not None and not known.view:
            _recorded.append((op, theirs, others, _tensors(made), known.draws))
    if not known.returned:
        return None
    values = made if isinstance(made, tuple) and len(known.returned) > 1 else [made] * len(known.returned)
    pairs = zip(known.returned, values, strict=False)
    found = [_map(torch.ops.simulated.device, value) if key is None else written[key] for key, value in pairs]
    return found[0] if len(found) == 1 else tuple(found)


def _give_shapes(op: Any, arguments: Any, options: Any, written: dict[Any, Any], given: list[Tensor]) -> None:
    """An empty tensor that is written to gets the shape of what will be written."""
    small = [x for x in _tensors(list(written.values())) if x.numel() < 2 and sum(y is x for y in given) == 1]
    if not small:
        return

    def tried(x: Tensor) -> Tensor:
        return torch.empty(0, dtype=x.dtype) if any(x is y for y in small) else _host(x)

    before = generator.get_state()
    found = _compute(op, _map(tried, arguments), {key: _map(tried, value) for key, value in options.items()}, True)
    generator.set_state(before)
    for tensor, like in zip(written.values(), found if isinstance(found, tuple) else (found,), strict=True):
        if tensor.shape != like.shape:
            tensor.resize_(like.shape)


def _copy(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if _recorded is not None and not (to.is_cuda and source.is_cuda):
        _wait("a copy between host and device")
    if to.is_cuda:
        launches["copy_" if source.is_cuda else "host to device"] += 1
    elif not non_blocking:
        _wait("a copy to the host")
    theirs = _host(to), _host(source)
    if _recorded is not None:
        _recorded.append((torch.ops.aten.copy_.default, theirs, {}, None, False))
    else:
        theirs[0].copy_(theirs[1])
    return to


def _item(x: Tensor) -> Any:
    _wait("item")
    return _host(x).item()


def _equal(one: Tensor, other: Tensor) -> bool:
    _wait("equal")
    return torch.equal(_host(one), _host(other))


class Graph:
    """In the place of torch.cuda.CUDAGraph: the operations of the device, at the addresses that they had."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def replay(self) -> None:
        launches["graph"] += 1
        with torch.no_grad():
            for op, arguments, options, held, draws in self.entries:
                made = _compute(op, arguments, options, draws)
                for tensor, new in zip(held or (), _tensors(made) if held else (), strict=True):
                    tensor.copy_(new)


@contextlib.contextmanager
def recording(graph: Graph, **_: Any) -> Iterator[None]:
    """In the place of torch.cuda.graph."""
    global _recorded
    assert _recorded is None
    _recorded = graph.entries
    torch.ops.simulated.zero(True)
    try:
        yield
    finally:
        _recorded = None
        torch.ops.simulated.zero(False)
    graphs.append(graph)


def waited(what: str) -> Callable[..., None]:
    """A function of torch.cuda that waits."""
    return lambda *_: _wait(what)


def install() -> None:
    """Let torch's dispatcher bring the device's operations here. The library is loaded."""
    _library.fallback(_launch, "CUDA")
    for name, kernel in (("copy_", _copy), ("_local_scalar_dense", _item), ("equal", _equal)):
        _aten.impl(name, kernel, "CUDA")
    for name in ("convolution", "convolution_backward"):  # or torch looks for kernels that a host does not have
        _aten.impl(name, functools.partial(_launch, getattr(torch.ops.aten, name).default), "CUDA")
