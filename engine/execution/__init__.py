"""How a call of the model is executed: where, in which precision, compiled or not. All the same to the loop."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from engine.errors import Problem, RecipeError
from engine.execution.hands import LeanHands
from engine.execution.heap import kept
from engine.recipe import Training

if TYPE_CHECKING:
    from engine.execution.whole import Taker, Whole
    from engine.loop import Loop

# With a workspace of this form cuBLAS can be deterministic, and it is as large as its own. torch reads this once: at the first
# product, which comes before a run has begun.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA device, else Apple's, else the CPU.

    Raises RecipeError for a device that this machine does not have.
    """
    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if name in ("auto", "cuda") and "cuda" in here else 1
    if together > torch.cuda.device_count() > 0:
        message = f"training.device is {name!r}; {together} processes need as many GPUs, this machine has {len(here) - 2}"
        raise RecipeError([Problem("training.device", message)])
    if together > 1:  # each process has a device of its own
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if name == "auto":
        return torch.device("cuda" if "cuda" in here else here[-1])
    if name not in here:
        allowed = ", ".join(["auto", *here])
        raise RecipeError([Problem("training.device", f"training.device is {name!r}; this machine has: {allowed}")])
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What a person calls it: "NVIDIA H100 80GB HBM3", or "x86_64, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    import platform

    threads = torch.get_num_threads()
    return f"{platform.processor() or platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"


def idle(device: torch.device) -> Callable[[], bool]:
    """What tells whether the device has done all it was given. A GPU works on while the host waits; a CPU is the host."""
    return torch.cuda.current_stream(device).query if device.type == "cuda" else lambda: True


def arrange(model: nn.Module, optimizer: torch.optim.Optimizer, precision: str, device: torch.device) -> None:
    """On a GPU, before the first step: what is torch's to choose is chosen for speed.

    Images lie with their channels last where tensor cores want them so, in 16 bits. Optimizers of which nobody has said how
    they are to be carried out are fused: these look on the device for what is not finite, and nobody has to wait for it.
    """
    if device.type != "cuda" or optimizer.state:
        return
    images = any(isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in model.modules())
    if precision in ("bf16", "fp16", "bf16-pure") and images:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(optimizer, SGD | Adam | AdamW) and all(_open(group) for group in optimizer.param_groups):
        for group in optimizer.param_groups:
            group["fused"] = True
        optimizer._step_supports_amp_scaling = True  # type: ignore[union-attr]


def _open(group: dict[str, Any]) -> bool:
    """Whether nobody has chosen between torch's ways of taking a step, and the fused one is possible."""
    told = any(group.get(key) is not None for key in ("foreach", "fused")) or isinstance(group["lr"], Tensor)
    told = told or any(group.get(key) for key in ("capturable", "differentiable"))
    return not told and all(p.is_cuda and p.is_floating_point() and p.layout == torch.strided for p in group["params"])


def chosen(execution: str) -> str:
    """What a run begins with."""
    return "eager" if execution == "auto" else execution


def whole_step(loop: Loop, execution: str, device: torch.device, say: Callable[[str], None]) -> Whole | None:
    """Make the loop quick: nothing wasted in its steps, and where that is asked for somebody who takes them whole.

    RecipeError for an execution that the device does not have.
    """
    if LeanHands.fits(loop.optimizer, device) and not loop.closure:
        loop.hands = LeanHands(loop.optimizer)
    if execution == "captured" and device.type != "cuda":
        message = (
            f"training.execution is 'captured', which needs a CUDA device and not {device.type}: 'compiled' is the nearest"
        )
        raise RecipeError([Problem("training.execution", message)])
    if execution == "eager" or device.type not in ("cpu", "cuda"):
        return None
    from engine.execution.whole import Whole, familiar, unfit

    auto = execution == "auto"
    if auto and (unfit(loop) or not familiar(loop.module)):
        return None
    whole = Whole(loop, say, _takers(loop, execution, device), auto)
    loop.whole = whole.steps
    return whole


def _takers(loop: Loop, execution: str, device: torch.device) -> list[Taker]:
    """Who may take the steps: by name the best first, with `auto` the one that is made soonest."""
    if device.type == "cpu":
        from engine.execution.compiled import Compiled

        return [Compiled(loop)]
    from engine.execution.captured import Captured, CapturedCompiled

    captured = Captured(loop, device)
    if execution == "captured":
        return [captured]
    compiled = CapturedCompiled(loop, device)
    return [captured, compiled] if execution == "auto" else [compiled, captured]


_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_context(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """What surrounds forward and loss: autocast to bfloat16 or float16 (weights stay float32), or nothing."""
    if precision in _AUTOCAST:
        return functools.partial(torch.autocast, device.type, _AUTOCAST[precision])
    return nullcontext


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """float16 gradients underflow: the loss is scaled up before backward, and gradients down again before the step."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def weights_type(precision: str) -> torch.dtype:
    """The type of weights and inputs."""
    return {"float64": torch.float64, "bf16-pure": torch.bfloat16}.get(precision, torch.float32)


@contextmanager
def arithmetic(plan: Training, threads: int | None) -> Iterator[None]:
    """While a run lasts: TF32 for float32 products, CPU threads, deterministic operations, and who keeps freed memory."""
    before = torch.get_float32_matmul_precision(), torch.get_num_threads()
    were_deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.set_float32_matmul_precision("high" if plan.precision == "tf32" else "highest")
    if threads is not None:
        torch.set_num_threads(threads)
    if plan.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    gc.freeze()  # what is there now stays: Python need not go through it again and again while steps are taken
    try:
        with kept():
            yield
    finally:
        gc.unfreeze()
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])
        if plan.deterministic:  # which imports torch's compiler
            torch.use_deterministic_algorithms(were_deterministic)
        torch.backends.cudnn.benchmark = benchmark
