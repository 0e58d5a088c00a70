"""`queue`: recipes, sweeps and interrupted runs, trained one after another by a process in the background."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import format
from engine.cli.output import Stream
from engine.cli.recipes import recipe_values
from engine.cli.show import print_json
from engine.cli.signals import Signals
from engine.errors import EpochalError, RunError
from engine.run import Run, RunSummary, runs_root
from engine.run.queue import Job, Queue
from engine.run.status import ENDED
from engine.run.worker import Worker, begin_working
from engine.sweep import Axis, count

if TYPE_CHECKING:
    from engine.search.folder import Folder


def queue(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """One of the actions on the queue; the list where none is named."""
    action = arguments.action or "list"
    if arguments.json and action != "list":
        raise EpochalError(f"--json is for the list of the queue, and {action} prints none")
    act: Callable[[Queue, argparse.Namespace, Stream, Stream], int] = _ACTIONS[action]
    return act(Queue(runs_root(arguments.runs)), arguments, out, err)


def _add(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    recipes = [item for item in arguments.what if "=" not in item]
    axes = tuple(item for item in arguments.what if "=" in item)
    if arguments.resume and (recipes or axes):
        raise EpochalError("--resume takes runs that are gone on with, and no recipe besides")
    jobs = [resuming(which, queue.root) for which in arguments.resume]
    for recipe in [] if jobs else recipes or [None]:
        arguments.recipe = recipe
        values = recipe_values(arguments)
        if axes and values.get("search") is not None:
            raise EpochalError("several values are a sweep, and the recipe has a [search]: one of them at a time")
        jobs.append(job_of(values, axes, queue.root))
    for job in queue.add(jobs, first=arguments.first):
        out.line(f"job {job.id}  {job.name}{_runs_of(job)}")
    if not arguments.hold:
        out.line(begin_working(queue, again=False))
    return 0


def job_of(values: dict[str, object], axes: tuple[str, ...] = (), root: Path | None = None) -> Job:
    """A recipe with every default written out, a sweep, or the search that [search] tells of, which has a folder from now on.

    RecipeError for each mistake there is.
    """
    from engine.recipe import Recipe
    from engine.recipe_text import to_toml

    if values.get("search") is not None and not axes:
        from engine.search.folder import Folder

        return searching(Folder.create(values, root))
    if not axes:
        recipe = Recipe.from_dict(values)
        return Job(name=recipe.name, recipe=recipe.to_toml())
    from engine.sweep import expand

    expand(values, axes)
    return Job(name=str(values.get("name", Recipe().name)), recipe=to_toml(values), axes=axes)


def searching(folder: Folder) -> Job:
    """A search that is begun or gone on with."""
    return Job(name=folder.name, search=str(folder.path))


def resuming(which: Path | str, root: Path) -> Job:
    """A search, or a run from its last checkpoint, that is gone on with. RunError where it can't be."""
    from engine.run import Status
    from engine.search.folder import SEARCHES, Folder, is_search

    for path in (Path(which), root / SEARCHES / which):
        if is_search(path):
            return searching(Folder(path))
    run = Run.open(which, root)
    run.refuse_if_foreign()
    status = Status.read(run.status.path)
    run.refuse_if_training()
    run.refuse_without_recipe()
    if status["state"] == "finished":
        raise RunError(f"{run.name} has finished: there is nothing to go on with")
    return Job(name=run.name, run=str(run.path.absolute()))


