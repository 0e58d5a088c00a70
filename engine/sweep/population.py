"""Population: several trainings that differ only in numbers, each step of all of them as one; see `stack.py`."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine import execution
from engine.data.batches import ResidentBatches
from engine.data.order import order
from engine.errors import RecipeError
from engine.loop import NonFiniteLoss, Taken
from engine.parts import Parts
from engine.recipe import Recipe
from engine.training.failures import Failure
from engine.training.trainer_state import REPORT_SECONDS

if TYPE_CHECKING:
    from engine.training.fitting import Fitting, Result

from engine.execution.cuda_graph import CudaGraph, Graph
from engine.sweep.stack import STATE, Stack

NUMBERS = ("lr", "momentum", "betas", "eps", "weight_decay")  # of the optimizer, in which members may differ
MOST = {"cpu": 64, "cuda": 512}  # members of one population
FEWEST = {"cpu": 8, "cuda": 2}  # on a CPU fewer gain nothing, see tests/benchmarks/population.py
# Devices on which a burst of steps is launched at once.
GRAPHS: dict[str, Callable[[torch.device], Graph]] = {"cuda": CudaGraph}
ASKED_SECONDS = 0.005  # in which who asks one member has asked all, so that they stop at the same step


def alike(recipe: Recipe) -> str:
    """The same text for recipes that differ in numbers alone, which are: `NUMBERS` of the optimizer, and the seed."""
    values = recipe.to_dict()
    optimizer = {key: value for key, value in values["optimizer"].items() if key not in NUMBERS}
    return repr({**values, "name": "", "seed": 0, "optimizer": optimizer})


def device_type(recipe: Recipe) -> str:
    """Of the device on which it is to be trained; "" where this machine has none such, as each will say by itself."""
    try:
        return execution.find_device(recipe.training.device).type
    except RecipeError:
        return ""


def misfit(recipe: Recipe) -> str:
    """Why a training of this recipe can't be one of a population, "" where nothing in the recipe speaks against it."""
    plan, optimizer = recipe.training, recipe.to_dict()["optimizer"]
    if optimizer["name"] not in STATE:
        return f"the optimizer is {optimizer['name']}, not {', '.join(STATE)}"
    if used := [key for key in ("amsgrad", "maximize", "dampening", "capturable", "differentiable") if optimizer.get(key)]:
        return f"optimizer.{used[0]} = {optimizer[used[0]]}"
    if plan.execution != "auto":
        return f"training.execution is {plan.execution!r}, not 'auto'"
    if plan.precision not in ("float32", "tf32"):
        return f"training.precision is {plan.precision!r}, not 'float32'"
    if device_type(recipe) not in MOST:
        return "they are neither on the CPU nor on a CUDA device"
    if plan.non_finite != "stop":
        return f"training.non_finite is {plan.non_finite!r}, not 'stop'"
    unlike = {"accumulate": plan.accumulate > 1, "ema": plan.ema > 0, "freeze_epochs": plan.freeze_epochs is not None}
    if used := [name for name, on in unlike.items() if on]:
        return f"training.{used[0]} is used"
    return "data.augment is used" if recipe.loading.augment else ""


