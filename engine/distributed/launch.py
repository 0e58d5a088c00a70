"""Several processes for one training on this machine, begun and watched by torch's own launcher."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from engine.data.workers import available_cpus
from engine.distributed.launched import LAUNCHER, STOPPED
from engine.run.children import child_environment
from engine.signals import handled

_COLLATERAL = (1, -signal.SIGTERM, 128 + signal.SIGTERM)  # how a rank ends of which another's end was the cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """The end of the process that ended the others."""

    rank: int
    process: int
    code: int  # its exit status; negative: the signal
    error: str  # the last line of its traceback, empty where it left none
    printed: str  # before it had a run to print to; of rank 0, whose streams are this process's own, nothing
    together: bool  # whether rank 0 ended with the same exit status
    log: str  # what torch's launcher has to say

    def __str__(self) -> str:
        who = f"rank {self.rank} (process {self.process})"
        if self.error:
            return f"{who} failed: {self.error}"
        if self.code < 0:
            memory = ", perhaps for want of memory" if self.code == -signal.SIGKILL else ""
            return f"{who} was ended by {signal.Signals(-self.code).name}{memory}"
        return f"{who} ended with exit status {self.code}"


class Launch:
    """`processes` processes of one command of the command line.

    The first SIGINT or SIGTERM is handed on to them: each run knows what to do. A second one kills them. A hang-up changes
    nothing: they have sessions of their own, and this process ignores it.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        processes: int,
        *,
        restarts: int = 0,
        prog: str = "epochal",
        heard: Callable[[int], None] = lambda number: None,
    ) -> None:
        """`heard` is told of a signal that was handed on."""
        self.received: int | None = None  # the signal that came first, to this process or to one of them
        self._arguments = ["-P", "-m", "engine", *arguments]
        self._processes, self._restarts, self._prog = processes, restarts, prog
        self._heard = heard

    def run(self) -> Death | None:
        """Return when all have ended: None where they did so as they should, or because of a signal that was handed on."""
        with tempfile.TemporaryDirectory(prefix="epochal-") as logs, self._signals():
            # Where the processes find what this one finds, and how the launcher is known to them:
            stopped = Path(logs, "stopped")
            os.environ.update(child_environment(), **{LAUNCHER: self._prog, STOPPED: str(stopped)})
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // self._processes)))
            with _quiet() as log:
                death = self._run(logs, log)
            if self.received is None and stopped.exists():
                self.received = int(stopped.read_text(encoding="ascii"))
            return death

    def _run(self, logs: str, log: list[str]) -> Death | None:
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        launch = self

        class Logs(DefaultLogsSpecs):
            def reify(self, envs: dict[int, dict[str, str]]) -> Any:
                if launch.received is not None:  # nothing is begun once more after a signal
                    raise SignalException("a signal came", signal.Signals(launch.received))
                return super().reify(envs)

        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self._processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=self._restarts,
            signals_to_handle="SIGQUIT",
            logs_specs=Logs(log_dir=logs, redirects=dict.fromkeys(range(1, self._processes), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)(*self._arguments)
        except ChildFailedError as error:
            log.append(str(error))
            return None if self.received is not None and self._stopped(error.failures) else _death(error.failures, log)
        except SignalException as error:
            self.received = self.received or error.sigval
        return None

    def workers(self) -> list[int]:
        """The processes that train: those of this one's children that lead a session."""
        import psutil

        found = []
        for child in psutil.Process().children():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(child.pid) == child.pid:
                    found.append(child.pid)
        return found

    def _stopped(self, failures: Mapping[int, Any]) -> bool:
        """Whether they ended by the signal alone: it may find them before there is anything to save."""
        assert self.received is not None
        return all(failure.exitcode in (-self.received, 128 + self.received, *_COLLATERAL[1:]) for failure in failures.values())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def hand_on(number: int, _: FrameType | None) -> None:
            again, workers = self.received is not None, self.workers()
            if number != signal.SIGUSR1:
                self.received = self.received or number
                if not workers:
                    os._exit(128 + number)
                if again:
                    from torch.distributed.elastic.multiprocessing import SignalException

                    raise SignalException("once more", signal.SIGKILL)
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, number)
            self._heard(number)

        to_all = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        with handled({**dict.fromkeys(to_all, hand_on), signal.SIGHUP: signal.SIG_IGN}):
            yield


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """What torch's launcher logs, kept for a log instead of printed at a person."""
    import torch.distributed  # noqa: F401  # which gives its loggers handlers of their own

    kept: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(self.format(record))

    logger, handler = logging.getLogger("torch.distributed"), Keep()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield kept
    finally:
        logger.handlers, logger.propagate = before


def _death(failures: Mapping[int, Any], log: Sequence[str]) -> Death:
    """Of all that ended the one that ended the others: torch knows the time of each by the second only."""

    def order(item: tuple[int, Any]) -> tuple[bool, int, int]:
        rank, failure = item
        return not _error(failure) and failure.exitcode in _COLLATERAL, failure.timestamp, rank

    rank, failure = min(failures.items(), key=order)
    return Death(
        rank=rank,
        process=failure.pid,
        code=failure.exitcode,
        error=_error(failure),
        printed="" if rank == 0 else _printed(Path(failure.error_file).parent),
        together=0 in failures and failures[0].exitcode == failure.exitcode,
        log="\n".join(log),
    )


def _error(failure: Any) -> str:
    message = failure.message
    return str(message.get("message", "")) if isinstance(message, dict) else ""


def _printed(directory: Path) -> str:
    texts = []
    for name in ("stdout.log", "stderr.log"):
        with contextlib.suppress(OSError):
            texts.append((directory / name).read_text(encoding="utf-8", errors="replace"))
    return "".join(texts)
