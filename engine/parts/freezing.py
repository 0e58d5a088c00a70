"""Freezing: what of a model is not trained, for good or in the first epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from engine.errors import Problem, RecipeError
from engine.parts.patterns import fits, unfit
from engine.recipe import Training


@dataclass(slots=True)
class Freezing:
    """What a plan freezes, and for how many epochs: None is for good.

    A frozen parameter requires no gradient, so that optimizers pass it over: no weight decay, no state. Batch normalization
    whose parameters are frozen is in evaluation mode: its running statistics are used, and stay. All else, dropout too, is as
    in training.
    """

    parameters: list[nn.Parameter] = field(default_factory=list)
    normalizations: list[nn.Module] = field(default_factory=list)
    epochs: int | None = None
    frozen: bool = True  # whether it is so now

    @classmethod
    def of(cls, model: nn.Module, plan: Training) -> Freezing:
        """Freeze what the plan names. RecipeError for a pattern that fits nothing, and where nothing is left to be trained."""
        patterns, named = plan.freeze, dict(model.named_parameters())
        statistics = [name for name, _ in model.named_buffers()]
        problems = [
            Problem("training.freeze", f"training.freeze has {pattern!r}, which {unfit(pattern, named)}")
            for pattern in patterns
            if not any(fits(name, [pattern]) for name in (*named, *statistics))
        ]
        left = any(p.requires_grad and not fits(name, patterns) for name, p in named.items())
        if patterns and not left and not problems:
            problems = [Problem("training.freeze", f"training.freeze = {patterns} leaves no parameter to be trained")]
        if plan.freeze_epochs is not None and not patterns:
            words = f"training.freeze_epochs is {plan.freeze_epochs}, and training.freeze names nothing that is frozen so long"
            problems.append(Problem("training.freeze_epochs", words))
        if problems:
            raise RecipeError(problems)
        if patterns and not model.training:
            model.train()  # as the loop would, and with it what is frozen here
        freezing = cls(
            [p for name, p in named.items() if p.requires_grad and fits(name, patterns)],
            [part for name, part in model.named_modules() if part.training and _normalizes(name, part, patterns)],
            plan.freeze_epochs,
        )
        freezing._freeze(True)
        return freezing

    def begin(self, ended: int) -> bool:
        """Before an epoch, after so many: whether other parameters are trained than before."""
        frozen = self.epochs is None or ended < self.epochs
        if frozen == self.frozen:
            return False
        self._freeze(frozen)
        return True

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """As it will be one day: for what has to know all that is ever trained, such as the optimizer."""
        frozen = self.frozen
        self._freeze(frozen and self.epochs is None)
        try:
            yield
        finally:
            self._freeze(frozen)

    def _freeze(self, frozen: bool) -> None:
        self.frozen = frozen
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        for part in self.normalizations:
            part.training = not frozen


def _normalizes(name: str, part: nn.Module, patterns: list[str]) -> bool:
    """Whether it may keep running statistics, and its parameters are frozen; where it has none, the statistics' names count."""
    own = [key for key, _ in part.named_parameters(recurse=False)] or [key for key, _ in part.named_buffers(recurse=False)]
    return isinstance(part, _NormBase) and bool(own) and all(fits(f"{name}.{key}".lstrip("."), patterns) for key in own)
