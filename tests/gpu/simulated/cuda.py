"""What `torch.cuda` says where the device is simulated."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor, nn

from tests.gpu.simulated import device

GIB = 1 << 30


class Stream:
    """The only one: what is asked of the device is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.device = torch.device("cuda", 0)

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        device.waited("a stream")()

    def record_event(self, *_: Any) -> Event:
        return Event()

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...


class Event:
    """A mark in the stream."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._at = 0.0

    def record(self, *_: Any) -> None:
        self._at = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        device.waited("an event")()

    def elapsed_time(self, other: Event) -> float:
        """Milliseconds."""
        return (other._at - self._at) * 1e3


class Selected(contextlib.ContextDecorator):
    """In the place of torch.cuda.device and torch.cuda.stream."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None: ...


PROPERTIES = SimpleNamespace(name="Simulated GPU", total_memory=80 * GIB, major=9, minor=0, multi_processor_count=132)
CURRENT = Stream()
ANSWERS: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "get_device_name": lambda *_: PROPERTIES.name,
    "get_device_properties": lambda *_: PROPERTIES,
    "get_device_capability": lambda *_: (9, 0),
    "is_bf16_supported": lambda *_: True,
    "mem_get_info": lambda *_: (70 * GIB, 80 * GIB),
    **dict.fromkeys(("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"), lambda *_: GIB),
    **dict.fromkeys(("_lazy_init", "init", "empty_cache", "reset_peak_memory_stats", "set_stream"), lambda *_: None),
    "_is_in_bad_fork": lambda: False,
    "synchronize": device.waited("synchronize"),
    "current_stream": lambda *_: CURRENT,
    "default_stream": lambda *_: CURRENT,
    "Stream": Stream,
    "Event": Event,
    "device": Selected,
    "stream": Selected,
    "graph": device.recording,
    "CUDAGraph": device.Graph,
    "graph_pool_handle": lambda: (0, 1),
    "is_current_stream_capturing": lambda: device._recorded is not None,
    "get_rng_state": lambda *_: device.generator.get_state(),
    "set_rng_state": lambda state, *_: device.generator.set_state(state),
    "get_rng_state_all": lambda: [device.generator.get_state()],
    "set_rng_state_all": lambda states: device.generator.set_state(states[0]),
    **dict.fromkeys(("manual_seed", "manual_seed_all"), device.generator.manual_seed),
}


def start() -> None:
    """Let there be one GPU in this process, whose library is loaded."""
    if torch.version.cuda is not None:
        raise RuntimeError("a torch that was built with CUDA has kernels of its own: no GPU can be simulated")
    device.install()
    for name, answer in ANSWERS.items():
        setattr(torch.cuda, name, answer)
    for name in ("get_rng_state", "set_rng_state"):
        setattr(torch.cuda.random, name, ANSWERS[name])
    torch._C._cuda_endAllocateToPool = lambda *_: None  # type: ignore[attr-defined]
    tensor: Any = torch.Tensor
    deep = tensor.__deepcopy__
    tensor.__deepcopy__ = lambda self, memo: _copied(self, memo) if self.is_cuda else deep(self, memo)
    tensor.cuda = lambda self, *_, **__: self.to("cuda:0")
    tensor.pin_memory = lambda self, *_: self
    tensor.record_stream = lambda self, stream: None


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """By value: torch copies storages, and knows none of a device that it was not built for."""
    made = memo.get(id(tensor))
    if made is None:
        made = tensor.detach().clone()
        made = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
        made.requires_grad_(tensor.requires_grad)
        made.grad = None if tensor.grad is None else tensor.grad.detach().clone()
        memo[id(tensor)] = made
    return made  # type: ignore[no-any-return]
