"""THE LOOP: forward, loss, backward, step; the classic one, in the tutorial's order.

It knows nothing of files, recipes or screens. What surrounds it (epochs, schedules, checkpoints, pauses) is `trainer.py`;
where its batches come from is `data/`; what precision and compilation do to a call of the model is `execution/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import EpochalError

Batch = tuple[Any, Tensor]  # inputs, targets
Count = int | Tensor  # what a mean loss was divided by: targets, or the sum of their class weights


class NonFiniteLoss(EpochalError):
    """The loss became NaN or infinite. `reached` is the step whose weights it reached, None where it was stopped before."""

    def __init__(self, value: float, reached: int | None = None) -> None:
        super().__init__(f"the loss is {value}")
        self.value = value
        self.reached = reached


@dataclass(slots=True)
class Taken:
    """One step that was taken. `loss` is a scalar on the device, without a graph; nobody has waited for it yet."""

    loss: Tensor
    count: Count
    batches: int
    samples: int
    lr: float


@dataclass(slots=True, kw_only=True)
class Loop:
    """The live objects of one training. `loss(output, targets)` must be a mean; `count(targets)` is what it divides by."""

    model: Callable[..., Any]  # what is called: the module itself, or its compiled form
    module: nn.Module  # the module itself
    loss: Callable[[Any, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    count: Callable[[Tensor], Count]
    after_step: Callable[[], None] | None = None  # a schedule that counts steps
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext  # autocast, or nothing
    clip_norm: float | None = None
    check_loss: bool = False  # where reading the loss costs no wait, on the CPU: before it can reach the weights

    def train_epoch(self, windows: Iterable[Sequence[Batch]]) -> Iterator[Taken]:
        """Take one step for each window of batches; the caller may look at the world between two steps."""
        if not self.module.training:  # modules that the user set to evaluation on their own stay so
            self.module.train()
        for window in windows:
            loss, count = self.step(window)
            lr = self.optimizer.param_groups[0]["lr"]  # what this step used, before a schedule moves it
            if self.after_step is not None:
                self.after_step()
            yield Taken(loss, count, len(window), sum(len(targets) for _, targets in window), lr)

    def step(self, window: Sequence[Batch]) -> tuple[Tensor, Count]:
        """One optimizer update from the batches of a window (one batch, unless gradients are accumulated).

        Returns the window's mean loss and what it was divided by. The gradient is that of the one big batch: each batch
        counts by its share of the window's targets.
        """
        if len(window) == 1:
            inputs, targets = window[0]
            count = self.count(targets)
            loss = self.forward(inputs, targets)
            loss.backward()
            loss = loss.detach()
        else:
            counts = [self.count(targets) for _, targets in window]
            count = sum(counts[1:], counts[0])
            loss = torch.zeros((), device=window[0][1].device)
            for (inputs, targets), part in zip(window, counts, strict=True):
                share = self.forward(inputs, targets) * (part / count)
                share.backward()
                loss = loss + share.detach()

        if self.check_loss and not math.isfinite(loss.item()):
            self.optimizer.zero_grad()
            raise NonFiniteLoss(loss.item())
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, count

    def forward(self, inputs: Any, targets: Tensor) -> Tensor:
        """The loss of one batch, a scalar with its graph."""
        with self.precision():
            output = self.model(inputs)
            return self.loss(output, targets)

    def validate(self, batches: Iterable[Batch], seen: Callable[[Any, Tensor, Tensor], bool]) -> bool:
        """Show `seen` the output, targets and loss of each batch, in evaluation mode and without gradients.

        `seen` returns whether to go on; so does this. The modes of all modules are restored, and so is the random state:
        validation draws nothing that the training would have drawn.
        """
        training = [module for module in self.module.modules() if module.training]
        self.module.eval()
        try:
            with torch.no_grad(), _own_random_state():
                for inputs, targets in batches:
                    with self.precision():
                        output = self.model(inputs)
                        loss = self.loss(output, targets)
                    if not seen(output, targets, loss):
                        return False
        finally:
            for module in training:
                module.training = True
        return True


def windows(batches: Iterable[Batch], size: int) -> Iterator[Sequence[Batch]]:
    """Groups of `size` batches, the last one as small as it is: an epoch's tail is stepped, never carried over."""
    window: list[Batch] = []
    for batch in batches:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _own_random_state() -> AbstractContextManager[Any]:
    """Leave the generators that dropout draws from as they were."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else [])
