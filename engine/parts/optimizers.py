"""The optimizer of a recipe: parameter groups by name, and two optimizers as one where each takes its kind of parameter."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from engine import catalog
from engine.catalog import Entry
from engine.errors import Problem, RecipeError
from engine.execution.hands import undressed
from engine.execution.light import OPTIMIZER, spare_the_compiler
from engine.parts.patterns import unfit


def build_optimizer(entry: Entry, arguments: Mapping[str, Any], model: nn.Module) -> Optimizer:
    """The optimizer of the catalog's `entry` for those parameters of `model` that require a gradient.

    Among the `arguments` may be what the engine adds to the constructor's own: `groups`, tables of a pattern (as for files)
    and what differs for the parameters whose names it fits, of which the first one counts; `no_decay`, true for no weight decay
    of biases and of the parameters of normalization layers; and `adam_…` where two optimizers share the model:

    - Muon takes the two-dimensional parameters of hidden layers (torch.optim.Muon, and Keller Jordan's advice in
      https://kellerjordan.github.io/posts/muon/), AdamW the rest: those of other dimensions, embeddings (of tokens and of
      positions) and the output layer, which is the last layer with a matrix in the order in which the model made them. A first
      layer on numeric features is a hidden one here, unlike there: many a small model has no other.
    - SparseAdam takes the parameters of embeddings made with `sparse=True`, Adam the rest.

    The first group is that of the parameters that no pattern fits. Raises RecipeError when a pattern fits nothing, when there
    is nothing to train or nothing for Muon or SparseAdam, and when the optimizer can't take the model's sparse gradients.
    Errors of the constructor come through.
    """
    spare_the_compiler(Optimizer, *OPTIMIZER)
    options = {key: value for key, value in arguments.items() if key in entry.extras}
    arguments = {key: value for key, value in arguments.items() if key not in entry.extras}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise RecipeError([Problem("model.name", "model.name makes a model without a parameter that could be trained")])
    tables = options.get("groups") or []
    belongs = _matched(tables, trained, model)
    undecayed = _undecayed(model) if options.get("no_decay") else set()
    made = [
        entry.made({key: _cleaned(entry, key, value) for key, value in table.items() if key != "pattern"}) for table in tables
    ]

    def build(one: Entry, given: Mapping[str, Any], takes: Callable[[Tensor], bool]) -> Optimizer:
        groups = []
        for table in (None, *range(len(tables))):
            members = [p for name, p in trained.items() if belongs[name] == table and takes(p)]
            differing = {} if table is None else made[table]
            groups.append({"params": [p for p in members if id(p) not in undecayed], **differing})
            groups.append({"params": [p for p in members if id(p) in undecayed], **differing, "weight_decay": 0.0})
        groups = [group for group in groups if group["params"]]
        plain = len(groups) == 1 and set(groups[0]) == {"params"}
        optimizer: Optimizer = one.build({**_fused(one, given, model), **given}, groups[0]["params"] if plain else groups)
        return optimizer

    if not entry.partner:
        _refuse_sparse(entry, arguments, model)
        return build(entry, arguments, lambda _: True)
    kind = _KINDS[entry.partner]
    chosen = kind.ids(model)
    own = [p for p in trained.values() if id(p) in chosen]
    if not own:
        message = f"optimizer.name is {entry.name!r}, which takes {kind.words}, and this model has none; use {entry.partner}"
        raise RecipeError([Problem("optimizer.name", message)])
    first = build(entry, arguments, lambda p: id(p) in chosen)
    if len(own) == len(trained):
        return first
    rest = {key.removeprefix("adam_"): value for key, value in options.items() if key.startswith("adam_")}
    return Pair(first, build(catalog.find("optimizer", entry.partner), rest, lambda p: id(p) not in chosen))


def _fused(entry: Entry, given: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """On a GPU torch's fused kernel, where there is one and nobody chose otherwise: one launch, and it obeys the guard.

    Not on the CPU, where its last bits are others than those of torch's usual loop.
    """
    known = {field.key for field in entry.fields}
    on_gpu = all(parameter.device.type == "cuda" for parameter in model.parameters())
    chosen = any(given.get(key) is not None for key in ("fused", "foreach")) or bool(given.get("differentiable"))
    sparse = any(getattr(module, "sparse", False) for module in model.modules())
    return {"fused": True} if "fused" in known and on_gpu and not chosen and not sparse else {}


class Pair(Optimizer):
    """Two optimizers, each of its own parameters, as one: steps, groups, state and state dicts are those of both.

    The groups are the members' own dicts, so that what a scheduler sets reaches them.
    """

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        self.members = (first, second)
        common = {key: value for key, value in first.defaults.items() if key in second.defaults}
        super().__init__([*first.param_groups, *second.param_groups], common)
        self._share()

    def _share(self) -> None:
        """Give the members this pair's groups and its state, which is one for both: its keys are parameters."""
        split = len(self.members[0].param_groups)
        for member, groups in zip(self.members, (self.param_groups[:split], self.param_groups[split:]), strict=True):
            member.param_groups, member.state = groups, self.state

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "members": self.members}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # also what load_state_dict ends with
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for member in self.members:
                undressed(member)()
        return loss