class Population:
    """Several trainings, step by step together. Each ends by itself; an error of one ends that one alone."""

    def __init__(self, members: Sequence[Fitting], stack: Stack) -> None:
        self.members = list(members)  # those that still train, as the rows of the stack
        self.stack = stack
        self._everyone = list(members)
        self._results: dict[int, Result | Exception] = {}  # by id
        self._next_report = 0.0
        for member in members:
            member.execution = f"population of {len(members)}"

    def fit(self) -> list[Result | Exception]:
        """Train all to their ends. For each what came of it, in their order: a Result, or the error of the user's code."""
        first = self.members[0]
        with execution.arithmetic(first.plan, first.parts.threads):
            self._each(_begin)
            while self.members:
                self._each(lambda member: member._over)
                if self.members:
                    self._epoch()
        return [self._results[id(member)] for member in self._everyone]

    def _epoch(self) -> None:
        train = self.stack.train
        self._each(begin_epoch)
        if not self.members:
            return
        orders = {
            id(member): order(train.samples, seed_of(member.parts), member.epoch + 1, train.shuffle) for member in self.members
        }
        together = torch.stack([orders[id(member)] for member in self.members])
        halt = min(member._next_halt() for member in self.members)
        for first in train._firsts(self.members[0].batch):
            if len(together) != len(self.members):  # some have left
                together = torch.stack([orders[id(member)] for member in self.members])
            self._step(together[:, first : first + train.batch_size])
            asked = any(member.control.pending for member in self.members)
            if asked:
                time.sleep(ASKED_SECONDS)
            if asked or time.perf_counter() >= self._next_report or any(m.step >= halt for m in self.members[:1]):
                self._each(self._look)
                self._next_report = time.perf_counter() + REPORT_SECONDS
                if self.members:
                    halt = min(member._next_halt() for member in self.members)
            if not self.members:
                return
        self._each(self._end_epoch)

    def _step(self, indices: Tensor) -> None:
        inputs, targets = self.stack.batch(indices)
        losses, gradients = self.stack.gradients(inputs, targets)
        if broken := self.stack.broken(losses, gradients):
            sound = [i for i in range(len(self.members)) if i not in broken]
            failing = {id(self.members[i]): losses[i].item() for i in broken}
            self._each(lambda member: _fail(failing.get(id(member))))
            losses, gradients, targets = losses[sound], gradients[sound], targets[sound]
            if not self.members:
                return
        members = self.members
        loops = [member.loop for member in members]
        norms = self.stack.clip(
            gradients,
            [loop.clip_norm for loop in loops],
            [loop.clip_value for loop in loops],
            any(loop.measure_norm for loop in loops),
        )
        self.stack.update(gradients)
        samples, plain = targets.shape[1], members[0].parts.count is torch.numel
        each = targets[0].numel() if plain else 0
        for i, (member, loss) in enumerate(zip(members, losses.unbind(), strict=True)):
            lr = member.parts.optimizer.param_groups[0]["lr"]
            count = each if plain else member.parts.count(targets[i])
            member.batch += 1
            member.step += 1
            member.meter.add(Taken(loss, count, 1, samples, lr, None if norms is None else norms[i]))
            if member.loop.after_step is not None:
                member.loop.after_step()

    def _look(self, member: Fitting) -> tuple[str, str] | None:
        """Between two steps: state, and do what is asked for or due. How and why the training ends, if it does."""
        member._report()
        if member.control.pending and not member._attend():
            return stopped(member)
        if member._spent:
            return self._end_epoch(member) or member._over
        if member._mid_epoch_validation_is_due and not member._validate_mid_epoch():
            return stopped(member)
        return None

    def _end_epoch(self, member: Fitting) -> tuple[str, str] | None:
        member._report()
        return None if member._end_epoch() else stopped(member)

    def _each(self, work: Callable[[Fitting], tuple[str, str] | None]) -> None:
        """Do this for each that still trains. Those that it ends, or whose error it raises, leave."""
        left: list[tuple[int, tuple[str, str, Failure | None] | Exception]] = []
        for position, member in enumerate(self.members):
            try:
                outcome = member._outcome(lambda member=member: work(member) or ("", ""))  # type: ignore[misc]
            except Exception as error:  # of the user's code; it is on the record
                traceback.print_exc(file=sys.stderr)
                left.append((position, error))
            else:
                if outcome[0]:
                    left.append((position, outcome))
        if not left:
            return
        members = self.members
        self.members = [member for position, member in enumerate(members) if position not in dict(left)]
        self.stack.leave([position for position, _ in left])
        for position, ended in left:
            member = members[position]
            self._results[id(member)] = ended if isinstance(ended, Exception) else member._conclude(*ended)


def _begin(member: Fitting) -> None:
    member._lock()
    member._start()


def begin_epoch(member: Fitting) -> tuple[str, str] | None:
    """Begin it, or say how and why the training ends here."""
    member._begin_epoch()
    return stopped(member) if member.control.stopping and not member._attend() else None


def stopped(member: Fitting) -> tuple[str, str]:
    """How and why a training ends that was asked to."""
    return "stopped", member.control.stopping or "stopped"


def _fail(loss: float | None) -> None:
    if loss is not None:
        raise NonFiniteLoss(loss)


def seed_of(parts: Parts) -> int:
    """That of the order of its samples."""
    assert isinstance(parts.train, ResidentBatches)
    return parts.train.seed
