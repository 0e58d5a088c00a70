"""Where runs are kept: room, speed, and whether the file system does what a run asks of it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.doctor import Finding
from engine.errors import RunError
from engine.run import files
from engine.run.lock import Lock

LITTLE, TOO_LITTLE = 2 << 30, 100 << 20  # bytes
SLOW = 20 << 20  # bytes a second
SIZE = 16 << 20  # bytes that are written to measure
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "lustre", "beegfs", "gpfs", "ceph", "fuse.sshfs", "fuse.s3fs")
VOLATILE = ("tmpfs", "ramfs")


def findings(root: Path) -> Iterator[Finding]:
    """Of the runs directory, or where it would be made."""
    there = next((path for path in (root, *root.absolute().parents) if path.exists()), Path("/"))
    where = f"{root}" + ("" if there == root else f" (to be made in {there})")
    if not there.is_dir():
        yield Finding(
            "runs", "problem", f"{there} is not a directory, and runs are to be kept in {root}", "--runs names another"
        )
        return
    kind = file_system(there)
    free = files.free(there)
    try:
        with tempfile.TemporaryDirectory(prefix=".epochal-doctor-", dir=there) as scratch:
            unable = list(_unable(Path(scratch)))
            rate = _rate(Path(scratch)) if free is None or free > TOO_LITTLE else None
    except OSError as error:
        text = f"{where} can't be written: {error.strerror}"
        yield Finding("runs", "problem", text, "make room there, or name another with --runs or EPOCHAL_RUNS")
        return
    yield _room(where, kind, free, rate)
    yield from (Finding("runs", "problem", sentence, "keep runs on another file system: --runs") for sentence in unable)
    if kind in REMOTE:
        text = f"{there} is on a network file system ({kind}): it sets the pace of checkpoints, and locks are its server's"
        yield Finding("runs", "warning", text, "a local disk is quicker: --runs or EPOCHAL_RUNS")
    elif kind in VOLATILE:
        yield Finding(
            "runs", "warning", f"{there} is in memory ({kind}): runs are gone with the machine's next start", "--runs"
        )


def file_system(path: Path) -> str:
    """The type of the file system that holds this directory; nothing where that is not known."""
    import psutil

    try:
        parts = psutil.disk_partitions(all=True)
    except (OSError, RuntimeError):
        return ""
    real = path.resolve()
    mounts = [part for part in parts if real.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""


def _room(where: str, kind: str, free: int | None, rate: float | None) -> Finding:
    said = [where, kind] if kind else [where]
    said += [f"{free / 2**30:.1f} GiB free"] if free is not None else []
    said += [f"{rate / 2**20:,.0f} MiB/s written and synced"] if rate is not None else []
    text = ", ".join(said)
    if free is not None and free < TOO_LITTLE:
        return Finding("runs", "problem", text, "make room: checkpoints will not fit")
    if free is not None and free < LITTLE:
        return Finding("runs", "warning", text, "make room, or keep fewer checkpoints: checkpoint.keep")
    if rate is not None and rate < SLOW:
        return Finding("runs", "warning", text, "another disk (--runs), or checkpoints further apart: checkpoint.min_seconds")
    return Finding("runs", "ok", text)


def _rate(scratch: Path) -> float:
    path, block = scratch / "speed", os.urandom(1 << 20)  # what can't be packed
    begun = time.monotonic()
    with path.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return SIZE / max(time.monotonic() - begun, 1e-6)


def _unable(scratch: Path) -> Iterator[str]:
    """What a run does with files, tried: a sentence for each that does not work."""
    target, aside = scratch / "status.json", scratch / ".status.json.new"
    try:
        files.write(target, b"old")
        files.write(aside, b"new")
        files.sync(aside)
        files.replace(aside, target)
        if target.read_bytes() != b"new" or aside.exists():
            yield "a file can't be put in the place of another here: a run's state may be read half written"
        files.sync(scratch)
    except OSError as error:
        yield f"files can't be synced and renamed here ({error.strerror}): a crash may leave a half written checkpoint"
    try:
        files.link(scratch / "last", "status.json")
    except OSError as error:
        yield f"no symbolic link can be made here ({error.strerror}): checkpoints can't be marked as last and best"
    lock = Lock(scratch / "lock")
    try:
        if warning := lock.acquire():
            yield warning.replace(str(scratch), "a run here")
        if not warning and _second_may_lock(scratch / "lock"):
            yield "a lock keeps nobody out here: two processes may train the same run"
    except RunError as error:
        yield str(error).replace(str(scratch), "a run here")
    finally:
        lock.release()


def _second_may_lock(path: Path) -> bool:
    """Whether another process gets a lock that this one holds."""
    child = os.fork()
    if child == 0:
        try:
            Lock(path).acquire()
        except BaseException:
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
