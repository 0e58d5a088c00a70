"""The generators of random numbers that a model draws from: kept, read, put back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


def keep_random_state() -> AbstractContextManager[Any]:
    """While the block lasts, what is drawn (for dropout, say) is not drawn from the training's generators."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else [])


def random_state(*devices: torch.device) -> Any:
    """Of the generators of the host and of these devices."""
    return torch.get_rng_state(), [(one, torch.cuda.get_rng_state(one)) for one in devices if one.type == "cuda"]


def set_random_state(state: Any) -> None:
    """Put back what `random_state` has read."""
    here, devices = state
    torch.set_rng_state(here)
    for device, held in devices:
        torch.cuda.set_rng_state(held, device)


@contextmanager
def generators_alone() -> Iterator[None]:
    """Let torch's compiler not put the generators back to where they were when it began: the training draws meanwhile.

    That holds in this thread; the others set them as ever.
    """
    here, modules = threading.get_ident(), (torch.random, torch.cuda)
    usual = [module.set_rng_state for module in modules]

    def elsewhere(setting: Callable[..., None]) -> Callable[..., None]:
        return lambda *state: None if threading.get_ident() == here else setting(*state)

    for module, setting in zip(modules, usual, strict=True):
        module.set_rng_state = elsewhere(setting)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, setting in zip(modules, usual, strict=True):
            module.set_rng_state = setting  # type: ignore[attr-defined]
