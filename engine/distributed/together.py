"""A step that several processes take together: the gradient of the one big batch, whole on every rank or sharded among them."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, cast

import psutil
import torch
from torch import Tensor, nn

from engine.control import Control
from engine.data.batches import LoaderBatches
from engine.data.share import Share
from engine.distributed import sharded
from engine.distributed.agreed import Agreed
from engine.distributed.alike import Alike
from engine.distributed.elsewhere import Elsewhere
from engine.distributed.flat import Flat
from engine.distributed.normalized import Joined
from engine.distributed.ranks import Ranks
from engine.events import RanksMeasured
from engine.execution.layers import Layers
from engine.execution.sampled import Sampler, Shadow
from engine.loop import Count, Loop, Taken, Window, summed
from engine.parts import Parts
from engine.recipe import Checkpoint, Training
from engine.run.checkpoints import Saved

EACH = 64  # steps from one to the next in which is measured how long the others are waited for
MEASURED = 1.0  # seconds, at least, between two reports of that


class Together:
    """What makes a trainer one of several. `backward` takes the place of `Loop.backward`."""

    def __init__(self, ranks: Ranks, control: Control, plan: Training, parts: Parts) -> None:
        self.ranks = ranks
        self.control = Agreed(control, ranks)  # hears at each step what any rank was asked
        ranks.refuse_one_gpu(parts.device)
        self.strategy = sharded.strategy_of(plan, parts)
        self.report_at = 0.0  # when the clock comes to the next report: rank 0's decides
        self._device = parts.device
        self._flat: Flat | None = None
        self._joined = False  # whether a layer asks all ranks, in backward too
        self._steps = 0
        self._waits: list[float] = []  # seconds for the others, in the steps that were measured
        self._began = self._measure_at = time.monotonic()
        for batches in (parts.train, parts.validation):
            ranks.deal(batches)
            if isinstance(batches, LoaderBatches):
                batches.loader = Alike(batches.loader, ranks)

    def elsewhere(self, checkpoint: Checkpoint) -> Elsewhere:
        """The saver of a rank that writes nothing."""
        return Elsewhere(checkpoint, self.ranks)

    def join(self, loop: Loop, parts: Parts) -> None:
        """Let the loop's steps be taken together. The weights are those of rank 0 from now on, the draws each rank's own."""
        sharded.normalize_together(parts)
        self._joined = any(isinstance(part, Joined) for part in parts.model.modules())
        for module in (parts.model, *([] if loop.average is None else [loop.average])):
            self.ranks.lead(chain(module.parameters(), module.buffers()))
        with parts.freezing.lifted():
            if self.strategy == "ddp" and Flat.fits(parts.model, parts.device):
                self._flat = Flat(parts.model, self.ranks)
            else:
                loop.model = self._model = sharded.shared(loop, parts, self.strategy, self.ranks)
        loop.together = self
        if self.strategy == "fsdp":
            loop.hands = sharded.ShardedHands(parts.optimizer, self.ranks)
        if self.ranks.rank:
            torch.manual_seed((torch.initial_seed() + self.ranks.rank) % 2**63)

    # A step

    def backward(self, loop: Loop, window: Window) -> Taken:
        """The loss of the whole batch, and its gradient. `window` holds this rank's `Share` of each batch.

        A share's mean loss counts by its part of all the targets. torch averages gradients over the ranks; the one of the big
        batch is their sum, so each is multiplied by their number.
        """
        shares, ranks = cast("Sequence[Share]", window), self.ranks.count
        counts: list[Count] = [loop.count(share[1]) if share.mine else 0 for share in shares]
        if self._flat is not None:
            return self._backward_at_once(self._flat, loop, shares, counts)
        _talk(loop)
        everywhere = self._everywhere(loop, shares, counts)
        total = torch.zeros((), device=shares[0][1].device)
        for i, (share, part) in enumerate(zip(shares, counts, strict=True)):
            last = i + 1 == len(shares)
            Joined.samples, Joined.mine = share.samples, share.mine
            with nullcontext() if last else self._quiet():
                loss = _counted(loop.forward(*share), part) * (part / everywhere)
                total = total + loss.detach()
                if last:
                    _talk(loop)
                hear = self._say(total) if last else None
                loss = loss * ranks
                loop.hands.backward(loss if loop.scaler is None else loop.scaler.scale(loss))
        assert hear is not None
        hear()
        samples = sum(share.samples for share in shares)
        return Taken(total, everywhere, len(shares), samples, loop.optimizer.param_groups[0]["lr"])

    def _backward_at_once(self, flat: Flat, loop: Loop, shares: Sequence[Share], counts: list[Count]) -> Taken:
        """The same with one exchange, after the gradients are there.

        Each rank's count by its targets or their weights; of weights nobody knows the sum before that exchange.
        """
        parts = [float(part) for part in counts]
        targets = sum(share.samples * share[1][:1].numel() for share in shares)
        total, factor = 0.0, 1.0
        if len(shares) == 1 and not self._joined:
            loss = loop.hands.derive(loop, *shares[0])
            total, factor = loss.item() * parts[0] if parts[0] else 0.0, parts[0] / targets
        else:
            for share, part in zip(shares, parts, strict=True):
                Joined.samples, Joined.mine = share.samples, share.mine
                loss = _counted(loop.forward(*share), int(part > 0))
                total += loss.item() * part
                loss = loss * (part / targets)
                loop.hands.backward(loss if loop.scaler is None else loop.scaler.scale(loss))
        _talk(loop)
        began = time.perf_counter()
        due = self.ranks.writes and began >= self.report_at
        told = self.control.own.pending, due, total, sum(parts)
        (asked, reported, total, counted), gradients = flat.sum(told, factor)
        self._steps += 1
        if self._steps % EACH == 0:
            self._waits.append(time.perf_counter() - began)
        if asked or reported:
            self.control.heard(asked > 0, reported > 0)
        count: Any = targets
        if loop.count is not torch.numel:
            count = counted or math.nan  # a sum of weights; a mean over none is not a number
            gradients.mul_(targets / count)
        mean = torch.tensor(total / count, dtype=gradients.dtype)
        samples = sum(share.samples for share in shares)
        return Taken(mean, count, len(shares), samples, loop.optimizer.param_groups[0]["lr"])

    def norm(self, norm: Tensor) -> Tensor:
        """The norm of all gradients, wherever their parts are."""
        return sharded.whole(norm)

    def level(self, loop: Loop) -> None:
        """Before a validation: rank 0's buffers everywhere, as in a checkpoint. Running means are of each rank's share."""
        for module in (loop.module, *([] if loop.average is None else [loop.average])):
            self.ranks.lead(module.buffers())

    def listen(self) -> None:
        """Between two batches of a validation: what any rank was asked."""
        self._say(torch.zeros(()))()

    def _everywhere(self, loop: Loop, shares: Sequence[Share], counts: list[Count]) -> Count:
        """What the mean over the whole window divides by."""
        if loop.count is torch.numel:
            return sum(share.samples * int(share[1][:1].numel()) for share in shares)
        held = torch.as_tensor(summed(counts), dtype=torch.float64, device=shares[0][1].device).clone()
        self.ranks.summing(held)()
        if held.is_cuda:
            return held
        return held.item() or math.nan  # type: ignore[return-value]  # a sum of weights; a mean over none is not a number

    def _say(self, total: Tensor) -> Callable[[], None]:
        """Begin to sum the loss, and what this rank has to tell, over all of them. What is returned ends that."""
        on_host = total.device.type == "cpu"
        due = self.ranks.writes and time.perf_counter() >= self.report_at
        told = torch.tensor([self.control.own.pending, due, total.item() if on_host else 0.0], dtype=torch.float64)
        waits = [self.ranks.summing(told)] if on_host else [self.ranks.summing(told), self.ranks.summing(total)]

        def hear() -> None:
            for wait in waits:
                wait()
            asked, due, loss = told.tolist()
            if on_host:
                total.fill_(loss)
            if asked or due:
                self.control.heard(asked > 0, due > 0)

        self._steps += 1
        if self._steps % EACH:
            return hear
        began = time.perf_counter()
        hear()  # before backward, which would wait for the others as well
        self._waits.append(time.perf_counter() - began)
        return lambda: None

    def _quiet(self) -> AbstractContextManager[Any]:
        """Without an exchange of gradients, which all but the last batch of a window do without."""
        model: Any = self._model
        return sharded.Held(model) if self.strategy == "fsdp" else cast("AbstractContextManager[Any]", model.no_sync())

    # What it reports

    @property
    def apart(self) -> bool:
        """Whether what the processes tell each other of a step has a time of its own. Shards come and go in all of it."""
        return self.strategy == "ddp"

    @property
    def overlaps(self) -> bool:
        """Whether they tell each other of gradients while others are computed."""
        return self.apart and self._flat is None

    def layers(self, module: nn.Module) -> Layers:
        """What looks at the layers of a step."""
        return sharded.ShardedLayers(module, self.ranks) if self.strategy == "fsdp" else Layers(module)

    def measured(self, step: int, steps_per_second: float | None, sampler: Sampler | None) -> RanksMeasured | None:
        """How each rank is doing; None before it is time, which it is ever more seldom. All ranks must ask.

        Where it is time for it all begin to look at a step with their `sampler`, too.
        """
        now = time.monotonic()
        due = now >= self._measure_at and steps_per_second is not None and bool(self._waits)
        due, look = self.ranks.first((due, sampler is not None and sampler.due(step)))
        if look and sampler is not None:
            sampler.begin(step)
        if not due:
            return None
        self._measure_at = now + max(MEASURED, (now - self._began) / 100)
        waits, self._waits = self._waits, []
        rate, wait = steps_per_second or math.nan, sum(waits) / len(waits)
        busy = 1 / rate - wait
        mine = 1 / busy if busy > 0 else math.nan, min(1.0, wait * rate), self._memory(), socket.gethostname()
        rates, shares, memories, hosts = zip(*self.ranks.gather(mine), strict=True)
        return RanksMeasured(step=step, rates=rates, waits=shares, memories=memories, hosts=hosts)

    def _memory(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return int(psutil.Process().memory_info().rss)

    # Checkpoints

    def gathered(self, tensor: Tensor) -> Tensor:
        """The whole tensor where it is written, and nothing elsewhere. All ranks must ask."""
        tensor = sharded.whole(tensor)
        return tensor if self.ranks.writes else tensor.new_empty(0)

    def read(self, saved: Saved | None) -> Saved | None:
        """What the first process has read, in all of them."""
        about = self.ranks.first(saved and (saved.step, saved.path, list(saved.tensors), saved.state, saved.passed_over))
        if about is None:
            return None
        step, path, kinds, state, passed_over = about
        tensors = {kind: self.ranks.spread(None if saved is None else saved.tensors[kind]) for kind in kinds}
        return Saved(step=step, path=path, tensors=tensors, state=state, passed_over=passed_over)

    part = staticmethod(sharded.part)


def _talk(loop: Loop) -> None:
    """From here on the processes tell each other something: that is to be seen where this step is looked at."""
    if isinstance(loop, Shadow):
        loop.watch.switch(loop.talk)


def _counted(loss: Tensor, part: Count) -> Tensor:
    """Nothing instead of a mean over no targets, which is not a number."""
    if isinstance(part, Tensor):
        return torch.where(part > 0, loss, torch.zeros_like(loss))
    return loss if part else torch.where(torch.zeros_like(loss, dtype=torch.bool), loss, torch.zeros_like(loss))
