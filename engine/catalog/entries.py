"""Entry: one thing that a recipe can name, found by introspection, built in, or a person's own code."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.catalog import extras, own
from engine.catalog.fields import REQUIRED, Field
from engine.catalog.signature import argument_names, fields_of, fields_of_options, summary_of, takes_any, unsettable
from engine.catalog.tasks import TASKS, auto, misfit
from engine.errors import Problem, RecipeError, nearest
from engine.recipe import KINDS, Loading

LOADING = fields_of_options(Loading)

# What the engine itself gives to a constructor, and what only makes sense outside a recipe.
_WANTED = {"data": tuple(item.key for item in LOADING), "model": ("input_shape", "output_size", "vocabulary")}
_HIDDEN: dict[str, tuple[str, ...]] = {
    "data": (),
    "model": ("device", "dtype"),
    "loss": ("device", "dtype", "size_average", "reduce", "reduction"),  # the loop needs the mean
    "optimizer": ("params", "capturable", "differentiable"),  # how a step is executed is the engine's own choice
    "scheduler": ("optimizer", "last_epoch", "verbose"),
}

_UNITS = {"OneCycleLR": "step", "CyclicLR": "step", "ReduceLROnPlateau": "plateau"}
_DERIVED = {
    "OneCycleLR": {"total_steps": "total_steps", "max_lr": "lr"},
    "CosineAnnealingLR": {"T_max": "epochs"},
    "PolynomialLR": {"total_iters": "epochs"},
}
_LEAST = {  # what torch does not look at before it is too late
    ("ConstantLR", "factor"): 1e-6,
    ("LBFGS", "history_size"): 1,
}
_DERIVED_WORDS = {
    "epochs": "the length of the run",
    "total_steps": "the length of the run",
    "lr": "optimizer.lr",
}
_REFUSED = {
    "NLLLoss2d": "NLLLoss2d is torch's deprecated name of NLLLoss",
    "SequentialLR": "SequentialLR takes live schedulers; name a chain instead, with a table and a length for each of them",
    "ChainedScheduler": "ChainedScheduler takes live schedulers; name a chain, or a function of your own as 'file.py:name' "
    "that makes it from the optimizer",
    "LambdaLR": "LambdaLR takes a function; name one of your own as 'file.py:name' that makes the scheduler from the optimizer",
    "MultiplicativeLR": "MultiplicativeLR takes a function; name ExponentialLR for a constant factor, or one of your own as "
    "'file.py:name' that makes the scheduler from the optimizer",
}
# What takes the parameters that an optimizer of torch does not: see engine.parts.optimizers.
_PARTNERS = {"Muon": "AdamW", "SparseAdam": "Adam"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of the catalog.

    `target` is the class or function itself and `fields` what a recipe can set of it; with `open` it takes any other keyword
    as well; `extras` are the keys of those fields that the engine uses itself and the constructor never sees. `refusal` is the
    sentence why it can't be built from a recipe, empty where it can. `wants` are the arguments that the engine gives to `build`
    itself: those of a model that follow from the data, members of Loading of a data source.

    Of a loss or model, `tasks` are the kinds of data it is for: see `engine.catalog.tasks`; empty: anything.
    Of an optimizer, `closure` says that its step evaluates the model itself, through a closure that it must be given, and
    `partner` is the name of the one that takes the parameters that it does not (AdamW for Muon).
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
    extras: tuple[str, ...] = ()
    closure: bool = False
    partner: str = ""

    def build(self, arguments: Mapping[str, Any], *live: Any, **inferred: Any) -> Any:
        """The part itself: `target` called with the live objects it needs first and `arguments` over the fields' defaults.

        Of the `inferred` arguments it gets those that it `wants`. Lists become tuples and float32 tensors where the constructor
        takes such. A loss that is a function of (output, target) is not called but given its further arguments; one that is a
        module already is taken as it is. Errors of the constructor come through.
        """
        given = {item.key: item.default for item in self.fields if item.default is not REQUIRED} | dict(arguments)
        values = {key: value for key, value in self.made(given).items() if key not in self.extras}
        values |= {key: value for key, value in inferred.items() if key in self.wants}
        if self.kind == "loss" and not inspect.isclass(self.target):
            return functools.partial(self.target, **values) if values else self.target
        return self.target(*live, **values)

    def made(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the constructor takes them; those that are None, or "none" for class weights, are left out."""
        fields = {item.key: item for item in self.fields}
        found = {}
        for key, value in arguments.items():
            item = fields.get(key)
            if value is None or (item is not None and value == "none" and "none" in item.words):
                continue
            found[key] = value if item is None else _made(item.make, item.clean(value))
        return found


def entries(kind: str) -> tuple[Entry, ...]:
    """Everything of that kind, in alphabetical order, with what can't be built from a recipe. Loads torch, except for data."""
    return tuple(_table(kind).values())


def names(kind: str) -> tuple[str, ...]:
    """The names of that kind that can be built."""
    return tuple(entry.name for entry in entries(kind) if not entry.refusal)


