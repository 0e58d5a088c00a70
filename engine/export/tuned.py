"""Fine-tuning in plain words: weights to start from, and what of them is not trained."""

from __future__ import annotations

from collections.abc import Iterator

from engine.export.code import Imports, unsaid
from engine.parts import Parts
from engine.parts.weights import weights_file
from engine.recipe import Training


def by_name(plan: Training) -> bool:
    """Whether parameters are asked for by the names that the model's own class gives them."""
    return plan.weights is not None or bool(plan.freeze)


def started(plan: Training, imports: Imports) -> Iterator[str]:
    """The weights to start from."""
    if plan.weights is None:
        return
    file = weights_file(plan.weights)
    if file.suffix != ".safetensors":
        raise unsaid("training.weights", plan.weights, "it is no .safetensors file")
    imports.add("from safetensors.torch import load_file")
    if not plan.weights_except:
        yield f"model.load_state_dict(load_file({str(file)!r}))"
        return
    imports.add("from fnmatch import fnmatchcase")
    yield f"ANEW = {plan.weights_except!r}"
    yield f"weights = load_file({str(file)!r})"
    yield "taken = {name: w for name, w in weights.items() if not any(fnmatchcase(name, pattern) for pattern in ANEW)}"
    yield "model.load_state_dict({**model.state_dict(), **taken})"


def frozen(plan: Training, parts: Parts, imports: Imports) -> Iterator[str]:
    """What is not trained, by the patterns of the recipe; and normalizations that keep their statistics, by name."""
    if not plan.freeze:
        return
    imports.add("from fnmatch import fnmatchcase")
    yield f"FREEZE = {plan.freeze!r}"
    yield "trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]"
    yield "frozen = [p for name, p in trained if any(fnmatchcase(name, pattern) for pattern in FREEZE)]"
    yield "for parameter in frozen:"
    yield "    parameter.requires_grad_(False)"
    still = set(map(id, parts.freezing.normalizations))
    names = [name for name, module in parts.model.named_modules() if id(module) in still]
    if names:
        yield f"normalizations = [model.get_submodule(name) for name in {names!r}]"


def begun(plan: Training, parts: Parts) -> list[str]:
    """How an epoch begins."""
    later, lines = plan.freeze_epochs, ["model.train()"]
    if later is not None:
        lines += [f"if epoch == {later + 1}:", "    for parameter in frozen:", "        parameter.requires_grad_(True)"]
    if parts.freezing.normalizations:
        still = ["for module in normalizations:", "    module.eval()  # its running statistics stay"]
        lines += still if later is None else [f"if epoch <= {later}:", *(f"    {line}" for line in still)]
    return lines
