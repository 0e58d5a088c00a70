"""status.json: what a run is doing, for whoever looks from outside. Replaced atomically, a few times a minute."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from engine.errors import RunError
from engine.run import files, strict_json

ALIVE = ("starting", "running", "paused")
_SCHEMA: dict[str, tuple[type, ...]] = {
    "state": (str,),
    "pid": (int,),
    "process_started": (int, float),
    "host": (str,),
    "heartbeat": (int, float),
    "step": (int,),
    "epoch": (int,),
    "epochs": (int, type(None)),
    "best": (dict,),
    "monitor": (str,),
    "mode": (str,),
    "started": (int, float),
    "seconds": (int, float),
    "reason": (str,),
}


class Status:
    """Writes one run's status; `Status.read` reads any."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

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
    ) -> None:
        """Replace the status by this one, with the process, the host and the time of writing.

        state: "starting", "running", "paused", "finished", "stopped" or "failed".
        best: the best epoch's row. started: Unix seconds of the run's first start, now when left out.
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
        }
        # A heartbeat is not worth a wait for the disk: the next one is near, and training waits meanwhile.
        files.write_atomically(self.path, strict_json.encode(values, indent=1), durable=state != "running")

    @staticmethod
    def read(path: Path) -> dict[str, Any]:
        """The values as written, the state "died" where a process of this host should be at work and is gone.

        RunError, in one sentence, when there is no status or it can't be read.
        """
        path = Path(path)
        try:
            values = strict_json.decode(path.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{path} is missing") from None
        except OSError as error:
            raise RunError(f"{path} can't be read: {error.strerror}") from error
        except (ValueError, TypeError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {error}") from error
        if not isinstance(values, dict):
            raise RunError(f"{path} is damaged: it holds no status")
        for key, kinds in _SCHEMA.items():
            if not isinstance(values.get(key, ...), kinds):
                raise RunError(f"{path} is damaged: {key!r} is {values.get(key, 'missing')!r}")
        if values["state"] in ALIVE and values["host"] == platform.node() and not _at_work(values):
            values["state"] = "died"
        return values


def _at_work(values: Mapping[str, Any]) -> bool:
    try:
        process = psutil.Process(values["pid"])
        started: float = process.create_time()
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not asked for it yet
            return False
    except (psutil.NoSuchProcess, ValueError, OverflowError):  # no process has such a number
        return False
    # A number used again by a later process. Start times move a little when the clock is set.
    return abs(started - float(values["process_started"])) < 5.0
