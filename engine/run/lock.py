"""Locks: of a run directory, one trainer at a time, in whatever process and on whatever host; of a file, one change at a time.

A POSIX lock belongs to the process: data workers that are forked from a trainer do not keep it when the trainer is killed, and
a killed trainer can't leave it behind. Its price: closing any descriptor of the file drops it, so that nothing but this module
may open the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from engine.errors import RunError
from engine.run import files, strict_json

# A POSIX lock does not keep out its own process: that is what this registry of (device, inode) is for.
_held: set[tuple[int, int]] = set()
_guard = threading.RLock()  # reentrant: garbage collection may release one lock while another is being acquired


def _forked() -> None:
    """A child holds nothing of what its parent holds."""
    global _guard
    _guard = threading.RLock()
    _held.clear()


os.register_at_fork(after_in_child=_forked)


class Lock:
    """Who holds it may write the run. It is released with the process that acquired it, and with the object."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._owner: int | None = None  # the process that acquired it; a forked child has the object, not the lock
        self._free: weakref.finalize | None = None

    def acquire(self) -> str:
        """Hold the run from now on; nothing happens where this object holds it already.

        Returns one sentence where the file system knows no locks, else an empty text. RunError, naming process and host,
        where another process or another Lock of this process holds the run.
        """
        with _guard:
            if self._owner == os.getpid():
                return ""
            run = self.path.parent
            if _identity(self.path) in _held:
                raise RunError(f"{run} is being trained by this process already")
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise RunError(f"{run} can't be locked: {error.strerror}") from error
            warning = ""
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    holder = _holder(descriptor)
                    os.close(descriptor)
                    raise RunError(f"{run} is being trained by {holder}") from None
                warning = f"{run} can't be locked ({error.strerror}): nothing keeps a second process from training it as well"
            _sign(descriptor)
            stat = os.fstat(descriptor)
            identity = stat.st_dev, stat.st_ino
            _held.add(identity)
            self._owner = os.getpid()
            self._free = weakref.finalize(self, _drop, descriptor, identity, self._owner)
            self._free.atexit = False  # the end of the process does it
            return warning

    def release(self) -> None:
        """Let others have the run; nothing happens where this object does not hold it."""
        if self._free is not None:
            self._free()
        self._owner = self._free = None


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock of this file while the block lasts; who comes later waits, whatever process it is of.

    On a file system without locks nobody waits. RunError where the file can't be written or locked.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RunError(f"{path.parent} can't be written: {error.strerror}") from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise RunError(f"{path.parent} can't be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)


def _drop(descriptor: int, identity: tuple[int, int], owner: int) -> None:
    with _guard:
        os.close(descriptor)  # in a forked child it is a copy, and closing it leaves the parent's lock alone
        if owner == os.getpid():
            _held.discard(identity)


def _identity(path: Path) -> tuple[int, int] | None:
    """Without opening the file: see above."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _sign(descriptor: int) -> None:
    """Write who holds the lock. It holds without that as well, on a full disk for example."""
    try:
        files.truncate(descriptor, 0)
        files.append(descriptor, strict_json.encode({"pid": os.getpid(), "host": platform.node()}))
    except OSError:
        pass


def _holder(descriptor: int) -> str:
    try:
        values = strict_json.decode(os.read(descriptor, 4096))
        return f"process {int(values['pid'])} on {values['host']}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"
