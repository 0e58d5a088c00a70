"""The generators of random numbers that a model draws from: kept, read, put back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def keep_random_state() -> Iterator[None]:
    """While the block lasts, what is drawn (for dropout, say) is not drawn from the training's generators. Starts no CUDA."""
    begun = torch.cuda.is_initialized()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if begun else []):
            yield
    finally:
        if torch.cuda.is_initialized() and not begun:  # the block began it: the generators there are as at a beginning
            torch.cuda.manual_seed_all(torch.initial_seed())


RandomState = list[tuple[torch.device, Tensor]]


def random_state(*devices: torch.device) -> RandomState:
    """Of the generators of the host and of these devices."""
    there = [(one, torch.cuda.get_rng_state(one)) for one in devices if one.type == "cuda"]
    return [(torch.device("cpu"), torch.get_rng_state()), *there]


def set_random_state(state: RandomState) -> None:
    """Put back what `random_state` has read."""
    for device, held in state:
        if device.type == "cuda":
            torch.cuda.set_rng_state(held, device)
        else:
            torch.set_rng_state(held)


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
