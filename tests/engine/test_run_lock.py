"""The lock of a run, between real processes: one trainer at a time, and none that a dead one left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.run import Run
from engine.run.lock import Lock

HOLD = "import sys; from engine.run.lock import Lock; lock = Lock(sys.argv[1]); lock.acquire(); print('held', flush=True)\n"
TRY = """
import sys
from engine.errors import RunError
from engine.run.lock import Lock
try:
    print(repr(Lock(sys.argv[1]).acquire()))
except RunError as error:
    print(error)
"""


@contextmanager
def holding(path: Path, then: str = "sys.stdin.read()") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock and goes on with `then`."""
    command = [sys.executable, "-c", HOLD + then, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def tried(path: Path) -> str:
    """What another process is told when it wants the lock."""
    return subprocess.run([sys.executable, "-c", TRY, str(path)], capture_output=True, text=True, check=True).stdout.strip()


def by(process: int) -> str:
    return f"is being trained by process {process} on {platform.node()}"


def test_e14_the_second_process_refuses_and_names_the_first(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holding(path) as process:
        with pytest.raises(RunError) as caught:
            Lock(path).acquire()
        assert str(caught.value) == f"{tmp_path} {by(process.pid)}"
        assert by(process.pid) in tried(path)


def test_e14_after_a_kill_the_next_one_gets_it_and_keeps_the_others_out(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holding(path) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        lock = Lock(path)
        assert lock.acquire() == ""
    assert by(os.getpid()) in tried(path)
    lock.release()
    assert tried(path) == "''"


def test_e14_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    first, second = Lock(path), Lock(tmp_path / "." / ".lock")
    first.acquire()
    with pytest.raises(RunError, match="is being trained by this process already"):
        second.acquire()
    assert by(os.getpid()) in tried(path)  # being refused must not cost the first one its lock
    first.release()
    assert second.acquire() == ""
    with pytest.raises(RunError, match="already"):
        first.acquire()
    first.release()  # one that holds nothing takes nothing
    assert by(os.getpid()) in tried(path)


def test_acquiring_twice_is_once(tmp_path: Path) -> None:
    lock = Lock(tmp_path / ".lock")
    assert lock.acquire() == lock.acquire() == ""
    lock.release()
    lock.release()
    assert tried(lock.path) == "''"


def test_a_lock_that_is_forgotten_is_released(tmp_path: Path) -> None:
    Lock(tmp_path / ".lock").acquire()  # nothing refers to it, nor does a cycle
    assert tried(tmp_path / ".lock") == "''"
    assert Lock(tmp_path / ".lock").acquire() == ""


def test_a_forked_child_does_not_keep_the_lock_of_a_killed_owner(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    child = "import os\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\nsys.stdin.read()"
    with holding(path, child) as process:
        assert process.stdout is not None
        orphan = int(process.stdout.readline())
        try:
            assert by(process.pid) in tried(path)
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.kill(orphan, 0)  # it is alive, with its parent's descriptors
            assert tried(path) == "''"
        finally:
            os.kill(orphan, signal.SIGKILL)


FORKED = """
import os
from engine.errors import RunError
if os.fork() == 0:
    try:
        lock.acquire()
        print('has it too')
    except RunError as error:
        print(error)
    lock.release()
    del lock
    print('gone', flush=True)
    os._exit(0)
os.wait()
print('owner goes on', flush=True)
sys.stdin.read()
"""


def test_a_forked_child_has_not_got_the_lock_and_can_not_give_it_away(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with holding(path, FORKED) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        assert lines == [f"{tmp_path} {by(process.pid)}", "gone", "owner goes on"]
        assert by(process.pid) in tried(path)


def test_a_child_that_runs_another_program_does_not_inherit_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / ".lock")
    lock.acquire()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        lock.release()
        assert tried(lock.path) == "''"
        child.kill()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\0", b'{"pid": "x"}', b"[" * 5000, b'{"pid": 1}'])
def test_rubbish_in_the_file_is_no_harm(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ".lock"
    with holding(path):
        path.write_bytes(content)  # in this process, which is not the owner
        with pytest.raises(RunError, match="is being trained by another process"):
            Lock(path).acquire()
    lock = Lock(path)
    assert lock.acquire() == ""
    lock.release()
    assert json.loads(path.read_bytes()) == {"pid": os.getpid(), "host": platform.node()}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    lock = Lock(tmp_path / ".lock")
    assert lock.acquire() == (
        f"{tmp_path} can't be locked ({os.strerror(number)}): nothing keeps a second process from training it as well"
    )
    with pytest.raises(RunError, match="by this process already"):
        Lock(tmp_path / ".lock").acquire()


def test_where_no_lock_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone can't be locked: No such file or directory"):
        Lock(tmp_path / "gone" / ".lock").acquire()


def test_a_run_has_one_lock(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "n", None, {})
    assert run.lock is run.lock and run.lock.path == run.path / ".lock"
    run.lock.acquire()
    with pytest.raises(RunError, match="already"):
        Run(run.path).lock.acquire()
    run.lock.release()
