"""A trace of training steps by torch's profiler: a file for ui.perfetto.dev, and which operations take the time."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from engine import execution
from engine.errors import EpochalError
from engine.events import Message
from engine.export import refuse_target, write_whole
from engine.loop import Window, windows
from engine.parts import Parts
from engine.recipe import Recipe
from engine.training.epochs import Epochs

STEPS = 10
SETTLING = 8  # looks at the loop before: memory is taken, the optimizer's state made, a compiled step tried
ENDINGS = (".json", ".json.gz")
_SPAN = "training step"
BETWEEN = "outside of operations"  # what of a step is in none: Python, compiled code, waiting for data


@dataclass(frozen=True, slots=True)
class Operation:
    """All calls of one operation, or of one kernel of a GPU, without the time of what it calls itself."""

    name: str
    seconds: float
    share: float
    calls: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Where the time of a few steps went. The profiler's own work is in it: the steps are slower than without."""

    execution: str
    steps: int
    seconds: float
    operations: tuple[Operation, ...]  # of the processor, the longest first
    kernels: tuple[Operation, ...]  # of the GPU, where there is one
    notes: tuple[str, ...]


def refuse(path: Path) -> None:
    """EpochalError, before anything is loaded, where no trace can be written there."""
    if not path.name.endswith(ENDINGS):
        raise EpochalError(f"{path} must end in {' or '.join(ENDINGS)}: a trace is a JSON file for ui.perfetto.dev")
    refuse_target(path, force=True)


def trace(parts: Parts, recipe: Recipe, path: Path) -> Trace:
    """Train `parts` for some steps as a run of the recipe begins them, and write what ten of them do to `path`."""
    non_finite = "skip" if recipe.training.non_finite == "skip" else "stop"  # there is no checkpoint to go back to
    plan = dataclasses.replace(recipe.training, health=False, non_finite=non_finite)
    training = Epochs(parts, plan, recipe.checkpoint, recipe.name, None, None)
    loop, notes = training.loop, list[str]()
    training.on(Message, lambda message: notes.append(message.text))
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler tells on standard error that it begins and ends
    gpu = parts.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    wait: Callable[[], None] = (lambda: torch.cuda.synchronize(parts.device)) if gpu else lambda: None
    with execution.arithmetic(plan, parts.threads):
        steps = loop.train_epoch(_windows(training))
        for _ in range(SETTLING):
            next(steps)
        wait()
        with profile(activities=activities) as profiler:
            started, done = time.perf_counter(), 0
            while done < STEPS:
                loop.room = STEPS - done
                with record_function(_SPAN):
                    done += next(steps).steps
            wait()
            seconds = time.perf_counter() - started
    write_whole(path, lambda aside: profiler.export_chrome_trace(str(aside)), force=True)
    events = profiler.key_averages()
    host = [event for event in events if event.device_type.name == "CPU"]
    operations = _ranked((event.key, event.self_cpu_time_total, event.count) for event in host)
    device = [event for event in events if event.device_type.name != "CPU" and event.key != _SPAN]
    kernels = _ranked((event.key, event.self_device_time_total, event.count) for event in device)
    return Trace(training.taking, done, seconds, operations, kernels, tuple(notes))


def _windows(training: Epochs) -> Iterator[Window]:
    for training.epoch in itertools.count():
        yield from windows(training._batches(), training.plan.accumulate)


def _ranked(events: Iterable[tuple[str, float, int]]) -> tuple[Operation, ...]:
    """The longest first, from names, microseconds and calls."""
    found = sorted(events, key=lambda event: -event[1])
    total = sum(took for _, took, _ in found) or 1.0
    return tuple(Operation(BETWEEN if name == _SPAN else name, took / 1e6, took / total, calls) for name, took, calls in found)
