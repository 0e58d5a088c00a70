"""A job of the queue, trained by this process: a recipe, a run that is gone on with, a sweep or a search."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.control import Asks, Control
from engine.errors import EpochalError, RunError
from engine.events import Event, Message, RunEnded, RunStarted
from engine.notify import Call, Notifier
from engine.recipe_text import read_toml
from engine.run import Run, Status
from engine.run.control_file import Inbox, deliver
from engine.run.queue import Job, Part, Queue
from engine.run.worker import redirect_output

if TYPE_CHECKING:
    from engine.search.board import Board

LISTEN_SECONDS = 0.25  # between two looks at what is asked
SHOW_SECONDS = 1.0  # between two looks at what the workers of a search do


class JobTrainer:
    """Trains one job. `begun(run)` is called once, when its first run is under way."""

    def __init__(self, queue: Queue, number: int, begun: Callable[[Run], None] | None = None) -> None:
        self.queue, self.number = queue, number
        self._begun = begun
        self._over = threading.Event()
        self._notifier = Notifier.of_user()
        self._ran = False  # whether a run was under way

    def train(self, watch: Callable[[Control], None]) -> int:
        """`watch` is given what signals are to stop. The exit status: 0 finished or stopped, 1 failed, 2 a mistake."""
        inbox = self.queue.inbox(self.number)
        job = self.queue.claim(self.number)
        try:
            state, reason, status = *self._trained(job, inbox, watch), 0
        except EpochalError as error:
            state, reason, status = "failed", str(error), 2
            print(f"epochal: {reason}", file=sys.stderr)
        except Exception as error:  # of the user's code: the queue goes on
            traceback.print_exc()
            state, reason, status = "failed", f"{type(error).__name__}: {error}", 1
        finally:
            self._over.set()
        if status and not self._ran:  # a run tells of its own end
            self._notifier.call(Call("failure", job.name, f"{job.name} failed: {reason}"))
        self.queue.conclude(self.number, state, reason)
        self._notifier.finish()
        return status or int(state == "failed")

    def _trained(self, job: Job, inbox: Inbox, watch: Callable[[Control], None]) -> tuple[str, str]:
        """The state and the reason of its end."""
        try:
            os.chdir(job.directory)
        except OSError as error:
            raise RunError(f"its directory {job.directory} can't be entered: {error.strerror}") from error
        if job.search:
            return self._search(job, inbox, watch)
        return self._sweep(job, inbox, watch) if job.axes else self._single(job, inbox, watch)

    def _single(self, job: Job, inbox: Inbox, watch: Callable[[Control], None]) -> tuple[str, str]:
        from engine.recipe import Recipe
        from engine.trainer import Trainer

        path = Path(job.run) if job.run else None
        if path is not None and not path.is_dir():
            if not job.recipe:
                raise RunError(f"the run {path} is not there any more")
            path = None
        values = tomllib.loads(job.recipe) if path is None else read_toml(path / "recipe.toml")
        if (processes := dict(values.get("training") or {}).get("processes", 1)) > 1:
            return self._together(processes, job, path, inbox)
        control = Control()
        self._listen(inbox, control, watch)
        if path is None:
            recipe = Recipe.from_dict(tomllib.loads(job.recipe))
            trainer = Trainer.from_recipe(recipe, runs=self.queue.root, control=control)
        elif ended := _finished(path):
            return ended
        else:
            trainer = Trainer.resume(path, control=control)
        run = trainer.run
        assert run is not None
        self._change(lambda job: replace(job, run=str(run.path)))
        trainer.on(RunStarted, lambda _: self._under_way(run))
        self._notifier.watch(trainer)
        result = trainer.fit()
        return result.state, result.reason

    def _together(self, processes: int, job: Job, path: Path | None, inbox: Inbox) -> tuple[str, str]:
        """A run that several processes train; this one begins them, and hands on what is asked."""
        from engine.distributed.found import Found, complete
        from engine.distributed.launch import Launch

        if path is not None and (ended := _finished(path)):
            return ended
        recipe = self.queue.directory / f"job-{job.id}.toml"
        if path is None:
            recipe.write_text(job.recipe, encoding="utf-8")
        what = ["train", str(recipe), "--runs", str(self.queue.root)] if path is None else ["resume", str(path)]
        launching = Launch([*what, "--background"], processes)
        found = Found(launching, None if path is None else Run(path), self.queue.root)

        def begun(run: Run) -> None:
            self._change(lambda job: replace(job, run=str(run.path)))
            self._under_way(run)

        self._listen(inbox, HandedOn(found.run), lambda control: None)
        with found.watching(begun):
            death = launching.run()
        recipe.unlink(missing_ok=True)
        run = found.run()
        if run is None:
            raise RunError(death.printed.removeprefix("epochal: ").strip() or str(death) if death else "it was stopped")
        if death is not None:
            complete(run, death)
        status = Status.read(run.status.path)
        return ("failed" if status["state"] == "died" else status["state"]), status["reason"]

    def _sweep(self, job: Job, inbox: Inbox, watch: Callable[[Control], None]) -> tuple[str, str]:
        from engine.sweep import expand
        from engine.sweep.sweeping import Everyone, Sweep

        members = expand(tomllib.loads(job.recipe), job.axes)
        parts = job.parts or tuple(Part(label=member.label) for member in members)
        self._change(lambda job: replace(job, parts=parts))
        control = Everyone()
        self._listen(inbox, control, watch)
        begun: dict[int, Path] = {}  # those that go on from their checkpoints
        left = [i for i, part in enumerate(parts) if part.state not in ("finished", "failed")]
        for i in [i for i in left if parts[i].run and Path(parts[i].run).is_dir()]:
            begun[i] = Path(parts[i].run)
            if ended := _finished(begun[i]):
                self._part(i, state=ended[0])
                left.remove(i)
        sweep = Sweep(
            [members[i] for i in left],
            runs=self.queue.root,
            control=control,
            notifier=self._notifier,
            begun={at: begun[i] for at, i in enumerate(left) if i in begun},
        )
        places = {id(members[i]): i for i in left}
        sweep.on(Event, lambda member, event: self._told(places[id(member)], event))
        for outcome in sweep.fit():
            if outcome.state == "failed":  # perhaps before there was a run to say so
                self._part(places[id(outcome.member)], state="failed", reason=outcome.reason[:200])
        return self._came_of_all(control)

    def _came_of_all(self, control: Control) -> tuple[str, str]:
        parts = self.queue.read().job(self.number).parts
        failed = sum(part.state == "failed" for part in parts)
        if control.stopping:
            return "stopped", control.stopping
        if failed:
            return "failed", f"{failed} of {len(parts)} runs failed"
        stopped = sum(part.state == "stopped" for part in parts)
        return "finished", f"{stopped} of {len(parts)} runs were stopped" if stopped else ""

    def _search(self, job: Job, inbox: Inbox, watch: Callable[[Control], None]) -> tuple[str, str]:
        from engine.search import optunas
        from engine.search.board import Watch
        from engine.search.folder import Folder
        from engine.search.searching import Search
        from engine.search.team import Team

        optunas.load()
        folder = Folder(job.search)
        workers = folder.plan.workers
        if self._begun is None:
            redirect_output(folder.log_path)
        watched = Watch(folder)

        def show(*_: object) -> None:
            """Keep with the job how far the search is."""
            try:
                board = watched.read(importance=False)
            except EpochalError as error:
                print(f"epochal: {error}", file=sys.stderr)
            else:
                self._change(partial(_as_on, board))

        control: Control
        if workers > 1:
            control = team = Team(folder, workers)
            self._listen(inbox, team, watch)
            while team.working:
                show()
                time.sleep(SHOW_SECONDS)
            for said in (failures := team.failures()):
                print(f"epochal: {said}", file=sys.stderr)
            if len(failures) == workers:
                raise RunError(failures[-1])
        else:
            search = Search(folder)
            control = search.control
            self._listen(inbox, control, watch)
            for kind in (RunStarted, RunEnded):
                search.on(kind, show)
            search.fit()
        show()
        board = watched.read(importance=False)
        self._notifier.call(Call("end" if board.best else "failure", board.name, board.outcome))
        self._ran = True
        if control.stopping or (board.state == "stopped" and folder.plan.minutes is None):
            return "stopped", control.stopping or "the search was stopped"
        return ("failed" if board.best is None else "finished"), board.outcome

    def _told(self, i: int, event: Event) -> None:
        match event:
            case RunStarted():
                assert event.path is not None
                self._part(i, state="training", run=str(Path(event.path).absolute()), how=event.execution)
                self._under_way(Run(Path(event.path)))
            case RunEnded():
                self._part(i, state=event.state, reason="" if event.state == "finished" else event.reason[:200])
            case Message(text=text) if event.level == "info" and "trained" in text:
                self._change(lambda job: replace(job, notes=(*job.notes, text)))

    def _part(self, i: int, **values: Any) -> None:
        self._change(lambda job: replace(job, parts=(*job.parts[:i], replace(job.parts[i], **values), *job.parts[i + 1 :])))

    def _change(self, change: Callable[[Job], Job]) -> None:
        """What the queue's disk does not take is told, and keeps nobody from training."""
        try:
            self.queue.update(self.number, change)
        except RunError as error:
            print(f"epochal: {error}", file=sys.stderr)

    def _under_way(self, run: Run) -> None:
        self._ran = True
        if self._begun is not None:
            self._begun(run)
            self._begun = None
        else:
            redirect_output(run.output_path)

    def _listen(self, inbox: Inbox, control: Control, watch: Callable[[Control], None]) -> None:
        """Hand what is asked of the job to `control`, from a thread, until it is over."""
        watch(control)

        def listen() -> None:
            while not self._over.wait(LISTEN_SECONDS):
                for problem in deliver(inbox, control):
                    print(f"epochal: {problem}", file=sys.stderr)

        threading.Thread(target=listen, name="epochal-listen", daemon=True).start()


class HandedOn(Asks, Control):
    """What is asked goes into the control file of the run that other processes train; a stop reaches them also before that."""

    def __init__(self, run: Callable[[], Run | None]) -> None:
        super().__init__()
        self._run = run

    def tell(self, ask: str, **values: Any) -> None:
        run = self._run()
        try:
            if run is not None:
                return run.tell(ask, **values)
        except RunError:  # it has not begun yet, or is over
            pass
        if ask == "stop":
            os.kill(os.getpid(), signal.SIGTERM)  # which is handed on to whatever is there
        return None


def _as_on(board: Board, job: Job) -> Job:
    """The job of a search, with what its leaderboard says."""
    running = (row for row in board.rows if row.state == "running")
    parts = tuple(Part(label=f"trial {row.number}  {row.label}", state="training", run=row.run) for row in running)
    return replace(job, trials=board.ended, limit=board.limit, best=board.reached, parts=parts)


def _finished(path: Path) -> tuple[str, str] | None:
    """How a run has ended that there is nothing to add to: a job may die between its end and that of its run."""
    run = Run(path)
    run.conclude()
    status = Status.read(run.status.path)
    return (status["state"], status["reason"]) if status["state"] == "finished" else None
