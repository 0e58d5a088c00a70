"""What is installed: versions, the compiler that torch.compile calls, extras; and the person's own settings."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from engine.doctor import Finding
from engine.preferences import Preferences

SHOWN = ("torch", "textual", "plotext", "numpy", "safetensors")  # with their versions, of those that are as they must be
# What each extra of pyproject.toml is for.
PURPOSES = {
    "metrics": "any metric of torchmetrics by name, in training.metrics",
    "images": 'pictures in folders (data.name = "images")',
    "parquet": 'tables in Parquet files (data.name = "parquet")',
    "onnx": "models written as ONNX (epochal export RUN model.onnx)",
    "vision": "data sets and models of torchvision and timm by name",
    "hub": "data sets of the Hugging Face hub by name",
    "search": "the search of a recipe's values by Optuna ([search], epochal search)",
    "serve": "the console in a browser (epochal serve)",
    "tensorboard": "TensorBoard itself, for the event files of track.tensorboard",
    "mlflow": "telling MLflow what a run states (track.mlflow)",
    "wandb": "telling Weights & Biases what a run states (track.wandb)",
    "all": "all of these",
    "test": "the tests",
    "peers": "the comparison with other trainers",
}
INNER = ("all", "test", "peers")  # extras that are for no one purpose
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra == ["'](.+?)["']""")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)")


def versions() -> Iterator[Finding]:
    """Python, epochal and what it needs; each that is missing, too old or too new by a line of its own."""
    try:
        own = version("epochal")
    except PackageNotFoundError:
        text = f"epochal is not installed, only there; Python {platform.python_version()}"
        yield Finding("versions", "warning", text, f"{sys.executable} -m pip install -e . in its directory")
        return
    wrong, right = [], []
    for name, bounds in _needed():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(Finding("versions", "problem", f"{name} is not installed", f'pip install "{name}{bounds}"'))
            continue
        if not fits(found, bounds):
            text = f"{name} is {found}, and epochal needs {bounds}"
            wrong.append(Finding("versions", "problem", text, f'pip install "{name}{bounds}"'))
        elif name in SHOWN:
            right.append(f"{name} {found}")
    yield Finding("versions", "ok", ", ".join([f"epochal {own}", f"Python {platform.python_version()}", *right]))
    yield from wrong


def fits(found: str, bounds: str) -> bool:
    """Whether a version is within bounds such as ">=8.0,<9". What stands behind the numbers (rc1, +cpu) does not count."""
    for sign, bound in _BOUND.findall(bounds):
        a, b = _numbers(found), _numbers(bound)
        length = max(len(a), len(b))
        a, b = a + (0,) * (length - len(a)), b + (0,) * (length - len(b))
        held = {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b}[sign]
        if not held:
            return False
    return True


def extras() -> Iterator[Finding]:
    """Each extra with its purpose: installed, or how to install it."""
    try:
        declared = [line.partition(";") for line in requires("epochal") or ()]
    except PackageNotFoundError:
        return
    parts: dict[str, list[str]] = {}
    for requirement, _, condition in declared:
        if (named := _EXTRA.search(condition)) and named[1] not in INNER:
            parts.setdefault(named[1], []).append(_name(requirement))
    there = [extra for extra, names in parts.items() if all(map(_installed, names))]
    if there:
        yield Finding("extras", "ok", f"installed: {', '.join(there)}")
    for extra in (each for each in parts if each not in there):
        missing = ", ".join(name for name in parts[extra] if not _installed(name))
        text = f"{extra} is not installed ({missing}): {PURPOSES.get(extra, 'an extra')}"
        yield Finding("extras", "ok", text, f'pip install "epochal[{extra}]"')


def compiler() -> Iterator[Finding]:
    """What torch.compile needs to make a function of a step on the CPU, and on a GPU to launch it."""
    asked = os.environ.get("CXX")
    usual = ("clang++", "g++") if sys.platform == "darwin" else ("g++", "clang++")
    found = next(filter(None, map(shutil.which, [asked] if asked else usual)), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    slow = "epochal trains eagerly, and what can be compiled could be several times as quick"
    if found is None:
        named = f"the compiler that CXX names, {asked}, is" if asked else f"no C++ compiler ({' or '.join(usual)}) is"
        remedy = "xcode-select --install" if sys.platform == "darwin" else "apt install g++, or the like of it"
        yield Finding("compiler", "warning", f"{named} not found: {slow}", remedy)
    elif not header.is_file():
        remedy = f"apt install python{sys.version_info.major}.{sys.version_info.minor}-dev, or the like of it"
        yield Finding("compiler", "warning", f"{header} is not there, which torch.compile includes: {slow}", remedy)
    else:
        yield Finding("compiler", "ok", f"{found}, with Python's headers: steps can be compiled")


def settings() -> Iterator[Finding]:
    """What is wrong in the person's settings."""
    for sentence in Preferences.of_user().problems:
        yield Finding("settings", "warning", sentence, "edit the file; the default holds meanwhile")


def _needed() -> Iterator[tuple[str, str]]:
    for line in requires("epochal") or ():
        requirement, _, condition = line.partition(";")
        if "extra" not in condition:
            name = _name(requirement)
            yield name, requirement.strip().removeprefix(name).strip()


def _name(requirement: str) -> str:
    found = _NAME.match(requirement.strip())
    return found[0] if found else requirement


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
