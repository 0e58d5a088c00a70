"""A person's own code by name: "path/file.py:Name", relative to the working directory, or "package.module:Name"."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import Problem, RecipeError, nearest

_NAME = re.compile(r"(?P<where>.+):(?P<what>[^\W\d]\w*)")


def is_own(name: str) -> bool:
    """Whether a name is meant for `resolve` and not for the catalog's own lists."""
    return ":" in name or name.endswith(".py")


def resolve(name: str, field: str = "name") -> Any:
    """The class, function or other callable that `name` stands for; `field` is the recipe's key, for the sentence.

    Raises RecipeError when there is no such file, module or name. An exception that the code itself raises is the person's
    own and comes through as it is. A file is loaded again when it has changed.
    """

    def wrong(sentence: str) -> RecipeError:
        return RecipeError([Problem(field, f"{field} is {name!r}; {sentence}")])

    match = _NAME.fullmatch(name)
    if match is None:
        raise wrong('own code is written "path/file.py:Name" or "package.module:Name"')
    where, what = match["where"], match["what"]
    if where.endswith(".py") or "/" in where:
        path = Path(where).expanduser().resolve()
        if not path.is_file():
            raise wrong(f"there is no file {str(path)!r}{nearest(path.name, _neighbours(path))}")
        module = _load(path)
    else:
        try:
            with _importable(Path.cwd()):
                module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not (where == error.name or where.startswith(f"{error.name}.")):
                raise  # the module is there; something that it imports is not
            raise wrong(f"there is no module {error.name!r} here") from None
    if not hasattr(module, what):
        raise wrong(f"{where} has no {what!r}{nearest(what, (key for key in vars(module) if not key.startswith('_')))}")
    target = getattr(module, what)
    if not callable(target):
        raise wrong(f"{what} is a {type(target).__name__}, and it must be a class or a function")
    return target


def _neighbours(path: Path) -> list[str]:
    return [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []


def _load(path: Path) -> ModuleType:
    """The file as a module under a name of its own, so that two files called model.py do not meet."""
    source = path.read_bytes()
    name = f"{path.stem}_{hashlib.sha256(bytes(path) + source).hexdigest()[:12]}"
    _files[name] = (str(path), source)
    __import__(name)  # this and not importlib.import_module: the import's own frames are kept out of a traceback
    return sys.modules[name]


_files: dict[str, tuple[str, bytes]] = {}  # path and source of each file that was asked for, by the name of its module


class _File(ExecutionLoader):
    def get_filename(self, fullname: str) -> str:
        return _files[fullname][0]

    def get_source(self, fullname: str) -> str:
        return decode_source(_files[fullname][1])

    def exec_module(self, module: ModuleType) -> None:
        # Not through the bytecode cache, which takes two versions of one size within one second for the same.
        with _importable(Path(self.get_filename(module.__name__)).parent):
            super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return spec_from_loader(fullname, _File()) if fullname in _files else None


sys.meta_path.append(_Finder())


class Files:
    """The files of own code. Once this is unpickled in another process, what is of a class in one of them can be, too.

    A data worker that is not forked finds a class by its module. It gets the source as it was when the run began, and runs a
    file only when something of it is asked for: others may be those of an earlier run.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _known, (_files,)


def _known(files: dict[str, tuple[str, bytes]]) -> Files:
    _files.update(files)
    return Files()


@contextlib.contextmanager
def _importable(directory: Path) -> Iterator[None]:
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the loaded code may have tidied sys.path itself
            sys.path.remove(str(directory))
