"""Python text from live parts: calls with the arguments that differ from their defaults, own code, models."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from engine.catalog import Entry
from engine.errors import Problem, RecipeError

TAKEN = frozenset({"order", "x", "y", "scaled", "inputs", "targets", "device", "epoch", "batch", "numpy", "torch", "nn"})


def unsaid(field: str, value: Any, why: str) -> RecipeError:
    """The error for a field that has no plain words."""
    return RecipeError([Problem(field, f"{field} = {value!r} can't be written as a plain script: {why}")])


class Imports:
    """The import lines that a script comes to need, each once."""

    def __init__(self, *lines: str) -> None:
        self.lines = dict.fromkeys(lines)
        self.paths: dict[str, None] = {}

    def add(self, line: str) -> None:
        self.lines[line] = None

    def own(self, name: str) -> str:
        """Import a person's own code ("path/file.py:Name", "package.module:Name"); what it is called in the script."""
        where, _, what = name.rpartition(":")
        path = Path(where)
        file = where.endswith(".py")
        self.paths[str(path.parent) if file else "."] = None
        module = path.stem if file else where
        alias = f"own_{what}" if what in TAKEN else what
        if all(part.isidentifier() for part in module.split(".")) and module not in sys.stdlib_module_names:
            self.add(f"from {module} import {what}" + (f" as {alias}" if alias != what else ""))
        else:
            raise unsaid("name", name, "the file's name is no name of a module")
        return alias

    def text(self) -> str:
        """All of them, torch's after the standard library's."""
        if self.paths:
            self.add("import sys")
        plain = [line for line in self.lines if line.startswith("import ")]
        standard = sorted(line for line in plain if line.split()[1] in sys.stdlib_module_names)
        mine = [line for line in self.lines if line.startswith("from ") and self.paths and not _installed(line)]
        others = sorted((line for line in self.lines if line not in standard and line not in mine), key=_module)
        parts = ["\n".join(standard), "\n".join(others)]
        if self.paths:
            parts.append("\n".join([*(f"sys.path.insert(0, {path!r})" for path in self.paths), *sorted(mine)]))
        return "\n\n".join(part for part in parts if part)


def _module(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _installed(line: str) -> bool:
    return line.split()[1].split(".")[0] in ("torch", "numpy", "sklearn", "pandas", "math", "typing", "functools")


def literal(value: Any) -> str:
    """The text that makes this value."""
    if isinstance(value, Tensor):
        return f"torch.tensor({value.tolist()!r})"
    if isinstance(value, Path):
        return repr(str(value))
    return repr(value)


def call(entry: Entry, callee: str, arguments: Mapping[str, Any], *live: str, **inferred: Any) -> str:
    """The text that builds what `entry.build` builds; `live` are its first arguments, as text."""
    defaults = _defaults(entry.target)
    given = {item.key: item.default for item in entry.fields if item.default is not _required()} | dict(arguments)
    values = {key: value for key, value in entry.made(given).items() if key not in entry.extras}
    values |= {key: value for key, value in inferred.items() if key in entry.wants}
    said = [f"{key}={literal(value)}" for key, value in values.items() if key == "lr" or not _same(defaults, key, value)]
    return f"{callee}({', '.join([*live, *said])})"


def _defaults(target: Any) -> dict[str, Any]:
    parameters = inspect.signature(target).parameters.items()
    return {name: parameter.default for name, parameter in parameters if parameter.default is not parameter.empty}


def _required() -> Any:
    from engine.catalog import REQUIRED

    return REQUIRED


def _same(defaults: Mapping[str, Any], key: str, value: Any) -> bool:
    default = defaults.get(key, ...)
    return isinstance(default, bool) == isinstance(value, bool) and not isinstance(value, Tensor) and default == value


# Models


def layers_of(model: nn.Module) -> str | None:
    """A chain of torch's own layers as `nn.Sequential(...)`, None for a model that is more than a chain."""
    leaves = [module for module in model.modules() if not list(module.children())]
    chain = all(isinstance(module, nn.Sequential) or module is model or module in leaves for module in model.modules())
    known = all(type(leaf).__module__.startswith("torch.nn") and hasattr(nn, type(leaf).__name__) for leaf in leaves)
    if not (chain and known):
        return None
    return f"nn.Sequential(\n{''.join(f'    {_layer(leaf)},{chr(10)}' for leaf in leaves)})"


def _layer(layer: nn.Module) -> str:
    """`nn.Linear(64, 128)`: torch's own text of it, without what is the default."""
    defaults = _defaults(type(layer))
    made = ast.parse(repr(layer), mode="eval").body
    assert isinstance(made, ast.Call)
    said = [ast.unparse(value) for value in made.args]
    for item in made.keywords:
        value = ast.unparse(item.value)
        if item.arg in defaults:
            said += [f"{item.arg}={value}"] if repr(defaults[item.arg]) != value else []
        else:
            said.append(value)
    return f"nn.{type(layer).__name__}({', '.join(said)})"


def source_of(target: Any, imports: Imports, prefix: str) -> str:
    """The source text of a class or function of a module below `prefix`, after that of all it uses from there."""
    found: dict[str, str] = {}

    def visit(item: Any) -> None:
        name = item.__name__
        if name in found:
            return
        found[name] = ""  # it may refer to itself
        text = inspect.getsource(item)
        module = sys.modules[item.__module__]
        used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        for line in _import_lines(module, used):
            imports.add(line)
        for other in sorted(used):
            value = getattr(module, other, None)
            if getattr(value, "__module__", "").startswith(prefix) and hasattr(value, "__name__"):
                visit(value)
        del found[name]
        found[name] = text.rstrip()

    visit(target)
    return "\n\n\n".join(found.values())


def _import_lines(module: Any, used: Iterable[str]) -> Iterable[str]:
    """What the module imports of the names that are used, but for what is written out."""
    wanted = set(used)
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import):
            for item in node.names:
                if (item.asname or item.name) in wanted:
                    yield f"import {item.name}"
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("engine"):
            for item in node.names:
                if item.name in wanted:
                    yield f"from {node.module} import {item.name}"


def body_of(function: Any) -> tuple[list[str], dict[str, str]]:
    """The statements of a data source that make its arrays, and the arguments of the Samples that it returns, as text."""
    tree = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    lines, returned = [], {}
    for node in tree.body:
        if isinstance(node, ast.Return):
            assert isinstance(node.value, ast.Call)
            returned = {item.arg: ast.unparse(item.value) for item in node.value.keywords if item.arg}
        elif not isinstance(node, ast.Import | ast.Expr):  # the docstring, and checks that were made
            lines.append(ast.unparse(node))
    return lines, returned
