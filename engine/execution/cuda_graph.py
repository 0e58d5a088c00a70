"""A step recorded once as a CUDA graph and launched as one; and what stands in for it where there is no GPU.

Recording computes nothing. What the body reads must stay where it is: a replay knows addresses, and freezes all Python numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import torch

Body = Callable[[], None]


class Graph(Protocol):
    """A body of work on the device that is recorded once and replayed in the current stream."""

    def record(self, body: Body) -> None:
        """Take down what `body` asks of the device, without doing it. `body` was run before: nothing in it is to be set up."""

    def replay(self) -> None:
        """Do it; returns before the device has."""


class CudaGraph:
    """With memory of its own, in which what the body makes stays.

    The device's default generator is registered by torch: each replay draws other numbers, as a step would. Other threads,
    such as those that pin memory, may use CUDA meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()

    def record(self, body: Body) -> None:
        """Raises what torch or the body raises where it can't be recorded; this graph is of no use then."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            aside = torch.cuda.Stream()
            memory = torch.cuda.graph_pool_handle()
            try:
                with torch.cuda.graph(self._graph, pool=memory, stream=aside, capture_error_mode="thread_local"):
                    body()
            except BaseException as error:
                torch.cuda.set_stream(current)
                self._recover(memory)
                raise error.__context__ or error from None  # what went wrong first
            finally:
                torch.cuda.set_stream(current)

    def _recover(self, memory: Any) -> None:
        """After a recording that failed torch still believes that one is under way: its generator, and its memory."""
        with suppress(RuntimeError):  # what has ended well is no more to be ended
            torch._C._cuda_endAllocateToPool(self._device.index or 0, memory)
        number = torch.zeros((), device=self._device)
        empty = torch.cuda.CUDAGraph()
        with torch.cuda.graph(empty, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
            number.add_(1)

    def replay(self) -> None:
        self._graph.replay()


class StandIn:
    """The same without a device: a replay runs the body."""

    def __init__(self) -> None:
        self._body: Body | None = None

    def record(self, body: Body) -> None:
        self._body = body

    def replay(self) -> None:
        assert self._body is not None
        self._body()
