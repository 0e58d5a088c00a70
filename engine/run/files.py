"""Every byte, rename, sync and removal in a run directory goes through these functions.

Callers write `files.replace(…)`, never `from … import replace`, so that one module decides what happens to the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def make_directory(path: Path) -> None:
    """Make one directory with the user's umask. FileExistsError when it is there already, whoever made it."""
    path.mkdir()


def free(path: Path) -> int | None:
    """Bytes that can still be written where `path` is; None where that is not known."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return usage.free if usage.total else None  # some network file systems know of no size at all


def write(path: Path, data: bytes) -> None:
    """Write a whole file. It may be lost or torn by a crash until `sync` returns."""
    path.write_bytes(data)


def fill(path: Path, writer: Callable[[Path], None]) -> None:
    """Let another library write the file; it gets the mode that a file of our own would have."""
    path.touch()
    mode = path.stat().st_mode
    writer(path)
    path.chmod(mode)


def append(descriptor: int, data: bytes) -> None:
    """Append to an open file, in one system call unless the disk is full."""
    while data:
        data = data[os.write(descriptor, data) :]


def truncate(descriptor: int, size: int) -> None:
    """Cut an open file to `size` bytes."""
    os.ftruncate(descriptor, size)


def sync(path: Path) -> None:
    """Return when the content of the file, or the names in the directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (error.errno == errno.EINVAL and path.is_dir()):  # some network file systems can't sync a directory
            raise
    finally:
        os.close(descriptor)


def replace(source: Path, target: Path) -> None:
    """Rename within one directory, atomically; a file or link that is there is replaced."""
    source.replace(target)


def link(path: Path, target: str) -> None:
    """Make the symbolic link `path`, relative to its own directory."""
    path.symlink_to(target)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole directory."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Put `data` in place of the file: a reader sees the old content or the new, never a part.

    With `durable` the new content is on the disk on return; without, a power failure (not a kill) may lose it.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        write(aside, data)
        if durable:
            sync(aside)
        replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):  # the first failure is the one to tell of
            remove(aside)
        raise
    if durable:
        sync(path.parent)