def fitting(kind: str, task: str | None = None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The names of that kind that can be chosen, models and losses for data of that `task`; why not, of the others."""
    found, others = [], {}
    for entry in entries(kind):
        reason = entry.refusal or (misfit(kind, entry.name, entry.tasks, task) if task else "")
        if reason:
            others[entry.name] = reason
        else:
            found.append(entry.name)
    return tuple(found), others


def unfit(entry: Entry, task: str) -> Iterator[Problem]:
    """Where a model or a loss is not for data of that `task`: why not, and which are."""
    if reason := misfit(entry.kind, entry.name, entry.tasks, task):
        key, others = f"{entry.kind}.name", ", ".join(fitting(entry.kind, task)[0])
        yield Problem(key, f"{key} is {entry.name!r}; {reason}; there are {others}")


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

    return [("auto", auto), *_subclasses(nn, nn.Module, "Loss")]


def _optimizers() -> Iterable[tuple[str, Any]]:
    from torch import optim

    return _subclasses(optim, optim.Optimizer)


def _schedulers() -> Iterable[tuple[str, Any]]:
    from torch.optim import lr_scheduler

    from engine.parts.schedules import Phases, constant

    return [("constant", constant), ("chain", Phases), *_subclasses(lr_scheduler, lr_scheduler.LRScheduler)]


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
    if (kind, name) == ("scheduler", "chain"):
        entry = Entry(kind, name, summary_of(target), (extras.CHAIN,), target, unit="epoch")
        return _with_extras(entry, extras.of_scheduler(entry.unit, warms_up=False))
    live = argument_names(target)[:2] if (kind, name) == ("loss", "auto") else live
    wants = tuple(key for key in argument_names(target) if key in _WANTED.get(kind, ()))
    hidden = {*_HIDDEN[kind], *wants, *live}
    if name == "OneCycleLR":
        hidden |= {"epochs", "steps_per_epoch"}  # total_steps says it
    fields = fields_of(target, hidden)
    entry = Entry(kind, name, summary_of(target), fields, target, wants=wants, open=takes_any(target))
    if kind == "model":
        entry = replace(entry, tasks=() if own.is_own(name) else tuple(getattr(target, "tasks", ())))
    if kind == "optimizer":
        entry = _optimizer(entry)
    if kind == "loss":
        entry = replace(
            entry,
            tasks=TASKS.get(name, ()),
            fields=tuple(map(_weighted, fields)) if "classification" in TASKS.get(name, ()) else fields,
        )
    if kind == "scheduler":
        entry = _scheduler(entry)
    fields = tuple(replace(item, minimum=_LEAST.get((name, item.key), item.minimum)) for item in entry.fields)
    return replace(entry, fields=fields, refusal=_refusal(kind, name, target, hidden))


def _weighted(item: Field) -> Field:
    """Class weights may also be computed from the data."""
    words = "none, balanced (each class counts the same, however many samples it has)"
    help = f"{words}, or one number for each class"
    return replace(item, words=("none", "balanced"), help=help) if item.key == "weight" else item


def _optimizer(entry: Entry) -> Entry:
    target = entry.target
    fields = tuple(_rate(item) if item.key == "lr" else item for item in entry.fields)
    closure = inspect.isclass(target) and "closure" in _required(getattr(target, "step", None))
    partner = ""
    if getattr(target, "__module__", "").startswith("torch.optim"):
        partner = _PARTNERS.get(target.__name__, "")
    entry = replace(entry, fields=fields, closure=closure, partner=partner)
    if closure:  # such as LBFGS take all parameters as one
        return entry
    of_partner = fields_of(vars(sys.modules["torch.optim"])[partner], _HIDDEN["optimizer"]) if partner else ()
    added = extras.of_optimizer(fields, of_partner, getattr(target, "__name__", entry.name))
    return _with_extras(entry, (_rate(item) if item.key == "adam_lr" else item for item in added))


def _with_extras(entry: Entry, added: Iterable[Field]) -> Entry:
    """With the fields that the engine adds; an argument of that name that own code has stays its own."""
    taken = argument_names(entry.target)
    added = tuple(item for item in added if item.key not in taken)
    return replace(entry, fields=(*entry.fields, *added), extras=tuple(item.key for item in added))


def _rate(item: Field) -> Field:
    """The learning rate, written out where a constructor asks for one."""
    return replace(item, default=1e-3 if item.default is REQUIRED else item.default, minimum=0.0)


def _scheduler(entry: Entry) -> Entry:
    bases = [base.__name__ for base in getattr(entry.target, "__mro__", ())]  # own code may derive from torch's classes
    unit = next((_UNITS[base] for base in bases if base in _UNITS), "epoch")
    derived = {key: source for key, source in _DERIVED.get(entry.name, {}).items() if key in argument_names(entry.target)}
    fields = tuple(
        replace(item, default=None, optional=True, derived=_DERIVED_WORDS[derived[item.key]]) if item.key in derived else item
        for item in entry.fields
    )
    entry = replace(entry, fields=fields, unit=unit, derived=derived)
    return _with_extras(entry, extras.of_scheduler(unit, warms_up="OneCycleLR" in bases))


def _refusal(kind: str, name: str, target: Any, hidden: Iterable[str]) -> str:
    if name in _REFUSED:
        return _REFUSED[name]
    if kind == "loss" and name != "auto" and not own.is_own(name):
        inputs = _required(target.forward)
        if len(inputs) != 2:
            return f"{name} takes {len(inputs)} inputs ({', '.join(inputs)}); a recipe's loss gets the output and the target"
        if "device" in argument_names(target):
            return f"{name} has weights of its own, which a recipe's optimizer would not train"
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
