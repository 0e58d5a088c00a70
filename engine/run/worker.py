"""The worker of a queue: it begins one job after another, each in a process of its own, and loads no torch itself.

A job's process writes what came of it. So the worker may be killed at any moment: the job goes on, and the next worker
waits for it before it begins another.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

from engine.errors import RunError
from engine.run.children import child_environment, command
from engine.run.lock import Lock
from engine.run.queue import Job, Process, Queue
from engine.signals import handled

LOOK_SECONDS = 0.2
HEARTBEAT_SECONDS = 30.0
HAND_OVER_SECONDS = 5.0  # in which a worker that has just found nothing more to do is gone
BEGIN_SECONDS = 30.0  # in which a new worker is there
ATTEMPTS = 2  # processes that may die of a job before it is left alone


class Worker:
    """`say` is given one sentence for each thing that happens."""

    def __init__(self, queue: Queue, say: Callable[[str], None]) -> None:
        self.queue = queue
        self.received: int | None = None  # the signal that ended it
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._beat = 0.0

    def work(self) -> int:
        """Train what waits until nothing does, the queue is held or a signal comes; the number of jobs that failed.

        RunError where another worker is there.
        """
        lock = self._lock()
        failures = 0
        try:
            for begun in self.queue.read().jobs:
                if begun.state == "training" and not begun.direct:
                    self._wait_for(begun)
            while self.received is None and (job := self._next()) is not None:
                self._train(job)
                failures += self._came_of(job)
        finally:
            with contextlib.suppress(RunError), self.queue.changing() as contents:  # it may be what failed
                if contents.worker is not None and contents.worker.pid == os.getpid():
                    contents.worker = None
            lock.release()
        return failures

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the job under way, which goes on from there at the next start; one more ends at once."""

        def stop(number: int, _: FrameType | None) -> None:
            signal.signal(number, signal.SIG_DFL)
            self.received = number

        with handled({signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: signal.SIG_IGN}):
            yield

    def _lock(self) -> Lock:
        self.queue.directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.queue.directory / ".worker")
        until = time.monotonic() + HAND_OVER_SECONDS
        while True:
            try:
                if warning := lock.acquire():
                    self._say(warning)
                break
            except RunError as error:
                if time.monotonic() > until:
                    raise RunError(f"the queue has a worker already: {error}") from error
                time.sleep(LOOK_SECONDS)
        with self.queue.changing() as contents:
            contents.worker = Process.this()
        return lock

    def _next(self) -> Job | None:
        """The job to be begun. Where there is none the worker is gone from that moment: who adds one begins another worker."""
        with self.queue.changing() as contents:
            job = next((job for job in contents.jobs if job.state == "waiting" and not job.direct), None)
            if contents.held or job is None:
                contents.worker = None
                return None
        return job

    def _train(self, job: Job) -> None:
        self._child = subprocess.Popen(
            command("queue", "train", str(job.id), "--runs", str(self.queue.root)),
            stdin=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
            cwd=self.queue.root,
        )
        stopped = False
        while self._child.poll() is None:
            if self.received is not None and not stopped:
                stopped = self._stop()
            self._sign()
            time.sleep(LOOK_SECONDS)

    def _stop(self) -> bool:
        """Stop the job under way, for another day. Whether it could be told."""
        if self.queue.stop(hold=False):
            return True
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):  # nothing is trained yet
            os.kill(self._child.pid, signal.SIGTERM)
        return False

    def _sign(self) -> None:
        if time.monotonic() < self._beat:
            return
        self._beat = time.monotonic() + HEARTBEAT_SECONDS
        with self.queue.changing(durable=False) as contents:
            contents.worker = Process.this()

    def _came_of(self, job: Job) -> bool:
        """See to a job whose process has ended; whether it failed."""
        assert self._child is not None
        code, pid = self._child.returncode, self._child.pid
        self._child = None
        now = self._job(job.id)
        if now is None:
            return False
        if now.state == "training" and now.process is not None and now.process.pid == pid:
            why = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            memory = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
            self.queue.conclude(job.id, "failed", f"its process was ended by {why}{memory}")
        elif now.state == "waiting" and not now.attempts and self.received is None and not self.queue.read().held and code:
            self.queue.conclude(
                job.id, "failed", f"its process ended before it began: exit status {code}; see {self.queue.log}"
            )
        now = self._job(job.id)
        if now is not None:
            self._say(f"job {now.id}  {now.name}  {now.state}{f': {now.reason}' if now.reason else ''}")
        return now is not None and now.state == "failed"

    def _wait_for(self, job: Job) -> None:
        """A job that an earlier worker began: its process may be at work still, or have died with that worker."""
        told = stopped = False
        while (now := self._job(job.id)) is not None and now.alive:
            if not told:
                self._say(f"job {job.id}  {job.name}  is still being trained")
                told = True
            if self.received is not None and not stopped:
                self.queue.stop(hold=False)
                stopped = True
            self._sign()
            time.sleep(LOOK_SECONDS)
        if now is None or now.state != "training":
            return
        if now.attempts >= ATTEMPTS:
            self.queue.conclude(
                job.id, "failed", f"its process died {now.attempts} times; epochal queue retry {job.id} tries again"
            )
            self._say(f"job {job.id}  {job.name}  failed: its process died {now.attempts} times")
        else:
            self.queue.update(job.id, lambda job: replace(job, state="waiting", process=None), durable=True)
            self._say(f"job {job.id}  {job.name}  goes on: its process had died")

    def _job(self, number: int) -> Job | None:
        return next((job for job in self.queue.read().jobs if job.id == number), None)


def begin_working(queue: Queue, *, again: bool = True) -> str:
    """Have a worker of this host at work, in the background, in a session of its own; one sentence of what came of it.

    `again`: also where the queue is held, which it is no more then. RunError where it can't begin.
    """
    if again:
        queue.hold(False)
    contents = queue.read()
    if contents.held:
        return "the queue is held: epochal queue start lets it go on"
    if contents.working:
        assert contents.worker is not None
        return f"process {contents.worker.pid} works on the queue"
    if not any(job.state in ("waiting", "training") and not job.direct for job in contents.jobs):
        return "nothing waits in the queue"
    try:
        queue.directory.mkdir(parents=True, exist_ok=True)
        with queue.log.open("ab") as log:
            child = subprocess.Popen(
                command("queue", "work", "--runs", str(queue.root)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=child_environment(),
                cwd=queue.root, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise RunError(f"no worker can be begun: {error.strerror}") from error
    until = time.monotonic() + BEGIN_SECONDS
    while child.poll() is None and time.monotonic() < until:
        worker = queue.read().worker
        if worker is not None and worker.pid == child.pid:
            threading.Thread(target=child.wait, name="epochal-worker", daemon=True).start()  # it leaves no zombie
            return f"process {child.pid} works on the queue"
        time.sleep(LOOK_SECONDS / 4)
    if child.poll() == 0:  # so quickly done
        return "the queue is done"
    raise RunError(f"the worker did not begin; see {queue.log}")


def redirect_output(path: Path) -> None:
    """What this process prints goes into this file from here on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        print(f"epochal: {path.name} can't be written: {error.strerror}", file=sys.stderr)
        return
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.close(descriptor)
