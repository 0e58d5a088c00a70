"""Checkpoints on a disk that fails, is full, or is left in the middle: old or new, never a mixture."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import CheckpointError
from engine.run import files
from engine.run.checkpoints import Checkpoints
from tests.engine.test_checkpoints import assert_is, hidden, steps, tensors, write
from tests.torture.disk import OPERATIONS, half_done

# Kills and failures at every file operation


class Killed(BaseException):
    """The process is gone: nothing that it would do afterwards happens."""


@contextmanager
def failing(
    monkeypatch: pytest.MonkeyPatch, call: int, fail: Callable[[str, int], BaseException | None]
) -> Iterator[list[str]]:
    """From operation `call` (0 is the first) on, `fail(name, number)` says what is raised instead of doing it."""
    done: list[str] = []

    def wrap(name: str) -> Callable[..., Any]:
        original = getattr(files, name)

        def operation(path: Any, *arguments: Any) -> Any:
            done.append(name)
            error = fail(name, len(done) - 1) if len(done) > call else None
            if error is None:
                return original(path, *arguments)
            if len(done) == call + 1:
                half_done(name, path, arguments)
            raise error

        return operation

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(files, name, wrap(name))
        yield done


SAVES: dict[str, tuple[list[int], int, dict[str, Any]]] = {
    "first": ([], 10, {}),
    "next": ([10, 20], 30, {}),
    "next and best": ([10, 20], 30, {"best": True}),
    "best alone": ([10, 20], 30, {"best": True, "last": False}),
    "with one to prune": ([10, 20, 30], 40, {"best": True}),
    "again": ([10, 20], 20, {"best": True}),
    "again, the only one": ([10], 10, {"best": True}),
}


def versions(checkpoints: Checkpoints, which: str) -> int | None:
    try:
        return int(checkpoints.read(which).state["version"])
    except CheckpointError as error:
        assert "damaged" not in str(error)
        return None


def write_version(checkpoints: Checkpoints, step: int, version: int, **options: Any) -> None:
    """Tensors and state both tell the version, so that a mixture shows."""
    data = {"model": {"x": torch.full((5,), float(version))}, "optimizer": {"y": torch.tensor(version)}}
    checkpoints.write(step, data, {"version": version}, **{"best": False, **options})


def assert_not_mixed(checkpoints: Checkpoints) -> None:
    saved = checkpoints.read()
    version = saved.state["version"]
    assert saved.passed_over == ()
    assert saved.tensors["optimizer"]["y"] == version and (saved.tensors["model"]["x"] == version).all()


@pytest.mark.parametrize("case", SAVES)
def test_e1_killed_at_every_file_operation_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    before, step, options = SAVES[case]
    for version, earlier in enumerate(before):
        write_version(Checkpoints(tmp_path / "start", keep=2), earlier, version, best=earlier == 10)
    (tmp_path / "start").mkdir(exist_ok=True)
    new, old_last, old_best = len(before), len(before) - 1 if before else None, 0 if before else None
    call, finished = 0, False
    while not finished:
        directory = tmp_path / str(call)
        shutil.copytree(tmp_path / "start", directory, symlinks=True)
        checkpoints = Checkpoints(directory, keep=2)
        with failing(monkeypatch, call, lambda name, number: Killed()) as done:
            try:
                write_version(checkpoints, step, new, **options)
                finished = True
            except Killed:
                pass
        last, best = versions(checkpoints, "last"), versions(checkpoints, "best")
        assert last in (old_last, new), f"killed at {done[-1]}, operation {call}"
        assert best in (old_best, new, old_last if step in before else new), f"killed at {done[-1]}, operation {call}"
        if last is not None:
            assert_not_mixed(checkpoints)
        assert bool(checkpoints.list()) == (last is not None)
        if last == new and options.get("best"):  # a run that goes on from here will not write this best one again
            assert checkpoints.read("best").step == step
        if len(before) >= 2 and step not in before:
            assert sum(is_whole(checkpoints, path) for _, path in checkpoints.list()) >= 2  # E3
        write_version(checkpoints, step, new + 1)
        assert versions(checkpoints, "last") == new + 1
        assert hidden(directory) == []
        call += 1
    assert call > 15
    assert last == (old_last if case == "best alone" else new)


def is_whole(checkpoints: Checkpoints, path: Path) -> bool:
    try:
        checkpoints.read(path)
    except CheckpointError:
        return False
    return True


@pytest.mark.parametrize("stays_full", [False, True])
@pytest.mark.parametrize("case", ["first", "with one to prune", "again"])
def test_e2_a_failing_disk_at_every_file_operation_of_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, stays_full: bool
) -> None:
    before, step, options = SAVES[case]
    for version, earlier in enumerate(before):
        write_version(Checkpoints(tmp_path / "start", keep=2), earlier, version)
    (tmp_path / "start").mkdir(exist_ok=True)
    new, old = len(before), len(before) - 1 if before else None

    def fail(name: str, number: int) -> OSError | None:
        once = number == call
        return OSError(errno.ENOSPC, "No space left") if once or (stays_full and name in ("write", "fill", "link")) else None

    call, failed = 0, True
    while failed:
        directory = tmp_path / str(call)
        shutil.copytree(tmp_path / "start", directory, symlinks=True)
        checkpoints = Checkpoints(directory, keep=2)
        with failing(monkeypatch, call, fail) as done:
            failed = False
            try:
                write_version(checkpoints, step, new, **options)
            except OSError:
                failed = True
        assert versions(checkpoints, "last") in (old, new)
        if failed and done[call] in ("make_directory", "write", "fill", "sync", "link"):
            assert hidden(directory) == [], f"litter after a failure of {done[call]}, operation {call}"
        failed = failed or len(done) > call  # a failure while tidying up at the end is none of the save
        write_version(checkpoints, step, new + 1)
        assert versions(checkpoints, "last") == new + 1 and hidden(directory) == []
        call += 1
    assert call > 15


def test_e3_nothing_is_renamed_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20):
        write(checkpoints, step)
    operations: list[tuple[str, str]] = []

    def recorded(name: str, original: Callable[..., None]) -> Callable[..., None]:
        def operation(path: Path, *rest: Any) -> None:
            operations.append((name, path.name))
            original(path, *rest)

        return operation

    for name in OPERATIONS:
        monkeypatch.setattr(files, name, recorded(name, getattr(files, name)))
    write(checkpoints, 30)
    committed = operations.index(("replace", ".new-step-00000030"))
    names = ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json", ".new-step-00000030"]
    synced = [operations.index(("sync", name)) for name in names]
    assert max(synced) < committed
    for name in names[:2]:
        assert operations.index(("fill", name)) < operations.index(("sync", name))
    for name in names[2:4]:
        assert operations.index(("write", name)) < operations.index(("sync", name))
    assert operations[synced[-1] - 1] == ("sync", "manifest.json")
    # The new name is on the disk before anything points to it, and the pointers before an old one goes.
    assert operations[committed + 1] == ("sync", tmp_path.name)
    pointed = operations.index(("replace", ".new-last"))
    assert operations[pointed + 1] == ("sync", tmp_path.name)
    assert operations.index(("replace", "step-00000010")) > pointed + 1


# Space


def test_e2_too_little_space_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path)
    write(checkpoints, 1)
    large = {"model": {"x": torch.zeros(1_000_000), "y": torch.zeros(1000, dtype=torch.float64)}}
    tied = {"model": {**large["model"], "z": large["model"]["x"]}, "optimizer": {}}
    monkeypatch.setattr(files, "free", lambda path: 4_000_000)
    with failing(monkeypatch, 0, lambda name, number: None) as done, pytest.raises(OSError) as caught:
        checkpoints.write(2, tied, {}, best=False)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.strerror == "no space left: a checkpoint needs 4.07 MB, 4.00 MB are free"
    assert done == [] and steps(checkpoints) == [1]
    monkeypatch.setattr(files, "free", lambda path: 4_200_000)  # tied weights count once
    checkpoints.write(2, tied, {}, best=False)
    assert steps(checkpoints) == [1, 2]


def test_what_a_killed_writer_left_is_no_reason_to_find_too_little_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    litter = tmp_path / ".new-step-00000001"
    litter.mkdir()
    monkeypatch.setattr(files, "free", lambda path: 0 if litter.exists() else 10**9)
    write(checkpoints, 2)
    assert steps(checkpoints) == [2]


def test_space_that_nobody_knows_is_no_reason_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.free(tmp_path / "none") is None
    free = files.free(tmp_path)
    assert free is not None and free > 0
    for usage in ((0, 0, 0), (10, 10, 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(*usage))  # noqa: B023
        if usage[0]:
            with pytest.raises(OSError, match="no space left: a checkpoint needs 0.07 MB, 0.00 MB are free"):
                write(Checkpoints(tmp_path), 1)
        else:
            write(Checkpoints(tmp_path), 1)


LIMITED = """
import resource, sys, torch
from pathlib import Path
from engine.run.checkpoints import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
data = {"model": {"x": torch.ones(10_000)}, "optimizer": {}}
checkpoints.write(1, data, {}, best=False)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for limit in (10, 500, 30_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        checkpoints.write(2, data, {}, best=True)
    except OSError as error:
        print(error.strerror)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert checkpoints.read().step == 1
    assert sorted(path.name for path in Path(sys.argv[1]).iterdir()) == ["last", "step-00000001"]
"""


def test_e2_what_the_system_does_not_take_is_an_os_error(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["File too large"] * 3


# After the checkpoint is there


def test_old_ones_that_can_not_be_removed_are_a_warning_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        write(checkpoints, step)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", refuse)
        for step in (3, 4):
            assert write(checkpoints, step).name == f"step-{step:08d}"
            assert_is(checkpoints.read(), step)
    warnings = checkpoints.take_warnings()
    assert warnings[0] == f"old checkpoints can't be removed from {tmp_path}: Permission denied"
    assert len(warnings) == len(set(warnings)) and checkpoints.take_warnings() == []
    write(checkpoints, 5)
    assert steps(checkpoints) == [4, 5] and hidden(tmp_path) == [] and checkpoints.take_warnings() == []


def test_old_ones_that_can_not_be_renamed_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        write(checkpoints, step)
    original = files.replace

    def refuse(source: Path, target: Path) -> None:
        if target.name.startswith(".gone-"):
            raise OSError(errno.EIO, "Input/output error")
        original(source, target)

    monkeypatch.setattr(files, "replace", refuse)
    write(checkpoints, 3)
    assert steps(checkpoints) == [1, 2, 3]
    assert checkpoints.take_warnings() == [f"old checkpoints can't be removed from {tmp_path}: Input/output error"]


@pytest.mark.parametrize("absolute", [False, True])
def test_what_last_and_best_point_to_is_never_removed(tmp_path: Path, absolute: bool) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30, 40):
        write(checkpoints, step, best=step == 10)
    if absolute:
        (tmp_path / "best").unlink()
        (tmp_path / "best").symlink_to(tmp_path.resolve() / "step-00000010")
    (tmp_path / "last").unlink()
    (tmp_path / "last").symlink_to("step-00000040")
    checkpoints.write(15, tensors(15), {"step": 15}, best=False, last=False)
    assert {10, 15, 40} <= set(steps(checkpoints))
    assert_is(checkpoints.read("best"), 10)
    assert_is(checkpoints.read(40), 40)
