"""What a process does that a launcher began: it says whose it is, finds the run of an earlier attempt, outlives a hang-up."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from engine.run import Run

T = TypeVar("T")

LAUNCHER = "EPOCHAL_LAUNCHER"  # set by our own launcher to how it was called
STOPPED = "EPOCHAL_STOPPED"  # and this to the file in which it is told that a signal to one of them has stopped all
_AGENT = "EPOCHAL_AGENT"  # process and beginning of torch's agent, where the parent is no longer that
_SKEW = 60.0  # seconds by which two machines' clocks may differ
_FAREWELL = b"\n"


def together() -> bool:
    """Whether this process is one of several that a launcher began."""
    return "WORLD_SIZE" in os.environ


def rank() -> int:
    """This process's number among them, 0 where it is alone."""
    return int(os.environ.get("RANK", "0")) if together() else 0


def restarts_left() -> bool:
    """Whether torch's agent would begin all of them once more if one of them failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) < int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def stopped_by(number: int) -> None:
    """Tell our own launcher, which may not have seen it, of the signal that the run was stopped by."""
    if path := os.environ.get(STOPPED):
        Path(path).write_text(str(number), encoding="ascii")


def beginning() -> dict[str, Any]:
    """Who began this process besides a person, as JSON values for a run's environment; empty where nobody did.

    A run is known by it when torch's launcher, or Slurm, begins the same command once more.
    """
    values: dict[str, Any] = {}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        process, began = _agent()
        values = {
            "run_id": os.environ["TORCHELASTIC_RUN_ID"],
            "host": platform.node(),
            "agent": process,
            "agent_began": began,
            "restarts": int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
        }
    if "SLURM_JOB_ID" in os.environ:
        values["slurm_job"] = f"{os.environ.get('SLURM_CLUSTER_NAME', '')}/{os.environ['SLURM_JOB_ID']}"
        values["requeues"] = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return values


def earlier_run(root: Path) -> Run | None:
    """The run that an earlier attempt of this command made below `root`; None where this is the first, or it made none."""
    now = beginning()
    if not now:
        return None
    from engine.run import Run

    for path, environment in _environments(root):
        if environment.get("command", [""])[1:] == sys.argv[1:] and _same(now, environment["launch"], environment):
            return Run(path)
    return None


def run_of(root: Path, agent: int) -> Run | None:
    """The run that the processes of this launcher on this machine train; None where there is none yet."""
    from engine.run import Run

    mine = (platform.node(), agent, _began(agent))
    for path, environment in _environments(root):
        launch = environment.get("launch") or {}
        if (launch.get("host"), launch.get("agent"), launch.get("agent_began")) == mine:
            return Run(path)
    return None


def runs_of_job(root: Path) -> list[Run]:
    """The runs of this Slurm job, the newest first."""
    from engine.run import Run

    job = beginning().get("slurm_job")
    return [Run(path) for path, environment in _environments(root) if (environment.get("launch") or {}).get("slurm_job") == job]


def _same(now: Mapping[str, Any], then: Mapping[str, Any], environment: Mapping[str, Any]) -> bool:
    """Whether what was begun like that is what was begun like this."""
    if "agent" in now and all(now[key] == then.get(key) for key in ("host", "agent", "agent_began")):
        return True
    if now.get("run_id", "none") not in ("", "none") and now["run_id"] == then.get("run_id"):
        # Rank 0 is on another machine this time. People give the same --rdzv-id again and again: the time tells them apart.
        return bool(environment.get("started", 0.0) > now["agent_began"] - _SKEW)
    requeues = int(now.get("requeues", 0))
    return bool(requeues and now["slurm_job"] == then.get("slurm_job") and then["requeues"] < requeues)


def _environments(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every run's environment.json below `root`, the newest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in root.iterdir():
            with contextlib.suppress(OSError, ValueError):
                values = json.loads((path / "environment.json").read_text(encoding="utf-8"))
                if isinstance(values, dict) and isinstance(values.get("launch"), dict):
                    found.append((path, values))
    return sorted(found, key=lambda item: (item[1].get("started", 0.0), item[0].name), reverse=True)


def _agent() -> tuple[int, float]:
    """torch's agent that began this process: its number, and when it began itself, as no two have both."""
    if known := os.environ.get(_AGENT):
        process, _, began = known.partition(":")
        return int(process), float(began)
    return os.getppid(), _began(os.getppid())


def _began(process: int) -> float:
    import psutil

    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:  # it has ended
        return 0.0


def outlive_agent() -> None:
    """Where a torchrun of the user's own began this process: let a hang-up end that torchrun, and not the training.

    It kills its processes when its terminal goes away, 30 seconds after it has told them so. Therefore the training takes place
    in a child with a session of its own, which torchrun does not know; this process stands in for it, hands signals on and
    ends as the child does. On a hang-up it says farewell and ends; without a farewell the child ends with it.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or LAUNCHER in os.environ or _AGENT in os.environ:
        return
    if "SIGHUP" not in os.environ.get("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGHUP"):
        return
    process, began = _agent()
    os.environ[_AGENT] = f"{process}:{began}"
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.setsid()
        threading.Thread(target=_end_without_farewell, args=(reading,), name="epochal-agent", daemon=True).start()
        return
    os.close(reading)
    _stand_in(child, writing)


def _end_without_farewell(reading: int) -> None:
    if os.read(reading, 1) != _FAREWELL:
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _stand_in(child: int, writing: int) -> None:
    def hand_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    def leave(_: int, __: FrameType | None) -> None:
        os.write(writing, _FAREWELL)
        os._exit(0)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, hand_on)
    signal.signal(signal.SIGHUP, leave)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def decided(decide: Callable[[], T]) -> T:
    """What rank 0 decides, in all of them; or this process where it is alone."""
    if not together():
        return decide()
    from engine.distributed import first

    value: T = first(decide() if rank() == 0 else None)
    return value


def blamed(error: Exception) -> Exception:
    """This process ends by this error: the others are told; where it only says that another has ended, RankFailed."""
    from engine import distributed

    if distributed._ranks is None or type(error).__name__ == "RankFailed":
        return error
    found = distributed._ranks.failed(error)
    return found if isinstance(found, Exception) else error


def record(error: BaseException) -> None:
    """Leave word of an error for torch's launcher, which tells of the first one."""
    if os.environ.get("TORCHELASTIC_ERROR_FILE"):
        from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

        ErrorHandler().record_exception(error)
