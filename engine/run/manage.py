"""What a person does to a run's directory: tag, rename, delete. Never while a process is at work on it, but for the tag."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import RunError, plain
from engine.run import files
from engine.run.about import LONGEST_TAG, TAG
from engine.run.names import renamed

if TYPE_CHECKING:
    from engine.run.directory import Run

GONE = ".gone-"  # before the name of a run that is being deleted


def tag(run: Run, text: str) -> None:
    """Keep a line of text with the run; an empty one takes it away. RunError when it is too long or the disk fails."""
    run.refuse_if_foreign()
    text = plain(" ".join(text.split()))
    if len(text) > LONGEST_TAG:
        raise RunError(f"a tag has at most {LONGEST_TAG} characters, not {len(text)}")
    try:
        if text:
            files.write_atomically(run.path / TAG, text.encode() + b"\n")
        elif (run.path / TAG).exists():
            files.remove(run.path / TAG)
    except OSError as error:
        raise RunError(f"{run.name} can't be tagged: {error.strerror}") from error


def rename(run: Run, name: str) -> Run:
    """Give the directory another name; the time at its beginning stays. The run that it is now.

    RunError while a process is at work on it, for a name that a directory can't have or another run has, when the disk fails.
    """

    run.refuse_if_foreign()
    path = run.path.absolute()
    if path.is_symlink():
        raise RunError(f"{run.name} is a link: its target can be renamed")
    target = path.with_name(renamed(path.name, name))
    if target == path:
        return run
    with _at_rest(run):
        if target.exists():
            raise RunError(f"there is a run {target.name} already")
        try:
            files.replace(path, target)
            files.sync(target.parent)
        except OSError as error:
            raise RunError(f"{run.name} can't be renamed: {error.strerror}") from error
    return type(run)(target)


def delete(run: Run) -> None:
    """Remove the directory and all that is in it: first from sight, in one step, then from the disk.

    RunError while a process is at work on it, and when the disk fails.
    """
    run.refuse_if_foreign()
    path = run.path.absolute()
    with _at_rest(run):
        aside = path.with_name(f"{GONE}{path.name}-{os.getpid()}")
        try:
            files.replace(path, aside)
            files.remove(aside)
            files.sync(path.parent)
        except OSError as error:
            left = f"; what is left is in {aside}" if aside.exists() else ""
            raise RunError(f"{run.name} can't be deleted: {error.strerror}{left}") from error


@contextlib.contextmanager
def _at_rest(run: Run) -> Iterator[None]:
    """Nobody trains it, and nobody begins to. RunError where somebody does."""
    run.refuse_if_training()
    if run.status.alive(run.status.path):
        raise RunError(f"{run.path} is being trained by this process")
    run.lock.acquire()
    try:
        yield
    finally:
        run.lock.release()


def steps(path: Path) -> list[tuple[int, str]]:
    """The steps of a run's checkpoints, the newest first, each with what points to it: "last", "best", "last, best" or ""."""
    directory = Path(path) / "checkpoints"
    pointed: dict[str, list[str]] = {}
    for name in ("last", "best"):
        with contextlib.suppress(OSError):
            pointed.setdefault(str((directory / name).readlink()), []).append(name)
    names = [item.name for item in directory.glob("step-*") if item.name.removeprefix("step-").isdigit()]
    return [(int(name.removeprefix("step-")), ", ".join(pointed.get(name, ()))) for name in sorted(names, reverse=True)]
