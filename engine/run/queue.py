"""The queue of a runs directory: recipes that a worker process trains one after another, whoever queued them is gone or not.

`.queue/queue.json` holds all of it and is replaced atomically. Whoever changes it holds a lock for as long as that takes.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import psutil

from engine.errors import RunError, plain
from engine.run import control_file, files, strict_json
from engine.run.lock import one_at_a_time
from engine.run.status import ENDED, SILENCE_SECONDS, Status, at_work

STATES = ("waiting", "training", *ENDED)
_changing = threading.RLock()  # a POSIX lock does not keep out another thread of its own process


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that works for the queue."""

    pid: int
    process_started: float
    host: str
    heartbeat: float

    @classmethod
    def this(cls) -> Process:
        """The one that asks."""
        started = psutil.Process().create_time()
        return cls(pid=os.getpid(), process_started=started, host=platform.node(), heartbeat=time.time())

    @property
    def alive(self) -> bool:
        """Whether it is at work; of one on another host, whether it said so lately."""
        if self.host == platform.node():
            return at_work(asdict(self))
        return time.time() - self.heartbeat < SILENCE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One run of a sweep. `how` is the way its steps are executed, once it has begun: "population of 8", say."""

    label: str  # "lr=1e-3 seed=0"
    state: str = "waiting"
    run: str = ""
    how: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is queued: a recipe, a sweep of one (`axes`), a `search`, or a run to be gone on with (`run`, without a recipe).

    `state` is "waiting", "training", "finished", "stopped", "failed" or, as it is read, "died": its process is gone.
    """

    name: str
    recipe: str = ""  # TOML, as it was when it was queued
    axes: tuple[str, ...] = ()
    search: str = ""  # the folder of a search, which has the recipe
    directory: str = ""  # where it is trained: what the recipe names by a path is found from there
    id: int = 0
    added: float = 0.0
    state: str = "waiting"
    direct: bool = False  # a sweep that was begun at once, beside the queue
    run: str = ""  # the path, once there is one
    reason: str = ""
    attempts: int = 0  # how often a process has begun it, since one ended it in order
    again: bool = False  # when it has stopped, it waits for the next start
    process: Process | None = None  # that trains it
    parts: tuple[Part, ...] = ()  # of a sweep; of a search the trials under way
    trials: int = 0  # of a search, that have ended
    limit: int | None = None  # of these; None: as many as there is time for, or it has not begun
    best: str = ""  # of a search: "val/loss 0.1234 in trial 7"
    notes: tuple[str, ...] = ()  # what of a sweep trains together, what one after another
    began: float = 0.0
    ended: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether its process is at work."""
        if self.state not in ("waiting", "training") or self.process is None:
            return False
        return self.process.alive or (
            self.process.host != platform.node() and any(Status.alive(run / "status.json") for run in self.runs)
        )

    @property
    def runs(self) -> tuple[Path, ...]:
        """The directories of its runs, as far as they have begun."""
        return tuple(Path(run) for run in (self.run, *(part.run for part in self.parts)) if run)

    @property
    def shown(self) -> Job:
        """As a person is to see it: "died" where its process is gone."""
        if self.alive or not (self.state == "training" or (self.direct and self.state == "waiting")):
            return self
        on = f"epochal queue retry {self.id} goes on with it" if self.direct else "it goes on when the queue is started"
        return replace(self, state="died", reason=f"its process is gone; {on}")


@dataclass(slots=True)
class Contents:
    """All that queue.json says."""

    jobs: list[Job] = field(default_factory=list)
    held: bool = False  # nothing is to be begun
    next: int = 1  # the number of the next job
    worker: Process | None = None

    def job(self, number: int) -> Job:
        """The job of that number. RunError where there is none."""
        for job in self.jobs:
            if job.id == number:
                return job
        numbers = ", ".join(str(job.id) for job in self.jobs)
        raise RunError(f"there is no job {number} in the queue" + (f": there are {numbers}" if numbers else ""))

    def put(self, job: Job) -> None:
        """In place of the job of the same number."""
        self.jobs[self.jobs.index(self.job(job.id))] = job

    @property
    def working(self) -> bool:
        """Whether a worker is there."""
        return self.worker is not None and self.worker.alive


class Queue:
    """The queue of the runs below `root`. Every method is whole: what is changed is on the disk when it returns."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        self.directory = self.root / ".queue"
        self.path = self.directory / "queue.json"
        self.log = self.directory / "worker.log"

    def read(self) -> Contents:
        """What there is now. RunError where it can't be read."""
        return strict_json.kept(self.path, _contents, "without the file the queue is empty") or Contents()

    def add(self, jobs: Iterable[Job], *, first: bool = False) -> list[Job]:
        """Put these at the end, or before all that wait, in the directory in which this process works.

        A direct one is this process's from the beginning.
        """
        with self.changing() as contents:
            made = []
            for given in jobs:
                directory = given.directory or str(Path.cwd())
                job = replace(given, id=contents.next, added=time.time(), directory=directory)
                made.append(replace(job, process=Process.this()) if job.direct else job)
                contents.next += 1
            at = _first_waiting(contents.jobs) if first else len(contents.jobs)
            contents.jobs[at:at] = made
        return made

    def remove(self, numbers: Sequence[int]) -> list[Job]:
        """Take these out; what they have trained stays. RunError where one is under way."""
        with self.changing() as contents:
            found = [contents.job(number) for number in numbers]
            for job in found:
                if job.alive:
                    raise RunError(f"job {job.id} is being trained: stop it first")
            contents.jobs = [job for job in contents.jobs if job.id not in numbers]
        for number in numbers:
            self._control(number).unlink(missing_ok=True)
        return found

    def clear(self) -> list[Job]:
        """Take out all that have ended."""
        return self.remove([job.id for job in self.read().jobs if job.state in ENDED])

    def move(self, number: int, step: int) -> None:
        """Earlier (a negative step) or later among those that wait."""
        with self.changing() as contents:
            job = contents.job(number)
            if job.state != "waiting":
                raise RunError(f"job {number} does not wait: it is {job.shown.state}")
            places = [i for i, other in enumerate(contents.jobs) if other.state == "waiting"]
            waiting = [contents.jobs[i] for i in places]
            at = waiting.index(job)
            waiting.insert(max(0, min(len(waiting) - 1, at + step)), waiting.pop(at))
            for i, other in zip(places, waiting, strict=True):
                contents.jobs[i] = other

    def retry(self, numbers: Sequence[int]) -> list[Job]:
        """Have these wait again, at the end: they go on from their last checkpoints, or begin anew."""
        with self.changing() as contents:
            made = []
            for job in [contents.job(number) for number in numbers]:
                if job.shown.state == "waiting" or job.alive:
                    raise RunError(f"job {job.id} is {job.state} already")
                if job.state == "finished":
                    raise RunError(f"job {job.id} has finished: queue its recipe once more")
                contents.jobs.remove(job)
                parts = tuple(part if part.state == "finished" else replace(part, state="waiting") for part in job.parts)
                made.append(
                    replace(job, state="waiting", reason="", attempts=0, direct=False, parts=parts, process=None, ended=0.0)
                )
            contents.jobs += made
        return made

    def hold(self, held: bool = True) -> None:
        """Begin nothing from now on, or go on."""
        with self.changing() as contents:
            contents.held = held

    def stop(self, *, hold: bool = True) -> list[Job]:
        """Stop what is under way, with a checkpoint from which the next start goes on; `hold`: begin nothing else."""
        with self.changing() as contents:
            contents.held = contents.held or hold
            found = [replace(job, again=True) for job in contents.jobs if job.alive and not job.direct]
            for job in found:
                contents.put(job)
        for job in found:
            self._tell(job, "stop", reason="the queue was stopped")
        return found

    def tell(self, number: int, ask: str, **values: Any) -> Job:
        """Ask the process that trains this job for "pause", "resume", "stop" … RunError where there is none."""
        job = self.read().job(number)
        if not job.alive:
            raise RunError(f"job {number} is not being trained: it is {job.shown.state}")
        self._tell(job, ask, **values)
        return job

    # For the processes that work.

    def claim(self, number: int) -> Job:
        """This process trains it from now on. RunError where it does not wait any more."""
        with self.changing() as contents:
            job = contents.job(number)
            if job.state != "waiting":
                raise RunError(f"job {number} does not wait: it is {job.state}")
            began = job.began or time.time()
            job = replace(job, state="training", attempts=job.attempts + 1, process=Process.this(), began=began, again=False)
            contents.put(job)
        return job

    def update(self, number: int, change: Callable[[Job], Job], *, durable: bool = False) -> None:
        """Change a job, if it is still there."""
        with self.changing(durable=durable) as contents:
            for job in contents.jobs:
                if job.id == number:
                    contents.put(change(job))

    def conclude(self, number: int, state: str, reason: str = "") -> None:
        """The process that trains it has come to an end with it."""

        def end(job: Job) -> Job:
            again = job.again and state == "stopped"
            parts = tuple(replace(part, state="waiting") if again and part.state == "stopped" else part for part in job.parts)
            return replace(
                job, state="waiting" if again else state, reason="" if again else plain(reason)[:500], attempts=0, again=False,
                process=None, ended=0.0 if again else time.time(), parts=parts,
            )  # fmt: skip

        self.update(number, end, durable=True)

    def inbox(self, number: int) -> control_file.Inbox:
        """What is asked of this job from now on."""
        return control_file.Inbox(self._control(number))

    def _control(self, number: int) -> Path:
        return self.directory / f"control-{number}.jsonl"

    def _tell(self, job: Job, ask: str, **values: Any) -> None:
        control_file.tell(self._control(job.id), ask, **values)

    @contextlib.contextmanager
    def changing(self, *, durable: bool = True) -> Iterator[Contents]:
        """What is in the queue, to be changed in place; written when the block ends without an error."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.directory} can't be written: {error.strerror}") from error
        with _changing, one_at_a_time(self.directory / "change.lock"):  # without locks: renaming is atomic there too
            contents = self.read()
            before = _values(contents)
            yield contents
            values = _values(contents)
            if values != before:
                try:
                    files.write_atomically(self.path, strict_json.encode(values, indent=1), durable=durable)
                except OSError as error:
                    raise RunError(f"{self.path} can't be written: {error.strerror}") from error


def _first_waiting(jobs: Sequence[Job]) -> int:
    return next((i for i, job in enumerate(jobs) if job.state == "waiting"), len(jobs))


def _values(contents: Contents) -> dict[str, Any]:
    worker = contents.worker and asdict(contents.worker)
    jobs = [{key: value for key, value in asdict(job).items() if value != _DEFAULTS.get(key, ...)} for job in contents.jobs]
    return {"held": contents.held, "next": contents.next, "worker": worker, "jobs": jobs}


def _contents(values: Any) -> Contents:
    worker = values["worker"] and _made(Process, values["worker"])
    return Contents([_job(job) for job in values["jobs"]], bool(values["held"]), int(values["next"]), worker)


def _job(values: Mapping[str, Any]) -> Job:
    made = dict(values)
    if made.get("process"):
        made["process"] = _made(Process, made["process"])
    made["parts"] = tuple(_made(Part, part) for part in made.get("parts", ()))
    job: Job = _made(Job, {**made, "axes": tuple(made.get("axes", ())), "notes": tuple(made.get("notes", ()))})
    if job.state not in STATES:
        raise ValueError(f"job {job.id} is {job.state!r}")
    return job


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    """What a later version may have written besides is left out."""
    known = {item.name for item in fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in known})


_DEFAULTS = {item.name: item.default for item in fields(Job) if item.name not in ("id", "name", "state")}
