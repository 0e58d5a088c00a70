"""The schedule of a recipe: any scheduler of torch or one's own, a warm-up before it, or several one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LinearLR, LRScheduler

from engine import catalog
from engine.catalog.own import is_own
from engine.errors import Problem, RecipeError
from engine.parts.schedule import Schedule
from engine.recipe import Component


def build_schedule(
    component: Component,
    optimizer: Optimizer,
    *,
    epochs: int,
    steps: int | None,
    mode: str,
    steps_per_epoch: int | None = None,
) -> Schedule:
    """The schedule that a recipe's [scheduler] names, on the optimizer's parameter groups.

    `epochs` and `steps` are the length of the whole run (steps None where it is not known beforehand; with
    `steps_per_epoch` where they are not those of whole epochs), `mode` ("min" or "max")
    is the monitored metric's better direction. A scheduler whose length is left out ends with the run. A warm-up comes before
    the scheduler, which then begins with its first learning rate and has the rest of the run. Learning rates of several
    parameter groups keep their ratio. Raises RecipeError for what does not fit the run.
    """
    if steps is not None and steps_per_epoch is None:
        steps_per_epoch = max(1, round(steps / epochs))
    plan = Plan(optimizer, epochs, steps, mode, steps_per_epoch)
    try:
        return plan.compose(component)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        if is_own(component.name):  # the user's own code: their traceback
            raise
        message = f"scheduler.name = {component.name!r} can't be made for this run: {error}"
        raise RecipeError([Problem("scheduler.name", message)]) from error


def constant(optimizer: Optimizer) -> LRScheduler:
    """The optimizer's learning rate as it is; with a warm-up, after that."""
    return ConstantLR(optimizer, factor=1.0, total_iters=1)


@dataclass(slots=True)
class Phase:
    """One scheduler among several. `span` is the number of units after which the next one begins, None for the last."""

    schedule: Schedule
    span: int | None
    options: list[dict[str, Any]]  # of the optimizer's groups, as they are when it begins


class Phases(Schedule):
    """Several schedulers one after the other, each from the optimizer's learning rate, and each for its length."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = phases
        self._enter(0)

    def _enter(self, index: int) -> None:
        phase = self.phases[index]
        super().__init__(phase.schedule.scheduler, phase.schedule.unit, phase.schedule.length)
        self.index, self.passed = index, 0
        self.unused = False  # whether no step was taken yet with the learning rate that this phase began with
        for group, options in zip(self.scheduler.optimizer.param_groups, phase.options, strict=True):
            _set(group, options)

    def after_step(self) -> None:
        self.unused = False
        super().after_step()

    def after_epoch(self, metric: float | None) -> None:
        if self.unused:  # the last step of this epoch ended a warm-up that counts steps
            self.unused = False
        else:
            super().after_epoch(metric)

    def advance(self, metric: float | None = None) -> None:
        self.passed += 1
        if self.passed == self.phases[self.index].span:
            before = self.unit
            self._enter(self.index + 1)
            self.unused = before == "step" and self.unit != "step"
        else:
            super().advance(metric)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "phase": self.index,
            "passed": self.passed,
            "unused": self.unused,
            "phases": [
                {"scheduler": phase.schedule.scheduler.state_dict(), "length": phase.schedule.length, "span": phase.span}
                for phase in self.phases
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the state was taken. The optimizer's groups are left as they are: its own state holds their rates."""
        for phase, held in zip(self.phases, state["phases"], strict=True):
            phase.schedule.scheduler.load_state_dict(dict(held["scheduler"]))
            phase.schedule.length, phase.span = held["length"], held["span"]
        self.index, self.passed, self.unused = state["phase"], state["passed"], state["unused"]
        self.scheduler, self.unit = self.phases[self.index].schedule.scheduler, self.phases[self.index].schedule.unit
        super().load_state_dict(state)