def _matched(tables: Sequence[Mapping[str, Any]], trained: Mapping[str, Tensor], model: nn.Module) -> dict[str, int | None]:
    """For each parameter the first table whose pattern fits its name. RecipeError for a pattern that decides nothing."""
    belongs = {
        name: next((i for i, table in enumerate(tables) if fnmatchcase(name, table["pattern"])), None) for name in trained
    }
    problems = []
    for i, table in enumerate(tables):
        pattern, key = table["pattern"], f"optimizer.groups[{i}].pattern"
        if i in belongs.values():
            continue
        if any(fnmatchcase(name, pattern) for name in trained):
            reason = "fits only parameters that an earlier group has taken"
        elif any(fnmatchcase(name, pattern) for name, _ in model.named_parameters()):
            reason = "fits only parameters that are frozen"
        else:
            reason = unfit(pattern, trained)
        problems.append(Problem(key, f"{key} is {pattern!r}, which {reason}"))
    if problems:
        raise RecipeError(problems)
    return belongs


def _cleaned(entry: Entry, key: str, value: Any) -> Any:
    field = next((field for field in entry.fields if field.key == key), None)
    return value if field is None else field.clean(value)


def _owned(model: nn.Module) -> Iterable[tuple[nn.Module, str, nn.Parameter]]:
    """Every parameter with the module that holds it and its name there, in the order of making; a shared one more than once."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield module, name, parameter


def _undecayed(model: nn.Module) -> set[int]:
    """Biases, and whatever a normalization layer holds: torch's own classes and those that are called like them."""
    return {
        id(parameter)
        for module, name, parameter in _owned(model)
        if "bias" in name or any("norm" in base.__name__.lower() for base in type(module).__mro__)
    }


_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def _hidden_matrices(model: nn.Module) -> set[int]:
    """See `build_optimizer`."""
    matrices, tables = [], set()
    for module, name, parameter in _owned(model):
        if isinstance(module, _EMBEDDINGS) or any(word in name.lower() for word in ("embed", "position", "pos_", "token")):
            tables.add(id(parameter))
        elif parameter.ndim == 2:
            matrices.append(id(parameter))
    return set(matrices[:-1]) - tables - set(matrices[-1:])


def _sparse(model: nn.Module) -> set[int]:
    return {id(module.weight) for module in model.modules() if isinstance(module, _EMBEDDINGS) and module.sparse}


class _Kind:
    """What an optimizer takes of a model: the parameters' ids, and the words for them."""

    def __init__(self, ids: Callable[[nn.Module], set[int]], words: str) -> None:
        self.ids, self.words = ids, words


_KINDS = {  # by the optimizer that takes the rest
    "AdamW": _Kind(_hidden_matrices, "the two-dimensional parameters of hidden layers (no embedding, not the output layer)"),
    "Adam": _Kind(_sparse, "the parameters of embeddings made with sparse=True"),
}


def _refuse_sparse(entry: Entry, arguments: Mapping[str, Any], model: nn.Module) -> None:
    """Try the optimizer on a sparse gradient where the model has such: torch would only say so in the first step."""
    sparse = [module for module in model.modules() if isinstance(module, _EMBEDDINGS) and module.sparse]
    if entry.closure or not any(module.weight.requires_grad for module in sparse):
        return
    table = nn.Embedding.from_pretrained(torch.zeros(2, 2), freeze=False, sparse=True)
    table(torch.zeros(1, dtype=torch.int64)).sum().backward()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.no_grad():
                undressed(entry.build(arguments, [table.weight]))()
    except RuntimeError as error:
        message = (
            f"optimizer.name is {entry.name!r}, which can't take the sparse gradients of this model's embeddings "
            f"(made with sparse=True; {error}); use SparseAdam"
        )
        raise RecipeError([Problem("optimizer.name", message)]) from error
