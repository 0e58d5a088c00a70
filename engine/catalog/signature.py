"""Constructor signature and docstring -> fields: torch's own classes, built-in ones and a person's own are read alike."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import pathlib
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

from engine.catalog.fields import REQUIRED, Field, Kind, kind_of

_PLAIN: dict[Any, Kind] = {int: "integer", float: "number", bool: "boolean", str: "text", dict: "any", Any: "any"}
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def fields_of(target: Callable[..., Any], exclude: Collection[str] = ()) -> tuple[Field, ...]:
    """The arguments of a class or function that plain values can set, in the order of its signature.

    An argument that only takes live objects is left out; see `unsettable` for those without which nothing can be built.
    """
    return tuple(field for _, field in _arguments(target, exclude) if field is not None)


def unsettable(target: Callable[..., Any], exclude: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the required arguments that no plain value fits: functions, live objects, positional-only ones."""
    required = {name for name, parameter in _parameters(target).items() if parameter.default is parameter.empty}
    return tuple(name for name, field in _arguments(target, exclude) if field is None and name in required)


def takes_any(target: Callable[..., Any]) -> bool:
    """Whether the signature ends in `**arguments`."""
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in _parameters(target).values())


def argument_names(target: Callable[..., Any]) -> tuple[str, ...]:
    """The names in the signature, `self` left out."""
    return tuple(_parameters(target))


def fields_of_options(options: type[Any]) -> tuple[Field, ...]:
    """The fields of a dataclass whose members were declared with `engine.recipe.option`."""
    hints = typing.get_type_hints(options)
    fields = []
    for member in dataclasses.fields(options):
        if "help" in member.metadata:
            shape = _shape(hints[member.name])
            assert shape is not None, f"{options.__name__}.{member.name} has no plain kind"
            default = member.default if member.default is not dataclasses.MISSING else member.metadata["default"]
            rules = {key: value for key, value in member.metadata.items() if key != "default"}
            fields.append(Field(**{"key": member.name, "default": default, **shape, **rules}))
    return tuple(fields)


def summary_of(target: Any) -> str:
    """The first sentence of the docstring, without markup."""
    doc = inspect.getdoc(target) or ""
    return _sentence(doc.split("\n\n")[0])


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(target).parameters)
    except ValueError:  # a class written in C tells nothing: it takes what it takes
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _arguments(target: Callable[..., Any], exclude: Collection[str]) -> Iterator[tuple[str, Field | None]]:
    help_of = _help(target)
    for name, parameter in _parameters(target).items():
        if name in exclude or parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        field = _field(target, parameter) if parameter.kind in _NAMED else None
        yield name, field and dataclasses.replace(field, help=help_of.get(name, ""))


def _field(target: Callable[..., Any], parameter: inspect.Parameter) -> Field | None:
    default = REQUIRED if parameter.default is parameter.empty else parameter.default
    default = list(default) if isinstance(default, (tuple, set, frozenset)) else default
    annotation = _resolved(parameter.annotation, target)
    shape = _shape(annotation) if annotation is not inspect.Parameter.empty else _shape_of_default(default)
    if shape is None:
        return None
    if isinstance(default, list) and None in default:  # a file has no word for None inside a list: leaving it out means this
        return Field(**{**shape, "key": parameter.name, "default": None, "optional": True, "derived": str(parameter.default)})
    field = Field(**{"optional": default is None, **shape, "key": parameter.name, "default": default})
    if default is REQUIRED:
        return dataclasses.replace(field, optional=False)
    field = dataclasses.replace(field, default=field.clean(default))
    if field.problem("", field.default) is not None:  # a default that is no plain value: live with the constructor's own
        return None
    return field


def _resolved(annotation: Any, target: Callable[..., Any]) -> Any:
    """The annotation as an object, where it was written as text; text that means nothing here stays text."""
    code = target.__init__ if inspect.isclass(target) else target  # type: ignore[misc]
    names = {**vars(typing), **vars(collections.abc), **getattr(inspect.unwrap(code), "__globals__", {})}
    try:
        while isinstance(annotation, str):  # quotes inside postponed annotations are text twice
            annotation = eval(annotation, names)  # as typing.get_type_hints does, but argument by argument
    except Exception:
        return annotation
    return annotation


