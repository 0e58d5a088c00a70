"""Stack on a device that the host need not wait for: bursts of steps, each of them one launch.

All that a step reads is on the device: the order of the epoch, where in it the step is, the optimizers' numbers for each step
of the burst. A training whose loss or gradient is not finite is held there from that step on; the host learns of it with the
losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy
import numpy.typing
import torch
from torch import Tensor

from engine.execution.cuda_graph import Graph, StandIn
from engine.parts import Parts
from engine.sweep.stack import Stack

LONGEST = 1024  # steps of a burst
Numbers = numpy.typing.NDArray[numpy.float64]
Key = tuple[int, bool, bool, bool]  # batch size; whether norms are measured, values clipped, weights decayed


@dataclass(slots=True)
class Burst:
    """Steps that were launched. `losses` and `norms` (steps, rows) and `sound` (rows), how many of them were taken, are there
    once `wait` returns."""

    steps: int
    samples: int
    batches: slice  # of the epoch
    rates: Numbers  # (steps or 1, rows): the first group's learning rate
    losses: Tensor
    norms: Tensor | None
    sound: Tensor
    ready: torch.cuda.Event | None

    def wait(self) -> None:
        if self.ready is not None:
            self.ready.synchronize()


class DeviceStack(Stack):
    """`graph` makes what records a step. Rows of trainings that have left stay, held, until `tidy`."""

    def __init__(self, parts: Sequence[Parts], graph: Callable[[torch.device], Graph]) -> None:
        self._new_graph = graph
        self._graphs: dict[Key, Graph | None] = {}
        self.problem = ""  # why steps are not recorded
        self._moves = False  # whether any of them has a momentum
        super().__init__(parts)

    # The rows

    def _gather(self) -> None:
        super()._gather()
        device, rows = self.flat.device, len(self.parts)
        groups = len(self._columns)
        self.live = list(range(rows))
        self._rows_of = {id(parts): row for row, parts in enumerate(self.parts)}
        self._graphs.clear()
        self._counted = self.steps[:, 0].double().cpu().numpy()
        self._orders = torch.zeros(rows, self.train.samples, dtype=torch.int64, device=device)
        self._span = torch.arange(self.train.batch_size, device=device)
        self._position = torch.zeros(1, dtype=torch.int64, device=device)
        self._slot = torch.zeros(1, dtype=torch.int64, device=device)
        self._sound = torch.zeros(rows, dtype=torch.int64, device=device)
        self._alive = torch.ones(rows, dtype=torch.bool, device=device)
        self._table = torch.zeros(LONGEST, 4 if self._optimizer == "SGD" else 5, groups, rows, 1, device=device)
        self._losses, self._norms = (torch.zeros(LONGEST, rows, device=device) for _ in range(2))
        self._limits, self._bounds = (torch.zeros(rows, 1, device=device) for _ in range(2))

    def row(self, parts: Parts) -> int:
        return self._rows_of[id(parts)]

    def leave(self, positions: Sequence[int]) -> None:
        """Give these of the live trainings what is theirs; their rows are held from here on."""
        leaving = [self.live[position] for position in positions]
        for row in leaving:
            self._release(row)
            self._alive[row].fill_(False)
        self.live = [row for row in self.live if row not in leaving]

    def tidy(self) -> None:
        """Between two bursts: move together where half of the rows or more are nobody's."""
        if self.live and 2 * len(self.live) <= len(self.parts):
            self._keep([self.parts[row] for row in self.live])

    # The steps

    @property
    def full(self) -> int:
        """Full batches of an epoch."""
        return self.train._end // self.train.batch_size

    def begin_epoch(self, orders: dict[int, Tensor]) -> None:
        """The order of the samples of each live row."""
        if len(orders) == len(self.parts):
            chosen = torch.stack([orders[row] for row in range(len(self.parts))])
        else:  # rows that are held may read what they like
            chosen = torch.zeros(self._orders.shape, dtype=torch.int64)
            for row, indices in orders.items():
                chosen[row] = indices
        self._upload(self._orders, chosen)
        self._position.zero_()

    def set_bounds(self, norm: Sequence[float | None], value: Sequence[float | None], measure: bool) -> None:
        """Of each live row, from the next burst on: the largest norm and the largest value of its gradients."""
        self._measures = measure or any(limit is not None for limit in norm)
        self._clips_value = any(limit is not None for limit in value)
        for held, limits in ((self._limits, norm), (self._bounds, value)):
            given = torch.full(held.shape, float("inf"))
            for row, limit in zip(self.live, limits, strict=True):
                given[row] = float("inf") if limit is None else limit
            self._upload(held, given)

    def launch(self, first: int, steps: int) -> Burst:
        """Steps with the epoch's batches from `first` on. The schedules of the trainings are moved on with them."""
        options = self._options(steps)
        self._upload(self._table[:steps], torch.from_numpy(self._coefficients(options, steps)))
        self._slot.zero_()
        self._sound.zero_()
        decays = bool(options[..., 1].any())
        full = max(0, min(steps, self.full - first))
        train = self.train
        self._take((train.batch_size, self._measures, self._clips_value, decays), full)
        tail = train._end % train.batch_size
        if full < steps:
            self._take((tail, self._measures, self._clips_value, decays), 1)
        self._counted += steps
        losses, norms = self._download(self._losses[:steps]), self._download(self._norms[:steps]) if self._measures else None
        sound = self._download(self._sound)
        ready = None
        if self.flat.is_cuda:
            ready = torch.cuda.Event()
            ready.record()
        samples = full * train.batch_size + (tail if full < steps else 0)
        return Burst(steps, samples, slice(first, first + steps), options[..., 0, 0], losses, norms, sound, ready)

    def _take(self, key: Key, times: int) -> None:
        """The first step of a kind is not recorded, as it sets up what is set up only once. It is a step all the same."""
        if not times:
            return
        body = partial(self._body, *key)
        if key not in self._graphs:
            body()
            self._graphs[key] = None
            times -= 1
        graph = self._graphs[key]
        if graph is None and times:
            graph = self._graphs[key] = self._recorded(body)
        for _ in range(times):
            graph.replay()  # type: ignore[union-attr]

    def _recorded(self, body: Callable[[], None]) -> Graph:
        graph = self._new_graph(self.flat.device)
        try:
            graph.record(body)
        except Exception as error:  # of any kind: what the device, torch or the user's model does not let be recorded
            self.problem = (str(error).splitlines() or [type(error).__name__])[0][:200]
            graph = StandIn()
            graph.record(body)
        return graph

    def _body(self, size: int, measures: bool, clips_value: bool, decays: bool) -> None:
        """One step of all with batches of `size`; nothing in it waits for it, or is a changing number of Python's."""
        chosen = self._orders.index_select(1, self._span[:size] + self._position)
        losses, gradients = self.gradients(*self.batch(chosen))
        largest = torch.linalg.vector_norm(gradients, float("inf"), dim=1)
        self._alive.logical_and_((largest + losses).isfinite())
        alive = self._alive[:, None]
        self._losses.index_copy_(0, self._slot, losses[None])
        if measures:
            norms = torch.linalg.vector_norm(gradients, dim=1)
            self._norms.index_copy_(0, self._slot, norms[None])
            gradients.mul_((self._limits / (norms[:, None] + 1e-6)).clamp_(max=1.0))  # as torch.nn.utils.clip_grad_norm_
        if clips_value:
            torch.clamp(gradients, -self._bounds, self._bounds, out=gradients)
        gradients.masked_fill_(~alive, 0.0)
        live = alive.to(gradients.dtype)
        numbers = self._table.index_select(0, self._slot)[0]
        held = numbers[:4] * live  # numbers of which 0 leaves things as they are
        update = self._move_sgd if self._optimizer == "SGD" else self._move_adam
        for group, columns in enumerate(self._columns):
            state = [held_state[:, columns] for held_state in self.state.values()]
            update(self.flat[:, columns], gradients[:, columns], state, held[:, group], numbers[-1, group], decays, group)
        self.steps.add_(live)
        self._sound.add_(self._alive)
        self._slot.add_(1)
        self._position.add_(size)

    def _move_sgd(
        self, weights: Tensor, gradients: Tensor, state: list[Tensor], held: Tensor, _: Tensor, decays: bool, group: int
    ) -> None:
        rate, decay, forget, _ = held
        if decays:
            gradients.addcmul_(weights, decay)
        if self._moves:
            kept = 1 - forget
            state[0].mul_(kept).add_(gradients)
            gradients = gradients.addcmul_(state[0], kept) if self._nesterov[group] else state[0]
        weights.addcmul_(gradients, rate)

    def _move_adam(
        self, weights: Tensor, gradients: Tensor, state: list[Tensor], held: Tensor, eps: Tensor, decays: bool, _: int
    ) -> None:
        mean, square = state
        rate, decay, new_mean, new_square = held
        if decays:
            if self._decoupled:
                weights.mul_(1 - decay)
            else:
                gradients.addcmul_(weights, decay)
        mean.lerp_(gradients, new_mean)
        square.lerp_(gradients.square(), new_square)
        weights.addcdiv_(mean * rate, square.sqrt().add_(eps))

    # Their numbers

    def _options(self, steps: int) -> Numbers:
        """The numbers of each optimizer for each step: (steps, or 1 where they stay, rows, groups, numbers)."""
        keys = _options_of_sgd if self._optimizer == "SGD" else _options_of_adam
        schedules = {row: self.parts[row].schedule for row in self.live}
        moving = {row: schedule for row, schedule in schedules.items() if schedule is not None and schedule.unit == "step"}
        options = numpy.zeros((steps if moving else 1, len(self.parts), len(self._columns), 5))
        for row in self.live:
            groups, schedule = self.parts[row].optimizer.param_groups, moving.get(row)
            for k in range(len(options)):
                options[k, row] = [keys(group) for group in groups]
                if schedule is not None:
                    schedule.after_step()
        first = self.parts[self.live[0]].optimizer.param_groups
        self._nesterov = [bool(group.get("nesterov")) for group in first]
        self._decoupled = self._optimizer == "AdamW" or bool(first[0].get("decoupled_weight_decay"))
        self._moves = self._moves or bool(self._optimizer == "SGD" and options[..., 2].any())
        return options

    def _coefficients(self, options: Numbers, steps: int) -> numpy.typing.NDArray[numpy.float32]:
        """What the update multiplies with: (steps, coefficients, groups, rows, 1)."""
        rate, decay, beta1, beta2, eps = (options[..., i] for i in range(5))
        if self._optimizer == "SGD":
            columns = [-rate, decay, 1 - beta1, numpy.zeros_like(rate)]
        else:
            taken = (self._counted[None] + 1 + numpy.arange(steps)[:, None])[:, :, None]
            root = numpy.sqrt(1 - beta2**taken)
            decay = rate * decay if self._decoupled else decay
            columns = [-rate / (1 - beta1**taken) * root, decay, 1 - beta1, 1 - beta2, eps * root]
        whole = numpy.stack(numpy.broadcast_arrays(*columns), 1)
        whole = numpy.broadcast_to(whole, (steps, *whole.shape[1:]))
        return whole.transpose(0, 1, 3, 2)[..., None].astype(numpy.float32, order="C")

    # To the device and back

    def _upload(self, held: Tensor, values: Tensor) -> None:
        """In the order of the launches, without a wait."""
        held.copy_(values.pin_memory() if held.is_cuda else values, non_blocking=True)

    def _download(self, held: Tensor) -> Tensor:
        taken = torch.empty(held.shape, dtype=held.dtype, pin_memory=held.is_cuda)
        return taken.copy_(held, non_blocking=True)


def _options_of_sgd(group: dict[str, Any]) -> tuple[float, ...]:
    return group["lr"], group["weight_decay"], group["momentum"], 0.0, 0.0


def _options_of_adam(group: dict[str, Any]) -> tuple[float, ...]:
    return group["lr"], group["weight_decay"], *group["betas"], group["eps"]
