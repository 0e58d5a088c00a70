"""One life of a trainer, in a process forked from one that has torch loaded: a life costs milliseconds, not seconds.

What the process is doing stands on a `Board` in shared memory, so that whoever kills it knows what was under way.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from engine import Control, Recipe, Trainer
from engine.changes import parse_change
from engine.cli import main as command_line
from engine.loop import Loop
from engine.run import Checkpoints, files
from tests.torture import disk

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.torture.warm"])

PHASES = ("starting", "resuming", "between", "stepping", "validating")

RECIPE: dict[str, Any] = {
    "name": "torture",
    "seed": 5,
    "data": {"name": "moons", "samples": 1200, "validation": 0.2, "batch_size": 16},
    "model": {"name": "mlp", "hidden": [8], "dropout": 0.3, "batch_norm": True},
    "loss": {"name": "CrossEntropyLoss"},
    "optimizer": {"name": "Adam", "lr": 1e-2},
    "scheduler": {"name": "OneCycleLR", "max_lr": 5e-2},
    "training": {"epochs": 6, "device": "cpu", "ema": 0.9, "accumulate": 2},
    "checkpoint": {"min_seconds": 0.0},
}


def recipe(**changes: Any) -> Recipe:
    """A small training with everything that a checkpoint has to hold."""
    return Recipe.from_dict(RECIPE).replace(**changes)


class Board(ctypes.Structure):
    """Written by the life, read by its killer. `operation` counts from 1, 0 is none; `every`: batches between checkpoints."""

    _fields_ = (("phase", ctypes.c_byte), ("saving", ctypes.c_byte), ("operation", ctypes.c_byte), ("every", ctypes.c_int))

    @property
    def doing(self) -> str:
        """What was under way, in a word."""
        return "saving" if self.saving else PHASES[self.phase]


def new_board(every: int = 0) -> Board:
    return CONTEXT.RawValue(Board, 0, 0, 0, every)


def begin(target: Callable[..., None], log: Path, *arguments: Any) -> ForkServerProcess:
    """Call `target(*arguments)` in a new process, its output appended to `log`."""
    process = CONTEXT.Process(target=_live, args=(target, log, *arguments), daemon=True)
    process.start()
    return process


def _live(target: Callable[..., None], log: Path, *arguments: Any) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    target(*arguments)


def command(board: Board, arguments: list[str]) -> None:
    """A life of the command line, as a person starts it."""
    watch(board)
    status = command_line(arguments)
    sys.stdout.flush()
    sys.exit(status)


def watch(board: Board) -> None:
    """From now on the board tells what this process does, and checkpoints are asked for as it says."""
    fit = Trainer.fit

    def asking(trainer: Trainer) -> Any:
        batches = 0

        def ask(*_: Any) -> None:  # in the middle of a step, also of one that accumulates
            nonlocal batches
            batches += 1
            if batches % board.every == 0:
                trainer.control.checkpoint()

        if board.every:
            trainer.parts.model.register_forward_hook(ask)
        return fit(trainer)

    Trainer.fit = during(board, "phase", PHASES.index("between"), asking)
    Trainer.restore = during(board, "phase", PHASES.index("resuming"), Trainer.restore)
    Loop.step = during(board, "phase", PHASES.index("stepping"), Loop.step)
    Loop.validate = during(board, "phase", PHASES.index("validating"), Loop.validate)
    Checkpoints.write = during(board, "saving", 1, Checkpoints.write)
    for number, name in enumerate(disk.OPERATIONS, 1):
        setattr(files, name, during(board, "operation", number, getattr(files, name)))


def during(board: Board, field: str, value: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its value on the board while it runs."""

    @functools.wraps(function)
    def shown(*arguments: Any, **options: Any) -> Any:
        before = getattr(board, field)
        setattr(board, field, value)
        try:
            return function(*arguments, **options)
        finally:
            setattr(board, field, before)

    return shown


def killed_at(call: int, arguments: list[str]) -> None:
    """A life that is killed in the middle of its file operation number `call`."""
    with disk.failing(lambda number, name: signal.SIGKILL if number == call else None):
        sys.exit(command_line(arguments))


Act = tuple[int, str, str]  # after this step, do this ("checkpoint", "validate", "stop", "change", "kill"), with this


class Scripted(Control):
    """Acts after exact steps, whenever the trainer looks."""

    def __init__(self, acts: Sequence[Act]) -> None:
        self.acts = sorted(acts, key=lambda act: act[0])
        self.trainer: Trainer | None = None
        self.operations: int | None = None  # of files, until the process is killed
        super().__init__()

    @property
    def pending(self) -> bool:
        while self.acts and self.trainer is not None and self.trainer.step >= self.acts[0][0]:
            _, name, value = self.acts.pop(0)
            if name == "change":
                self.change(parse_change(value))
            elif name == "kill":
                self.operations = int(value)
                self.fail(0, "")
            else:
                getattr(self, name)()
        return self._pending

    @pending.setter
    def pending(self, value: bool) -> None:
        self._pending = value

    def fail(self, number: int, name: str) -> signal.Signals | None:
        """For `disk.failing`."""
        if self.operations is None:
            return None
        self.operations -= 1
        if self.operations < 0 and not name:
            os.kill(os.getpid(), signal.SIGKILL)
        return signal.SIGKILL if self.operations < 0 else None


def scripted(plan: dict[str, Any], runs: Path, run: Path | None, acts: list[Act]) -> None:
    """A life that is told what to do after exact steps. A kill comes so many file operations after its step."""
    control = Scripted(acts)
    with disk.failing(control.fail):
        if run is None:
            trainer = Trainer.from_recipe(recipe(**plan), runs=runs, control=control)
        else:
            trainer = Trainer.resume(run, control=control)
        control.trainer = trainer
        trainer.fit()