@dataclass(slots=True)
class Plan:
    """What a scheduler is made for: an optimizer and the length of a run."""

    optimizer: Optimizer
    epochs: int
    steps: int | None
    mode: str
    steps_per_epoch: int | None

    def compose(self, component: Component) -> Schedule:
        """The schedule. What constructors say of their arguments comes through."""
        entry = catalog.find("scheduler", component.name)
        extras = {field.key: field.default for field in entry.fields if field.key in entry.extras}
        arguments = {key: value for key, value in component.arguments.items() if value is not None}
        extras |= {key: arguments.pop(key) for key in entry.extras if key in arguments}
        unit = extras.get("unit") or entry.unit
        rest = self.length(unit)
        if entry.name != "chain":
            if not extras.get("warmup"):
                return self.single(component.name, arguments, unit, rest)
            arguments = {"chain": [{"name": component.name, **arguments}]}

        planned: list[tuple[Schedule, int | None, list[dict[str, Any]]]] = []
        base = _options(self.optimizer)

        def add(schedule: Schedule, span: int | None) -> None:
            planned.append((schedule, span, _options(self.optimizer)))
            _restore(self.optimizer, base)  # each begins where the optimizer does

        if extras.get("warmup"):
            counted, ends = self.warmup(extras["warmup"], extras["warmup_unit"], unit)
            start = extras["warmup_start"]
            add(Schedule(LinearLR(self.optimizer, start_factor=start, end_factor=1.0, total_iters=ends), counted), ends)
            rest = self.after_warmup(unit, counted, ends)
        for i, item in enumerate(arguments["chain"]):
            place = f"scheduler.chain[{i}]" if entry.name == "chain" else "scheduler"
            options = dict(item)
            name = options.pop("name")
            span: int | None = options.pop("length", None) if entry.name == "chain" else None
            if span is not None and rest is not None and span > rest:
                message = f"{place}.length is {span}, and of the run's {self.length(unit)} {unit}s it has {rest}"
                raise RecipeError([Problem(f"{place}.length", message)])
            if span is not None and name == "LinearLR":
                options.setdefault("total_iters", span)
            add(self.single(name, options, unit, rest if span is None else span, place), span)
            rest = None if rest is None or span is None else rest - span
        return Phases(_phases(planned, base))

    def length(self, unit: str) -> int | None:
        """Of the whole run, in that unit."""
        return self.steps if unit == "step" else self.epochs

    def warmup(self, span: int, counted: str | None, unit: str) -> tuple[str, int]:
        """What a warm-up before a scheduler of `unit` counts, and how many. One in epochs before steps is made of steps."""
        counted = counted or ("step" if unit == "step" else "epoch")
        total = self.length(counted)
        if total is not None and span > total:
            message = f"scheduler.warmup is {span}, and the run has {total} {counted}{'s' * (total > 1)}"
            raise RecipeError([Problem("scheduler.warmup", message)])
        if counted == "epoch" and unit == "step":
            if self.steps_per_epoch is None:
                message = "scheduler.warmup_unit must be 'step': the steps of an epoch are not known beforehand"
                raise RecipeError([Problem("scheduler.warmup_unit", message)])
            return "step", span * self.steps_per_epoch
        return counted, span

    def after_warmup(self, unit: str, counted: str, span: int) -> int | None:
        """What a warm-up leaves of the run, in `unit`; an epoch in the middle of which it ends is the scheduler's first.

        Where the steps of an epoch are not known, a warm-up that counts steps is taken for shorter than one.
        """
        total = self.length(unit)
        if counted == "step" and unit != "step":
            span = 0 if self.steps_per_epoch is None else span // self.steps_per_epoch
        return None if total is None else total - span

    def single(
        self, name: str, arguments: Mapping[str, Any], unit: str, length: int | None, place: str = "scheduler"
    ) -> Schedule:
        """One scheduler over `length` units. Its argument that is its length, where left out, is that, and it then holds."""
        entry = catalog.find("scheduler", name)
        optimizer, given, hold = self.optimizer, dict(arguments), None
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        usual = float(optimizer.defaults.get("lr", rates[0]))
        ratios = [rate / usual if rate != usual and usual else 1.0 for rate in rates]
        alike = len(set(rates)) == 1
        if entry.unit == "plateau":
            if unit == "step":
                message = f"{place}.name is {name!r}, which reads a metric once an epoch; scheduler.unit must be 'epoch'"
                raise RecipeError([Problem(f"{place}.name", message)])
            unit = "plateau"
            given.setdefault("mode", self.mode)
        for argument, origin in entry.derived.items():
            if argument in given:
                continue
            if origin == "lr":
                given[argument] = usual
            elif length is None:
                message = f"{place}.{argument} must be given: the steps of an epoch are not known beforehand"
                raise RecipeError([Problem(f"{place}.{argument}", message)])
            else:
                given[argument] = hold = max(1, length)
        if not alike or rates[0] != usual:  # absolute rates are those of the optimizer's own; each group has its share
            for argument in ("base_lr", "max_lr", "min_lr"):
                if argument in given and not is_own(name):
                    given[argument] = [float(given[argument]) * ratio for ratio in ratios]
            if given.get("eta_min") and not is_own(name):
                entry = replace(entry, target=_shared(entry.target, ratios))
        # OneCycleLR knows its end itself
        return Schedule(entry.build(given, optimizer), unit, None if entry.unit == "step" else hold)


def _shared(scheduler: type[Any], ratios: Sequence[float]) -> type[Any]:
    """The class with an `eta_min` for each parameter group, in their ratio; torch takes all of them to the same one."""

    def get_lr(self: Any) -> list[Any]:
        lowest, rates = self.eta_min, []
        for i, ratio in enumerate(ratios):
            self.eta_min = lowest * ratio
            rates.append(super(shared, self).get_lr()[i])
        self.eta_min = lowest
        return rates

    shared: Any = type(scheduler.__name__, (scheduler,), {"get_lr": get_lr})
    return shared  # type: ignore[no-any-return]


def _phases(planned: Sequence[tuple[Schedule, int | None, list[dict[str, Any]]]], base: list[dict[str, Any]]) -> list[Phase]:
    """The phases with those options of the groups that any of the schedulers sets; the last one goes on to the run's end."""
    every = [options for _, _, groups in planned for options in zip(base, groups, strict=True)]
    touched = {key for before, after in every for key in after if key not in before or after[key] != before[key]}
    return [
        Phase(
            schedule,
            span if i + 1 < len(planned) else None,
            [
                {key: (before | after)[key] for key in touched & (before | after).keys()}
                for before, after in zip(base, groups, strict=True)
            ],
        )
        for i, (schedule, span, groups) in enumerate(planned)
    ]


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The groups' options as they are now."""
    return [
        {key: value.clone() if isinstance(value, Tensor) else value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


def _restore(optimizer: Optimizer, options: Sequence[Mapping[str, Any]]) -> None:
    """Give the groups exactly these options."""
    for group, wanted in zip(optimizer.param_groups, options, strict=True):
        for key in group.keys() - wanted.keys() - {"params"}:
            del group[key]
        _set(group, wanted)


def _set(group: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Set options of a group; a tensor (a learning rate that a captured step reads) keeps its place in memory."""
    for key, value in options.items():
        if isinstance(group.get(key), Tensor):
            group[key].fill_(value)
        else:
            group[key] = value