def _list(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    contents = queue.read()
    jobs = [job.shown for job in contents.jobs]
    if arguments.json:
        shown = [{**dataclasses.asdict(job), "alive": job.alive} for job in jobs]
        print_json(out, {"held": contents.held, "working": contents.working, "jobs": shown})
        return 0
    summaries = {str(run.path.absolute()): run for run in Run.list(queue.root)} if jobs else {}
    rows = [("job", "state", "name", "progress", "best", "run"), *(_row(job, summaries) for job in jobs)]
    out.rows(format.table(rows) if jobs else [f"nothing is queued in {runs_root(arguments.runs)}"])
    for job in jobs:
        for note in (*job.notes, *([f"{job.state}: {job.reason}"] if job.reason and job.state != "finished" else [])):
            out.line(f"job {job.id}: {note}")
    if jobs or contents.held or contents.working:
        where = f" --runs {shlex.quote(arguments.runs)}" if arguments.runs else ""
        out.line(_standing(contents.held, contents.working, jobs, f"{arguments.prog} queue{where} start"))
    return 0


def _standing(held: bool, working: bool, jobs: list[Job], start: str) -> str:
    """What the queue does, in one sentence; `start` is the command that begins it."""
    waiting = sum(job.state in ("waiting", "died") and not job.direct for job in jobs)
    if working:
        return f"at work{', and begins nothing else: it is held' if held else ''}"
    if held:
        return f"held: {start} lets it go on"
    return f"nobody works on it: {start}" if waiting else "nothing waits"


def _row(job: Job, summaries: dict[str, RunSummary]) -> tuple[str, ...]:
    run = summaries.get(job.run)
    if job.axes:
        over = sum(part.state in ENDED for part in job.parts)
        return (str(job.id), job.state, f"{job.name}{_runs_of(job)}", f"{over}/{len(job.parts) or _count(job)} runs", "", "")
    if job.search:
        of = f"{job.trials}{f'/{job.limit}' if job.limit else ''} trials"
        return str(job.id), job.state, job.name, of, job.best, ""
    progress = "" if run is None else f"{run.epoch}/{run.epochs or '?'} epochs"
    value = None if run is None else run.best.get(run.monitor)
    best = f"{format.metric_name(run.monitor)} {format.value(value)}" if run is not None and value is not None else ""
    return str(job.id), job.state, job.name, progress, best, Path(job.run).name if job.run else ""


def _count(job: Job) -> int:
    return count([Axis.parse(axis) for axis in job.axes])


def _runs_of(job: Job) -> str:
    return f"  {' '.join(job.axes)}  ({_count(job)} runs)" if job.axes else ""


def _remove(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    for job in queue.remove(arguments.jobs):
        out.line(f"job {job.id}  {job.name}  is removed")
    return 0


def _clear(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    out.line(f"{format.counted(len(queue.clear()), 'job')} removed; what they have trained stays")
    return 0


def _move(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    queue.move(arguments.job, arguments.step)
    return _list(queue, arguments, out, err)


def _retry(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    for job in queue.retry(arguments.jobs):
        out.line(f"job {job.id}  {job.name}  waits")
    out.line(begin_working(queue, again=False))
    return 0


def _start(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    if not arguments.foreground:
        out.line(begin_working(queue))
        return 0
    queue.hold(False)
    return _work(queue, arguments, out, err)


def _work(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    def say(text: str) -> None:
        out.line(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}")

    worker = Worker(queue, say)
    with worker.signals():
        failures = worker.work()
    return 128 + worker.received if worker.received is not None else int(failures > 0)


def _train(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    from engine.jobs import JobTrainer

    with Signals() as signals:
        return JobTrainer(queue, arguments.job).train(signals.watch)


def _hold(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    queue.hold()
    out.line("held: what is under way goes on, nothing else is begun")
    return 0


def _stop(queue: Queue, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    if arguments.jobs:
        for number in arguments.jobs:
            job = queue.tell(number, "stop", reason="stopped from another process")
            out.line(f"job {number}  {job.name}  is asked to stop")
        return 0
    stopped = queue.stop()
    for job in stopped:
        out.line(f"job {job.id}  {job.name}  stops with a checkpoint and goes on when the queue is started")
    if not stopped:
        out.line("nothing is under way; the queue is held")
    return 0


_ACTIONS = {
    "add": _add, "list": _list, "remove": _remove, "clear": _clear, "move": _move, "retry": _retry, "start": _start,
    "hold": _hold, "stop": _stop, "work": _work, "train": _train,
}  # fmt: skip
