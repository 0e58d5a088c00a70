"""How a call of the model is executed: where, in which precision, compiled or not. All the same to the loop."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from engine.errors import Problem, RecipeError


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA device, else Apple's, else the CPU.

    Raises RecipeError for a device that this machine does not have.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    if name == "auto":
        return torch.device("cuda" if "cuda" in here else here[-1])
    if name not in here:
        allowed = ", ".join(["auto", *here])
        raise RecipeError([Problem("training.device", f"training.device is {name!r}; this machine has: {allowed}")])
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What a person calls it: "NVIDIA H100 80GB HBM3" or the processor's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    import platform

    return platform.processor() or platform.machine()


def prepare_call(model: nn.Module, execution: str) -> tuple[Callable[..., Any], str]:
    """What the loop calls, and the name of the execution that was chosen. The module itself keeps weights and names."""
    if execution == "compiled":
        return torch.compile(model), "compiled"
    return model, "eager"


def precision_context(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What surrounds forward and loss: bfloat16 autocast (weights stay float32), or nothing."""
    if precision == "bf16":
        return functools.partial(torch.autocast, device.type, torch.bfloat16)
    return nullcontext


class Arithmetic:
    """While a run lasts: TF32 for float32 products where asked for, the CPU threads of one operation.

    Both are global in torch, and are put back at the end.
    """

    def __init__(self, precision: str, threads: int | None) -> None:
        self.precision, self.threads = precision, threads

    def __enter__(self) -> None:
        self._before = torch.get_float32_matmul_precision(), torch.get_num_threads()
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    def __exit__(self, *_: object) -> None:
        torch.set_float32_matmul_precision(self._before[0])
        torch.set_num_threads(self._before[1])
