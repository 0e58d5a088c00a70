"""Entry: one thing that a recipe can name, found by introspection, built in, or a person's own code."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.catalog import own
from engine.catalog.fields import REQUIRED, Field
from engine.catalog.signature import argument_names, fields_of, fields_of_options, summary_of, takes_any, unsettable
from engine.errors import Problem, RecipeError, nearest
from engine.recipe import Loading

KINDS = ("data", "model", "loss", "optimizer", "scheduler")
LOADING = fields_of_options(Loading)

# What the engine itself gives to a constructor, and what only makes sense outside a recipe.
_WANTED = {"data": tuple(item.key for item in LOADING), "model": ("input_shape", "output_size")}
_HIDDEN: dict[str, tuple[str, ...]] = {
    "data": (),
    "model": ("device", "dtype"),
    "loss": ("device", "dtype", "size_average", "reduce", "reduction"),  # the loop needs the mean
    "optimizer": ("params", "capturable", "differentiable"),  # how a step is executed is the engine's own choice
    "scheduler": ("optimizer", "last_epoch", "verbose"),
}

_CLASSES, _NUMBERS, _LABELS, _SHARES = ("classification",), ("regression",), ("labels",), ("distribution",)
TASKS = {
    "CrossEntropyLoss": _CLASSES,
    "MultiMarginLoss": _CLASSES,
    "NLLLoss": _CLASSES,
    "HuberLoss": _NUMBERS,
    "L1Loss": _NUMBERS,
    "MSELoss": _NUMBERS,
    "PoissonNLLLoss": _NUMBERS,
    "SmoothL1Loss": _NUMBERS,
    "BCELoss": _LABELS,
    "BCEWithLogitsLoss": _LABELS,
    "HingeEmbeddingLoss": _LABELS,
    "MultiLabelMarginLoss": _LABELS,
    "MultiLabelSoftMarginLoss": _LABELS,
    "SoftMarginLoss": _LABELS,
    "KLDivLoss": _SHARES,
}
_UNITS = {"OneCycleLR": "step", "CyclicLR": "step", "ReduceLROnPlateau": "plateau"}
_DERIVED = {
    "OneCycleLR": {"total_steps": "total_steps", "max_lr": "lr"},
    "CosineAnnealingLR": {"T_max": "epochs"},
    "PolynomialLR": {"total_iters": "epochs"},
}
_DERIVED_WORDS = {
    "epochs": "the length of the run",
    "total_steps": "the length of the run",
    "lr": "optimizer.lr",
}
_REFUSED = {
    "NLLLoss2d": "NLLLoss2d is torch's deprecated name of NLLLoss",
    "SparseAdam": "SparseAdam needs sparse gradients, and the parameters of a recipe's model have dense ones",
    "Muon": "Muon takes two-dimensional parameters only, and a model's biases have one dimension",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of the catalog.

    `target` is the class or function itself and `fields` what a recipe can set of it; with `open` it takes any other keyword
    as well. `refusal` is the sentence why it can't be built from a recipe, empty where it can. `wants` are the arguments that
    the engine gives to `build` itself: "input_shape" and "output_size" of a model, members of Loading of a data source.

    Of a loss, `tasks` are the kinds of targets it fits: "classification" (class numbers), "regression" (numbers), "labels"
    (a column of 0 and 1, or of -1 and 1, for each label), "distribution" (shares); empty: anything.
    Of a scheduler, `unit` is what it counts ("step", "epoch", or "plateau" for one that reads the monitored metric), and
    `derived` says with what the engine fills in arguments that were left out: "epochs" or "total_steps", the length of the run
    in the unit, or "lr", the optimizer's.
    """

    kind: str
    name: str
    summary: str
    fields: tuple[Field, ...]
    target: Any
    refusal: str = ""
    unit: str = ""
    tasks: tuple[str, ...] = ()
    derived: Mapping[str, str] = field(default_factory=dict)
    wants: tuple[str, ...] = ()
    open: bool = False

    def build(self, arguments: Mapping[str, Any], *live: Any, **inferred: Any) -> Any:
        """The part itself: `target` called with the live objects it needs first and `arguments` over the fields' defaults.

        Of the `inferred` arguments it gets those that it `wants`. Lists become tuples and float32 tensors where the constructor
        takes such. A loss that is a function of (output, target) is not called but given its further arguments; one that is a
        module already is taken as it is. Errors of the constructor come through.
        """
        values = {item.key: item.default for item in self.fields if item.default is not REQUIRED} | dict(arguments)
        makes = {item.key: item.make for item in self.fields}
        values = {key: _made(makes.get(key, ""), value) for key, value in values.items() if value is not None}
        values |= {key: value for key, value in inferred.items() if key in self.wants}
        if self.kind == "scheduler":
            values.pop("unit", None)
        if self.kind == "loss" and not inspect.isclass(self.target):
            return functools.partial(self.target, **values) if values else self.target
        return self.target(*live, **values)


def entries(kind: str) -> tuple[Entry, ...]:
    """Everything of that kind, in alphabetical order, with what can't be built from a recipe. Loads torch, except for data."""
    return tuple(_table(kind).values())


def names(kind: str) -> tuple[str, ...]:
    """The names of that kind that can be built."""
    return tuple(entry.name for entry in entries(kind) if not entry.refusal)


def find(kind: str, name: str) -> Entry:
    """The entry of that name, or of a person's own code ("file.py:Name", "package.module:Name").

    Raises RecipeError, with the nearest name, when there is none. What own code raises while it loads comes through.
    """
    if own.is_own(name):
        return _own_entry(kind, name)
    table = _table(kind)
    if name not in table:
        key = f"{kind}.name"
        hint = nearest(name, table) or f"; there are {', '.join(names(kind))}, and own code as 'file.py:Name'"
        raise RecipeError([Problem(key, f"{key} is {name!r}, which is no {kind} of the catalog{hint}")])
    return table[name]


