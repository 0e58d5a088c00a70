"""A disk that fails, through the one module that touches it."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.run import files

OPERATIONS = ("make_directory", "write", "fill", "append", "truncate", "sync", "replace", "link", "remove")
FILLING = ("make_directory", "write", "fill", "append", "link")  # those that a full disk refuses
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)

# (number of the operation, its name) -> what it raises, or the signal that ends the process, instead of its being done
Fail = Callable[[int, str], OSError | signal.Signals | None]


def half_done(name: str, path: Any, arguments: tuple[Any, ...]) -> None:
    """What an operation that was under way may leave."""
    if name == "write":
        path.write_bytes(arguments[0][: len(arguments[0]) // 2])
    elif name == "append":
        os.write(path, arguments[0][: len(arguments[0]) // 2])
    elif name == "fill":
        arguments[0](path)
        os.truncate(path, path.stat().st_size // 2)
    elif name == "remove" and path.is_dir() and not path.is_symlink():
        min(path.iterdir()).unlink()


@contextmanager
def failing(fail: Fail) -> Iterator[list[str]]:
    """While the block lasts, an operation for which `fail` says so is half done at best. Yields what was called, in order."""
    done: list[str] = []
    lock = threading.Lock()

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, *arguments: Any) -> Any:
            with lock:
                number = len(done)
                done.append(f"{name} {'the journal' if isinstance(path, int) else path}")
            error = fail(number, name)
            if error is None:
                return original(path, *arguments)
            half_done(name, path, arguments)
            if isinstance(error, signal.Signals):
                os.kill(os.getpid(), error)
            raise error

        return operation

    originals = {name: getattr(files, name) for name in OPERATIONS}
    for name, original in originals.items():
        setattr(files, name, wrap(name, original))
    try:
        yield done
    finally:
        for name, original in originals.items():
            setattr(files, name, original)


def error(number: int) -> OSError:
    """One of the errors that a disk has, in turn."""
    code = ERRORS[number % len(ERRORS)]
    return OSError(code, os.strerror(code))


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