def _shape(annotation: Any) -> dict[str, Any] | None:
    """What an annotation says of a field: kind, item, length, choices, optional. None when plain values do not fit it."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _LISTS or annotation is pathlib.Path:
        return {"kind": "text", "make": "path"} if annotation is pathlib.Path else {"kind": "list"}
    if isinstance(annotation, type) and annotation.__module__.split(".")[0] == "torch":
        return {"kind": "list", "item": "number", "make": "tensor"} if annotation.__name__ == "Tensor" else None
    if isinstance(annotation, collections.abc.Hashable) and annotation in _PLAIN:
        return {"kind": _PLAIN[annotation]}
    if origin is Literal:
        choices = tuple(choice for choice in inside if choice is not None)
        return {"kind": kind_of(choices[0]), "choices": choices, "optional": len(choices) < len(inside)}
    if origin is typing.Annotated:
        return _shape(inside[0])
    if origin is dict:
        return {"kind": "any"}
    if origin in (typing.Union, types.UnionType):
        return _shape_of_union([part for part in inside if part is not types.NoneType], types.NoneType in inside)
    if origin in _LISTS:
        item = _shape(inside[0])
        if item is None:
            return None
        fixed = origin is tuple and Ellipsis not in inside
        shape = {"kind": "list", "item": item["kind"], "choices": item.get("choices", ())}
        kinds = {(_shape(part) or {}).get("kind") for part in inside if part is not Ellipsis}
        if len(kinds) > 1:
            shape["item"] = "number" if kinds == {"integer", "number"} else "any"
        return {**shape, "make": "tuple" if origin is tuple else "", "length": len(inside) if fixed else None}
    return None


def _shape_of_union(parts: list[Any], optional: bool) -> dict[str, Any] | None:
    """One number out of `float | Tensor` and `float | list[float]`: of several ways to say it the simplest is asked for."""
    shapes = [shape for shape in map(_shape, parts) if shape is not None]
    if not shapes:
        return None
    simple = [shape for shape in shapes if shape["kind"] != "list"] or shapes[:1]
    kinds = {shape["kind"] for shape in simple}
    if len(simple) == 1:
        shape = simple[0]
    elif kinds == {"integer", "number"}:
        shape = {"kind": "number"}
    else:
        shape = {"kind": kinds.pop() if len(kinds) == 1 else "any"}
    return {**shape, "optional": optional or shape.get("optional", False)}


def _shape_of_default(default: Any) -> dict[str, Any] | None:
    if default is REQUIRED or default is None:
        return {"kind": "any"}
    if isinstance(default, list):
        kinds = {kind_of(item) for item in default}
        return {
            "kind": "list",
            "item": kinds.pop() if len(kinds) == 1 else "number" if kinds == {"integer", "number"} else "any",
        }
    kind = kind_of(default)
    return {"kind": kind} if kind != "any" or isinstance(default, dict) else None


# Docstrings.

_HEADER = re.compile(r"^(Args|Arguments|Parameters|Keyword Args|Keyword Arguments):?\s*$")
_ENTRY = re.compile(r"^(\s+)\*{0,2}(\w+)\s*:(?!\w+:`)\s*(.*)$")
_NUMPY_ENTRY = re.compile(r"^(\w+)\s*(?::.*)?$")


def _help(target: Any) -> dict[str, str]:
    """Argument -> its first sentence, out of the Args section of the class, its constructor or the function."""
    docs = [inspect.getdoc(target)]
    if inspect.isclass(target):
        docs.append(inspect.getdoc(target.__init__))  # type: ignore[misc]
    found: dict[str, str] = {}
    for doc in docs:
        found = {**_google(doc or ""), **_numpy(doc or ""), **found}
    return {name: sentence for name, text in found.items() if (sentence := _sentence(text))}


def _google(doc: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name, indent = None, None
    for line in _after_header(doc):
        if line.strip() and not line[0].isspace():
            break
        match = _ENTRY.match(_without_type(line))
        if match and (indent is None or len(match[1]) == indent):
            indent, name = len(match[1]), match[2]
            found[name] = match[3]
        elif name:
            found[name] += " " + line.strip()
    return found


def _numpy(doc: str) -> dict[str, str]:
    lines = list(_after_header(doc))
    if not lines or set(lines[0].strip()) != {"-"}:
        return {}
    found: dict[str, str] = {}
    name = None
    for line, following in zip(lines[1:], [*lines[2:], ""], strict=True):
        if set(following.strip()) == {"-"}:
            break
        match = _NUMPY_ENTRY.match(line)
        if match:
            name = match[1]
            found[name] = ""
        elif name:
            found[name] += " " + line.strip()
    return found


def _after_header(doc: str) -> Iterator[str]:
    lines = iter(doc.splitlines())
    for line in lines:
        if _HEADER.match(line):
            yield from lines


def _without_type(line: str) -> str:
    """The line without the parentheses of `name (tuple[float, (…)], optional): text`."""
    return re.sub(r"^(\s+\w+\s*)\((?:[^()]|\([^()]*\))*\)\s*:", r"\1:", line)


def _sentence(text: str) -> str:
    """One line: the first sentence, without roles, formulas' markup and the default that the field shows anyway."""
    text = " ".join(text.split())
    text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", text)
    text = re.sub(r"\s*\(default:[^()]*(\([^()]*\))?[^()]*\)", "", text, flags=re.I)
    text = re.sub(
        r":math:`([^`]*)`",
        lambda match: re.sub(r"\\(?:text\w*|mathrm|operatorname)?|[{}]", "", match[1]),
        text.replace("\\(", "(").replace("\\)", ")"),
    )
    text = re.sub(r":[\w:]+:`~?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)
    text = re.sub(r"`+([^`<]*?)\s*(?:<[^`]*>)?`+_*", r"\1", text)
    first = re.split(r"(?<=[.!?])\s+(?=[A-Z\W])|\s*\(?\bDefault\b", text, maxsplit=1)[0]
    return first.strip().rstrip(".:")
