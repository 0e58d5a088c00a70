"""A population whose steps the host launches in bursts. While the device works on one, the host accounts for the one before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from engine.data.batches import ResidentBatches
from engine.data.order import order
from engine.execution.guard import Guard
from engine.loop import Taken
from engine.measure import take_in
from engine.parts import Parts
from engine.sweep.device_stack import LONGEST, Burst, DeviceStack, Numbers
from engine.sweep.population import GRAPHS, Population, begin_epoch, seed_of, stopped
from engine.sweep.stack import Stack
from engine.training.fitting import Fitting
from engine.training.trainer_state import REPORT_SECONDS

FIRST = 16  # steps of the first burst, from which their duration is known


@dataclass(slots=True)
class Ahead:
    """How far steps were launched in an epoch. `counts` is what each batch of each row counts: (rows or 1, batches)."""

    epoch: int
    counts: Numbers
    launched: int  # since the last time that all was accounted for
    batch: int = 0
    followed: bool = False  # steps of the next epoch were launched before this one was accounted for


class Told(Guard):
    """What a member's device has found, told by the population: nobody waits for the device to ask."""

    def __init__(self) -> None:
        self.taken = 0

    def watch(self, loss: Tensor) -> None:
        raise AssertionError("the population takes the steps")

    def steps(self) -> int:
        return self.taken

    def reset(self) -> None:
        self.taken = 0


class Bursts(Population):
    """The steps of all members in bursts. Live changes act from the next burst on."""

    stack: DeviceStack

    def __init__(self, members: Sequence[Fitting], stack: DeviceStack) -> None:
        super().__init__(members, stack)
        self._guards = {id(member): Told() for member in members}
        for member in members:
            member.loop.guard = self._guards[id(member)]
        self._counts = _sample_counts(members[0])
        self._told = False  # that the steps can't be recorded
        self._prepared: tuple[int, dict[int, Tensor]] | None = None  # the epoch, and the order of each member's seed

    def _epoch(self) -> None:
        """An epoch; and those after it as long as nothing between them needs the weights of that moment."""
        self._each(begin_epoch)
        self.stack.tidy()
        if not self.members:
            return
        length, halt, flying = self.stack.train.length, 0.0, None
        ahead = self._open(self.members[0].epoch + 1)  # the place up to which steps were launched
        while self.members:
            if flying is None:
                self._set_bounds()
                halt = min(member._next_halt() for member in self.members) - self.members[0].step + ahead.launched
            following = None
            if ahead.launched < halt and not self._due:
                if ahead.batch == length and self._may_go_on(ahead.epoch):
                    ahead.followed = True
                    ahead = self._open(ahead.epoch + 1, ahead.launched)
                if ahead.batch < length:
                    following = self._launch(ahead, halt)
            if flying is not None:
                self._account(*flying)
            if following is None:
                if ahead.batch == length:
                    self._tell_problem()
                    self._each(self._end_epoch)
                    return
                self._each(self._look)
            flying = following

    def _launch(self, ahead: Ahead, halt: float) -> tuple[Burst, Ahead]:
        """The next burst, and the epoch that it is of."""
        burst = self.stack.launch(ahead.batch, self._steps(min(self.stack.train.length - ahead.batch, halt - ahead.launched)))
        ahead.batch += burst.steps
        ahead.launched += burst.steps
        if ahead.batch == self.stack.train.length:
            self._orders(ahead.epoch + 1)  # while the device works
        return burst, ahead

    def _may_go_on(self, epoch: int) -> bool:
        """Whether the steps after that epoch may be taken before the host has come to its end."""
        return 2 * len(self.members) > len(self.stack.parts) and all(_is_bare(member, epoch) for member in self.members)

    def _tell_problem(self) -> None:
        if not self.stack.problem or self._told:
            return
        self._told = True
        for member in self.members:
            text = f"steps are launched operation by operation, because they can't be recorded ({self.stack.problem})"
            member.reporter.messages([text], "warning")

    def _end_epoch(self, member: Fitting) -> tuple[str, str] | None:
        return None if member._end_epoch() else stopped(member)

    @property
    def _due(self) -> bool:
        """Whether something is to be done between two steps."""
        return any(member.control.pending or member._spent for member in self.members)

    def _set_bounds(self) -> None:
        loops = [member.loop for member in self.members]
        measure = any(loop.measure_norm for loop in loops)
        self.stack.set_bounds([loop.clip_norm for loop in loops], [loop.clip_value for loop in loops], measure)

    def _steps(self, room: float) -> int:
        """So many that there is a report as often as the screens want one."""
        pace = self.members[0].pace.steps_per_second
        wanted = FIRST if pace is None else max(1, int(pace * REPORT_SECONDS))
        return int(min(room, wanted, LONGEST))

    def _orders(self, epoch: int) -> dict[int, Tensor]:
        if self._prepared is None or self._prepared[0] != epoch:
            train = self.stack.train
            seeds = {seed_of(member.parts) for member in self.members}
            self._prepared = epoch, {seed: order(train.samples, seed, epoch, train.shuffle) for seed in seeds}
        return self._prepared[1]

    def _open(self, epoch: int, launched: int = 0) -> Ahead:
        """Let the epoch's order go to the device."""
        orders = self._orders(epoch)
        of_rows = {self.stack.row(member.parts): orders[seed_of(member.parts)] for member in self.members}
        self.stack.begin_epoch(of_rows)
        train = self.stack.train
        firsts, end = numpy.array(train._firsts(0)), train._end
        if self._counts is None:
            counts = numpy.diff(numpy.append(firsts, end))[None] * float(train.targets[0].numel())
        else:
            counts = numpy.zeros((len(self.stack.parts), len(firsts)))
            for row, indices in of_rows.items():
                counts[row] = numpy.add.reduceat(self._counts[indices.numpy()[:end]], firsts)
        return Ahead(epoch, counts, launched)

    def _account(self, burst: Burst, of: Ahead) -> None:
        """Let each member know of its steps. One whose loss or gradient was not finite ends, with the weights of before."""
        burst.wait()
        steps, members = burst.steps, self.members
        rows = [self.stack.row(member.parts) for member in members]
        shape = len(rows), steps
        losses = burst.losses.numpy().T[rows].astype(numpy.float64)
        norms = None if burst.norms is None else burst.norms.numpy().T[rows].astype(numpy.float64)
        counts = numpy.broadcast_to((of.counts if len(of.counts) == 1 else of.counts[rows])[:, burst.batches], shape)
        rates = numpy.broadcast_to(burst.rates.T[rows], shape)
        taken = burst.sound.numpy()[rows]
        sound = (taken == steps) & numpy.isfinite(losses).all(1)
        ends = of.followed and burst.batches.stop == self.stack.train.length
        chosen = numpy.flatnonzero(sound)
        if len(chosen):
            meters = [members[i].meter for i in chosen]
            take_in(meters, losses[chosen], counts[chosen], rates[chosen], None if norms is None else norms[chosen])
        position = {id(member): i for i, member in enumerate(members)}
        now, means = time.perf_counter(), losses.mean(1).tolist()

        def take(member: Fitting) -> None:
            i = position[id(member)]
            member.batch += steps
            member.step += steps
            self._guards[id(member)].taken += int(taken[i])
            if not sound[i]:
                each = [torch.from_numpy(values[i].copy()) for values in (losses, counts, rates)]
                norm = None if norms is None else torch.from_numpy(norms[i].copy())
                member.meter.add(Taken(each[0], each[1], steps, burst.samples, each[2], norm, steps=steps))
                member._report()  # raises
            member.pace.took(steps, burst.samples)
            if ends:  # the steps of the next epoch are under way
                self._end_epoch(member)
                member._begin_epoch()
            else:
                member._emit_points()
            if now >= member._next_report:
                member._progress("train", member.batch, self.stack.train.length, means[i])
                member._collect()

        self._each(take)


