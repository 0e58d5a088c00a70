"""Batches on their way to a GPU while it is still at work on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from engine.data.nested import leaves, mapped

Sent = TypeVar("Sent")


class Lane(Protocol[Sent]):
    """How a batch gets to the device: sent, and some time later taken."""

    def send(self, batch: Any) -> Sent:
        """Begin to copy it; the host does not wait."""

    def take(self, sent: Sent) -> Any:
        """The copy, for whoever computes with it from now on."""


def ahead(batches: Iterable[Any], lane: Lane[Sent]) -> Iterator[Any]:
    """Each batch, taken when the one after it has been sent."""
    rest = iter(batches)
    for first in rest:
        coming = lane.send(first)
        for batch in rest:
            following = lane.send(batch)
            yield lane.take(coming)
            coming = following
        yield lane.take(coming)


class SideStream:
    """A CUDA stream of its own: a copy from pinned memory runs beside the step under way."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, batch: Any) -> tuple[Any, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            return to_device(batch, self._device), self._stream.record_event()

    def take(self, sent: tuple[Any, torch.cuda.Event]) -> Any:
        batch, copied = sent
        training = torch.cuda.current_stream(self._device)
        training.wait_event(copied)  # the device waits, the host does not
        for leaf in leaves(batch):
            if isinstance(leaf, Tensor):
                leaf.record_stream(training)  # or its memory could be given to the next copy while it is still read here
        return batch


def to_device(batch: Any, device: torch.device | str) -> Any:
    """`batch` with every tensor in it on `device`, other values as they are."""
    # From pinned memory the host goes on while the copy runs.
    return mapped(batch, lambda leaf: leaf.to(device, non_blocking=True) if isinstance(leaf, Tensor) else leaf)
