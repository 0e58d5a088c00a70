"""status.json: what a run is doing, for whoever looks from outside. Replaced atomically, twice a second at most."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from engine.errors import RunError, plain
from engine.events import Progress, to_dict
from engine.run import files, strict_json
from engine.run.sound import event_from

ALIVE = ("starting", "running", "paused")
ENDED = ("finished", "stopped", "failed")
SILENCE_SECONDS = 120.0  # after which a run on another host, of whose processes nothing is known here, counts as dead
_TEXT = ("state", "host", "monitor", "mode", "reason")
_COUNTS = ("pid", "step", "epoch")
_TIMES = ("process_started", "heartbeat", "started", "seconds")


class Status:
    """Writes one run's status; `Status.read` reads any."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._written = ""  # the state written last

    def write(
        self,
        state: str,
        *,
        step: int = 0,
        epoch: int = 0,
        epochs: int | None = None,
        best: Mapping[str, float] | None = None,
        monitor: str = "",
        mode: str = "",
        started: float | None = None,
        seconds: float = 0.0,
        reason: str = "",
        progress: Progress | None = None,
    ) -> None:
        """Replace the status by this one, with the process, the host and the time of writing.

        state: "starting", "running", "paused", "finished", "stopped" or "failed".
        best: the best epoch's row. started: Unix seconds of the run's first start, now when left out.
        progress: what the run stated last of where it is.
        """
        now = time.time()
        values = {
            "state": state,
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "host": platform.node(),
            "heartbeat": now,
            "step": step,
            "epoch": epoch,
            "epochs": epochs,
            "best": dict(best or {}),
            "monitor": monitor,
            "mode": mode,
            "started": now if started is None else started,
            "seconds": seconds,
            "reason": reason,
            "progress": progress and to_dict(progress),
        }
        # A heartbeat is not worth a wait for the disk: the next one is near, and training waits meanwhile.
        heartbeat = state == self._written or state == "running"
        files.write_atomically(self.path, strict_json.encode(values, indent=1), durable=not heartbeat)
        self._written = state

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """The values as written, with "progress" as plain values, or None.

        The state is "died", with the reason, where a process should be at work and is gone, or has been silent for
        SILENCE_SECONDS on another host. RunError, in one sentence, when there is no status or it can't be read.
        """
        path = Path(path)
        try:
            values = strict_json.decode(path.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{path} is missing") from None
        except OSError as error:
            raise RunError(f"{path} can't be read: {error.strerror}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {plain(str(error))[:200]}") from error
        if not isinstance(values, dict):
            raise RunError(f"{path} is damaged: it holds no status")
        values.setdefault("progress", None)  # older ones have none
        for key in (*_TEXT, *_COUNTS, *_TIMES, "epochs", "best", "progress"):
            value = values.get(key, ...)
            if not _sound(key, value):
                raise RunError(f"{path} is damaged: {key!r} is {'missing' if value is ... else repr(value)[:80]}")
        values |= {key: plain(values[key]) for key in _TEXT}
        if values["state"] in ALIVE:
            gone = _gone(values)
            if gone:
                values |= {"state": "died", "reason": gone}
        return values

    @staticmethod
    def alive(path: Path) -> bool:
        """Whether a process is at work there; where none can be read, none is being written either."""
        try:
            return Status.read(path)["state"] in ALIVE
        except RunError:
            return False


def _sound(key: str, value: Any) -> bool:
    if key == "state":
        return value in (*ALIVE, *ENDED)
    if key in _TEXT:
        return isinstance(value, str)
    if key == "pid":
        return type(value) is int
    if key in _COUNTS:
        return _count(value)
    if key in _TIMES:
        return _number(value) and abs(value) < 1e12
    if key == "epochs":
        return value is None or _count(value)
    if key == "best":
        numbers = isinstance(value, dict) and all(isinstance(k, str) and _number(v) for k, v in value.items())
        return numbers and (not value or _finite(value.get("epoch")))
    try:
        return value is None or isinstance(event_from(value), Progress)
    except (ValueError, RecursionError):
        return False


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _finite(value: Any) -> bool:
    return _number(value) and math.isfinite(value)


def _gone(values: Mapping[str, Any]) -> str:
    """Why nobody can be at work, or an empty text."""
    if values["host"] == platform.node():
        return "" if at_work(values) else "its process is gone"
    silent = time.time() - values["heartbeat"]
    return f"no sign of life from {values['host']} for {silent:.0f} s" if silent > SILENCE_SECONDS else ""


def at_work(values: Mapping[str, Any]) -> bool:
    """Whether the process `pid` of this host that began at `process_started` is at work."""
    try:
        process = psutil.Process(values["pid"])
        started: float = process.create_time()
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not asked for it yet
            return False
    except (psutil.NoSuchProcess, ValueError, OverflowError):  # no process has such a number
        return False
    # A number used again by a later process. Start times move a little when the clock is set.
    return abs(started - float(values["process_started"])) < 5.0
