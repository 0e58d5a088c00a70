"""THE LOOP: forward, loss, backward, step; the classic one, in the tutorial's order.

It knows nothing of files, recipes or screens. What surrounds it (epochs, schedules, checkpoints, pauses) is `training/`;
where its batches come from is `data/`; what precision and compilation do to a call of the model is `execution/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.errors import EpochalError
from engine.execution.average import Average
from engine.execution.generators import keep_random_state
from engine.execution.guard import Guard
from engine.execution.hands import Hands

if TYPE_CHECKING:
    from engine.distributed.together import Together

Batch = tuple[Any, Tensor]  # inputs, targets
Window = Sequence[Batch]  # the batches of one step
Count = int | Tensor  # what a mean loss was divided by: targets, or the sum of their class weights


class NonFiniteLoss(EpochalError):
    """The loss or a gradient became NaN or infinite.

    It did not reach the weights. `step` is the step that was not taken where that is only seen later, when others have been
    tried, None where it is the one under way.
    """

    def __init__(self, loss: float, step: int | None = None) -> None:
        super().__init__(
            f"the loss is {loss}" if not math.isfinite(loss) else f"a gradient is not finite (the loss is {loss:.4g})"
        )
        self.loss = loss
        self.step = step


@dataclass(slots=True)
class Taken:
    """One window of batches that was used. Tensors are scalars on the device, without a graph; nobody has waited for them yet.

    `refused` windows changed nothing: their gradient overflowed in fp16, or was not finite where such steps are left out.
    """

    loss: Tensor
    count: Count  # of several steps: of each of them, or one for each
    batches: int
    samples: int
    lr: float | Tensor  # of several steps: the same, or one for each
    norm: Tensor | None = None  # of all gradients together, before clipping and without the scaler's factor
    refused: bool = False
    steps: int = 1  # several in one where nobody needed to look between them: `loss` and `norm` have an element for each
    averaged: bool = False  # whether the average of the weights has followed


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
    scaler: torch.amp.GradScaler | None = None  # of fp16
    average: Average | None = None  # of the weights; it is what is validated
    closure: bool = False  # the optimizer evaluates the loss itself, several times a step (LBFGS)
    clip_norm: float | None = None
    clip_value: float | None = None
    measure_norm: bool = False
    guard: Guard | None = None  # keeps what is not finite from the weights on the device, where looking would be a wait
    check: bool = False  # look before the step instead: on the CPU that costs no wait
    skip: bool = False  # leave such a step out instead of raising NonFiniteLoss
    whole: Callable[[Iterable[Any]], Iterator[Taken]] | None = None  # takes the steps instead, see `execution/whole.py`
    sampled: Callable[[Window], Taken] | None = None  # takes the next step instead, and looks at it: `execution/sampled.py`
    together: Together | None = None  # several processes take each step together: `distributed/together.py`
    room: float = math.inf  # how many steps may be taken before the caller must look
    hands: Hands = field(init=False)  # what carries out the parts of a step

    def __post_init__(self) -> None:
        self.hands = Hands(self.optimizer)

    def train_epoch(self, windows: Iterable[Window]) -> Iterator[Taken]:
        """Take one step for each window of batches; the caller may look at the world between two steps."""
        if not self.module.training:  # modules that the user set to evaluation on their own stay so
            self.module.train()
        self.hands.begin(self)
        step = self.step_with_closure if self.closure else self.step
        for taken in map(step, windows) if self.whole is None else self.whole(windows):
            if not taken.refused:
                if self.average is not None and not taken.averaged:
                    self.follow()
                if self.after_step is not None:
                    self.after_step()
            yield taken

    def step(self, window: Window) -> Taken:
        """One optimizer update from the batches of a window (one batch, unless gradients are accumulated)."""
        if self.sampled is not None:
            return self.sampled(window)
        self.hands.clear()
        taken = self.backward(window)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self.clip(taken)
        if self.scaler is not None:
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)  # does nothing where a gradient overflowed
            self.scaler.update()  # and this halves the scale then
            taken.refused = self.scaler.get_scale() < before
        elif self.guard is not None:
            self.guard.watch(taken.loss)
            self.hands.update()
        elif not (self.check and self.refuses(taken)):
            self.hands.update()
        return taken

    def backward(self, window: Window) -> Taken:
        """Forward, loss and backward. The gradient is that of the one big batch: each batch counts by its share of targets."""
        if self.together is not None:
            return self.together.backward(self, window)
        if len(window) == 1:
            inputs, targets = window[0]
            count = self.count(targets)
            total = self.hands.derive(self, inputs, targets)
        else:
            counts = [self.count(targets) for _, targets in window]
            count = summed(counts)
            total = torch.zeros((), device=window[0][1].device)
            for (inputs, targets), part in zip(window, counts, strict=True):
                loss = self.forward(inputs, targets) * (part / count)
                self.hands.backward(loss if self.scaler is None else self.scaler.scale(loss))
                total = total + loss.detach()
        samples = sum(targets.shape[0] for _, targets in window)
        return Taken(total, count, len(window), samples, self.optimizer.param_groups[0]["lr"])

    def forward(self, inputs: Any, targets: Tensor) -> Tensor:
        """The loss of one batch, a scalar with its graph."""
        return self.hands.forward(self, inputs, targets)

    def clip(self, taken: Taken) -> None:
        """Measure the gradients and keep them within bounds: once a step, after the whole window."""
        if self.clip_norm is not None:
            taken.norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        elif self.measure_norm:
            taken.norm = nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])
        if self.together is not None and taken.norm is not None:
            taken.norm = self.together.norm(taken.norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(self.module.parameters(), self.clip_value)

    def follow(self) -> None:
        """Let the average of the weights follow them."""
        assert self.average is not None
        self.average.follow(self.module, None if self.guard is None else self.guard.found)

    def refuses(self, taken: Taken) -> bool:
        """Whether this step must not be taken. Raises NonFiniteLoss unless such steps are to be left out."""
        loss = taken.loss.item()
        if math.isfinite(loss) and self.hands.finite():
            return False
        self.optimizer.zero_grad()
        if not self.skip:
            raise NonFiniteLoss(loss)
        taken.refused = True
        return True

    def step_with_closure(self, window: Window) -> Taken:
        """A step of an optimizer that evaluates the loss itself. The first evaluation is what is reported."""
        if self.sampled is not None:
            return self.sampled(window)
        first: list[Taken] = []
        weights = [parameter.detach().clone() for parameter in self.module.parameters()] if self.check else []

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            taken = self.backward(window)
            self.clip(taken)
            first.append(taken)
            return taken.loss

        self.optimizer.step(closure)  # type: ignore[arg-type]  # torch asks for a float, and takes this
        worst = next((taken for taken in first if self.check and not math.isfinite(taken.loss.item())), None)
        if worst is not None:
            with torch.no_grad():
                for parameter, before in zip(self.module.parameters(), weights, strict=True):
                    parameter.copy_(before)
            self.refuses(worst)
            first[0].refused = True
        return first[0]

    def validate(self, batches: Iterable[Batch], seen: Callable[[Any, Tensor, Tensor], bool]) -> bool:
        """Show `seen` the output, targets and loss of each batch, in evaluation mode and without gradients.

        `seen` returns whether to go on; so does this. The modes of all modules are restored, and so is the random state:
        validation draws nothing that the training would have drawn.
        """
        module = self.module if self.average is None else self.average
        model = self.model if self.average is None else self.average
        training = [part for part in module.modules() if part.training]
        module.eval()
        try:
            with torch.no_grad(), keep_random_state():
                for inputs, targets in batches:
                    with self.precision():
                        output = model(inputs)
                        loss = self.loss(output, targets)
                    if not seen(output, targets, loss):
                        return False
        finally:
            for part in training:
                part.training = True
        return True


def summed(counts: Sequence[Count]) -> Count:
    """Of all batches of a window."""
    return sum(counts[1:], counts[0])


def windows(batches: Iterable[Batch], size: int) -> Iterator[Window]:
    """Groups of `size` batches, the last one as small as it is: an epoch's tail is stepped, never carried over."""
    if size == 1:
        yield from zip(batches, strict=False)  # one batch each
        return
    window: list[Batch] = []
    for batch in batches:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
