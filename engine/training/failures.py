"""Failures that are not a bug in anyone's code: what to tell the person, and what would have helped."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import torch
from torch import nn

from engine.errors import EpochalError

if TYPE_CHECKING:
    from engine.training.epochs import Epochs


class Refused(EpochalError):
    """Too many steps in a row were left out."""


GIB = 2**30
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)")
_WANTED = re.compile(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMG]iB)")


@dataclass(frozen=True, slots=True)
class Failure:
    """`reason` is one sentence; `sound` whether the weights in memory are those of the last step; `proposal` recipe fields."""

    reason: str
    sound: bool = True
    proposal: dict[str, float] = field(default_factory=dict)


def explain(error: Exception, trainer: Epochs) -> Failure | None:
    """What to say of an error that ended the training; None for a bug, which keeps its traceback."""
    if isinstance(error, Refused):
        return Failure(str(error))
    if is_out_of_memory(error):
        return _out_of_memory(error, trainer)
    frames = traceback.extract_tb(error.__traceback__)
    if (worker := _killed_worker(error, frames)) is not None:
        # torch may raise it in its handler of a signal, at any moment: also when the weights are of a step not counted yet.
        waiting = any(frame.name == trainer._awaited.__name__ for frame in frames)
        return Failure(
            f"a process that loads data{worker} was killed after step {trainer.step}, often for lack of "
            f"memory: fewer data.workers may help; a resume goes on from the last {'step' if waiting else 'checkpoint'}",
            sound=waiting,
        )
    return None


def _killed_worker(error: Exception, frames: traceback.StackSummary) -> str | None:
    """ " (pid N)", or nothing where that is not known; None where the error is another."""
    if isinstance(error, RuntimeError) and (worker := _WORKER.search(str(error))):
        return f" (pid {worker[1].strip()})"
    cut_off = isinstance(error, OSError | EOFError)  # it was killed while it handed a tensor over
    return "" if cut_off and any("torch/multiprocessing/" in frame.filename.replace("\\", "/") for frame in frames) else None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on whichever device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # the CPU allocator's words


def _out_of_memory(error: Exception, trainer: Epochs) -> Failure:
    sound = not any(map(_updates, traceback.extract_tb(error.__traceback__)))
    proposal = _smaller_batches(trainer)
    reason = f"out of memory on {trainer.parts.device} after step {trainer.step}: {_memory(error, trainer.parts.device)}"
    if not sound:
        reason += "; it ran out while the weights were being updated: those of the last checkpoint are sound"
    if proposal:
        reason += f"; {' with '.join(f'{key} = {value}' for key, value in proposal.items())} gives the same gradient"
        if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in trainer.parts.model.modules()):
            reason += " (but for batch normalization, which sees smaller batches)"
    return Failure(reason, sound, proposal)


def _updates(frame: traceback.FrameSummary) -> bool:
    """Whether the weights were being changed there: some are new then, and some old."""
    from engine.execution.hands import Hands
    from engine.execution.whole import Taker

    where = frame.filename.replace("\\", "/")
    if "/engine/execution/" in where:
        return frame.name in (Hands.update.__name__, Taker.burst.__name__)
    return "/torch/optim/" in where


def _memory(error: Exception, device: torch.device) -> str:
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        held = torch.cuda.memory_reserved(device)
        facts = f"{total / GIB:.3g} GiB in all, {held / GIB:.3g} held by this run, {free / GIB:.2g} free"
    else:
        memory = psutil.virtual_memory()
        held = psutil.Process().memory_info().rss
        facts = f"{memory.total / GIB:.3g} GiB in all, {held / GIB:.3g} held by this process, {memory.available / GIB:.2g} free"
    wanted = _WANTED.search(str(error))
    if wanted is None:
        return facts
    size = float(wanted[1]) / GIB * {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB}[wanted[2]]
    return f"{facts}, {size:.2g} GiB more wanted"


def _smaller_batches(trainer: Epochs) -> dict[str, float]:
    """The next smaller batch size and the accumulation that make the same steps; nothing where there are none."""
    size, accumulate = trainer.parts.train.batch_size, trainer.plan.accumulate
    if size is None or size < 2:
        return {}
    parts = next(n for n in range(2, size + 1) if size % n == 0)
    return {"data.batch_size": size // parts, "training.accumulate": accumulate * parts}
