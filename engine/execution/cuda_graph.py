"""A step recorded once as a CUDA graph and launched as one; and what stands in for it where there is no GPU.

Recording computes nothing. What the body reads must stay where it is: a replay knows addresses, and freezes all Python numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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
            try:
                with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                    body()
            finally:
                torch.cuda.set_stream(current)  # torch leaves the other one current where a recording fails

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
