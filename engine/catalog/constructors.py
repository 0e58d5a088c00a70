"""Build torch's own loss, optimizer and scheduler once for what their constructors say of a recipe's values."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engine.catalog import own
from engine.catalog.fields import shown
from engine.errors import Problem, RecipeError
from engine.recipe import Component

if TYPE_CHECKING:
    from torch import nn

    from engine.catalog.entries import Entry

Attempt = Callable[[Mapping[str, Any]], Any]
LONG = 10**9  # units of the stand-in for the run, whose length only assembling knows


def problems(chosen: Mapping[str, Entry], values: Mapping[str, Any]) -> Iterator[Problem]:
    """What the constructors of the `chosen` parts refuse, each at the argument without which they work.

    The parts are those whose values are of the right kind. Own code is not called here.
    """
    optimizer: Any = None
    for kind in ("loss", "optimizer", "scheduler"):
        entry = chosen.get(kind)
        if entry is None or own.is_own(entry.name) or (kind == "scheduler" and optimizer is None):
            continue
        given = _given(entry, values[kind])
        if kind == "loss":
            if given.get("weight") == "balanced":
                del given["weight"]
            found, _ = _tried(kind, entry.name, entry.build, given)
        elif kind == "optimizer":
            found, optimizer = _optimizer(entry, given)
        else:
            found = _scheduler(entry, given, optimizer)
        yield from found


def _given(entry: Entry, table: Mapping[str, Any]) -> dict[str, Any]:
    return {field.key: field.clean(table[field.key]) for field in entry.fields if table.get(field.key) is not None}


def _optimizer(entry: Entry, given: dict[str, Any]) -> tuple[list[Problem], Any]:
    from engine.parts.optimizers import build_optimizer

    model = _stand_in(sparse=entry.partner == "Adam")
    tables = given.pop("groups", None) or []

    def stepped(arguments: Mapping[str, Any]) -> Any:
        """The optimizer, after a step: some values are not looked at before."""
        _step(build_optimizer(entry, arguments, model), model)
        return build_optimizer(entry, arguments, model)

    found, optimizer = _tried("optimizer", entry.name, stepped, given)
    for i, table in enumerate(tables if not found else ()):  # torch does not look at what a group differs in
        differing = {key: value for key, value in table.items() if key != "pattern"}

        def attempt(arguments: Mapping[str, Any]) -> Any:
            return build_optimizer(entry, {**given, **arguments}, model)

        found += _tried(f"optimizer.groups[{i}]", entry.name, attempt, differing)[0]
    return found, optimizer


def _scheduler(entry: Entry, given: dict[str, Any], optimizer: Any) -> list[Problem]:
    from engine.parts.schedules import Plan

    def attempt(name: str) -> Attempt:
        def moved(arguments: Mapping[str, Any]) -> Any:
            """The schedule, after a few units: some values are not looked at before."""
            held = copy.deepcopy(optimizer)
            schedule = Plan(held, LONG, LONG, "min", 1).compose(Component(name, dict(arguments)))
            for _ in range(3):
                schedule.after_step() if schedule.unit == "step" else schedule.after_epoch(1.0)
            return schedule

        return moved

    if entry.name != "chain":
        return _tried("scheduler", entry.name, attempt(entry.name), given)[0]
    found: list[Problem] = []
    for i, table in enumerate(given["chain"]):
        arguments = {key: value for key, value in table.items() if key not in ("name", "length")}
        if not own.is_own(table["name"]):
            found += _tried(f"scheduler.chain[{i}]", table["name"], attempt(table["name"]), arguments)[0]
    if not found and not any(own.is_own(table["name"]) for table in given["chain"]):
        found += _tried("scheduler", entry.name, attempt(entry.name), given)[0]
    return found


def _stand_in(sparse: bool) -> nn.Module:
    """A model that has something for every optimizer; nothing is drawn from the generator that a person seeded."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=()):
        layers = [nn.Embedding(2, 2, sparse=True)] if sparse else []
        return nn.Sequential(*layers, nn.Linear(2, 2), nn.Linear(2, 2))


def _step(optimizer: Any, model: nn.Module) -> None:
    """One step on gradients of one."""
    import torch

    from engine.execution.hands import undressed

    def closure() -> Any:
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                ones = torch.ones_like(parameter)
                parameter.grad = ones.to_sparse(1) if getattr(module, "sparse", False) else ones
        return torch.zeros(())

    held = [parameter.detach().clone() for parameter in model.parameters()]
    closure()
    with torch.no_grad():
        undressed(optimizer)(closure)
        for parameter, before in zip(model.parameters(), held, strict=True):
            parameter.copy_(before)
            parameter.grad = None


def _tried(place: str, name: str, attempt: Attempt, given: Mapping[str, Any]) -> tuple[list[Problem], Any]:
    """What is built, or the problem at the one argument without which it works, or else at the name."""
    error, part = _trial(attempt, given)
    if error is None:
        return [], part
    if isinstance(error, RecipeError):
        return list(error.problems), None
    says = f"{name} says: {' '.join(str(error).split())}"
    for key, value in given.items():
        others = {other: item for other, item in given.items() if other != key}
        if _trial(attempt, others)[0] is None:
            return [Problem(f"{place}.{key}", f"{place}.{key} is {shown(value)}; {says}")], None
    return [Problem(f"{place}.name", f"{place}.name is {name!r}; {says}")], None


def _trial(attempt: Attempt, arguments: Mapping[str, Any]) -> tuple[Exception | None, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come again when it is built to be used
        try:
            return None, attempt(arguments)
        except Exception as error:  # torch's constructors raise what they like; given plain values it is about the values
            return error, None