@functools.cache
def _table(kind: str) -> dict[str, Entry]:
    if kind not in KINDS:
        raise RecipeError(
            [Problem("", f"the catalog has no kind {kind!r}; there are {', '.join(KINDS)}{nearest(kind, KINDS)}")]
        )
    found = {name: _entry(kind, name, target) for name, target in _TARGETS[kind]()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _sources() -> Iterable[tuple[str, Any]]:
    from engine.data.sources import SOURCES

    return SOURCES.items()


def _models() -> Iterable[tuple[str, Any]]:
    from engine.models import MODELS

    return MODELS.items()


def _losses() -> Iterable[tuple[str, Any]]:
    from torch import nn

    return _subclasses(nn, nn.Module, "Loss")


def _optimizers() -> Iterable[tuple[str, Any]]:
    from torch import optim

    return _subclasses(optim, optim.Optimizer)


def _schedulers() -> Iterable[tuple[str, Any]]:
    from torch.optim import lr_scheduler

    return _subclasses(lr_scheduler, lr_scheduler.LRScheduler)


_TARGETS: dict[str, Callable[[], Iterable[tuple[str, Any]]]] = {
    "data": _sources,
    "model": _models,
    "loss": _losses,
    "optimizer": _optimizers,
    "scheduler": _schedulers,
}


def _subclasses(module: Any, base: type, part: str = "") -> list[tuple[str, Any]]:
    """The public classes of `module` under `base`, `base` itself left out."""
    return [
        (name, value)
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base and part in name and name[0] != "_"
    ]


def _entry(kind: str, name: str, target: Any, live: tuple[str, ...] = ()) -> Entry:
    """`live` are the first arguments, which the engine passes by position."""
    wants = tuple(key for key in argument_names(target) if key in _WANTED.get(kind, ()))
    hidden = {*_HIDDEN[kind], *wants, *live}
    if name == "OneCycleLR":
        hidden |= {"epochs", "steps_per_epoch"}  # total_steps says it
    fields = fields_of(target, hidden)
    entry = Entry(kind, name, summary_of(target), fields, target, wants=wants, open=takes_any(target))
    if kind == "optimizer":
        entry = replace(entry, fields=tuple(_rate(item) if item.key == "lr" else item for item in fields))
    if kind == "loss":
        entry = replace(entry, tasks=TASKS.get(name, ()))
    if kind == "scheduler":
        entry = _scheduler(entry)
    return replace(entry, refusal=_refusal(kind, name, target, hidden))


def _rate(item: Field) -> Field:
    """The learning rate, written out where a constructor asks for one."""
    return replace(item, default=1e-3 if item.default is REQUIRED else item.default, minimum=0.0)


def _scheduler(entry: Entry) -> Entry:
    bases = [base.__name__ for base in getattr(entry.target, "__mro__", ())]  # own code may derive from torch's classes
    unit = next((_UNITS[base] for base in bases if base in _UNITS), "epoch")
    derived = {key: source for key, source in _DERIVED.get(entry.name, {}).items() if key in argument_names(entry.target)}
    fields = [
        replace(item, default=None, optional=True, derived=_DERIVED_WORDS[derived[item.key]]) if item.key in derived else item
        for item in entry.fields
    ]
    if unit != "plateau":
        help = "what the scheduler counts: epochs or optimizer steps"
        fields.append(Field(key="unit", kind="text", default=unit, choices=("epoch", "step"), help=help))
    return replace(entry, fields=tuple(fields), unit=unit, derived=derived)


def _refusal(kind: str, name: str, target: Any, hidden: Iterable[str]) -> str:
    if name in _REFUSED:
        return _REFUSED[name]
    if kind == "loss" and not own.is_own(name):
        inputs = _required(target.forward)
        if len(inputs) != 2:
            return f"{name} takes {len(inputs)} inputs ({', '.join(inputs)}); a recipe's loss gets the output and the target"
        if "device" in argument_names(target):
            return f"{name} has weights of its own, which a recipe's optimizer would not train"
    if kind == "optimizer" and inspect.isclass(target) and "closure" in _required(getattr(target, "step", None)):
        return f"{name} needs a closure that evaluates the model again in the middle of a step"
    objects = unsettable(target, tuple(hidden))
    if objects:
        return f"{name} can't be built from plain values: its argument {objects[0]!r} takes functions or live objects"
    return ""


def _required(method: Any) -> tuple[str, ...]:
    """The arguments without a default, `self` left out."""
    if method is None:
        return ()
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return tuple(item.name for item in parameters if item.default is item.empty and item.kind is item.POSITIONAL_OR_KEYWORD)


def _own_entry(kind: str, name: str) -> Entry:
    key = f"{kind}.name"
    target = own.resolve(name, key)
    if kind == "loss" and not inspect.isclass(target):
        if not inspect.isroutine(target):  # a finished module or other callable: nothing to set
            return Entry(kind, name, summary_of(type(target)), (), target)
        return _entry(kind, name, target, live=argument_names(target)[:2])
    if kind == "model":
        from torch import nn

        if isinstance(target, nn.Module):
            sentence = (
                f"{key} is {name!r}, a finished module; name its class or a function that makes it, so that a seed decides"
            )
            raise RecipeError([Problem(key, sentence)])
    return _entry(kind, name, target, live=argument_names(target)[:1] if kind in ("optimizer", "scheduler") else ())


def _made(make: str, value: Any) -> Any:
    if make == "tuple":
        return tuple(value)
    if make == "tensor":
        import torch

        return torch.tensor(value, dtype=torch.float32)
    if make == "path":
        from pathlib import Path

        return Path(value)
    return value