def _is_bare(member: Fitting, epoch: int) -> bool:
    """Whether the end of that epoch only counts."""
    plan, schedule, saver = member.plan, member.parts.schedule, member.saver
    validates = member.parts.validation is not None
    if epoch >= member.length.epochs or plan.patience is not None or (schedule is not None and schedule.unit != "step"):
        return False
    if validates and epoch % plan.validate_every == 0:
        return False
    return saver is None or (validates and epoch % saver.plan.every != 0)


def stack_of(parts: Sequence[Parts]) -> Stack:
    """The stack for the device on which these are."""
    graph = GRAPHS.get(parts[0].device.type)
    return Stack(parts) if graph is None else DeviceStack(parts, graph)


def population_of(members: Sequence[Fitting], stack: Stack) -> Population:
    """The population that goes with the stack."""
    return Bursts(members, stack) if isinstance(stack, DeviceStack) else Population(members, stack)


def _sample_counts(member: Fitting) -> Numbers | None:
    """What the loss divides by for each sample alone, where that is not the number of its targets; a batch counts their sum."""
    parts = member.parts
    if parts.count is torch.numel:
        return None
    assert isinstance(parts.train, ResidentBatches)
    targets = parts.train.targets
    if targets.is_floating_point():
        return numpy.array([float(parts.count(targets[:1]))] * len(targets))
    values, found = targets.unique(return_inverse=True)
    of_value = numpy.array([float(parts.count(value.reshape(1))) for value in values])
    counts: Numbers = of_value[found.cpu().numpy()].reshape(len(targets), -1).sum(1)
    return counts
