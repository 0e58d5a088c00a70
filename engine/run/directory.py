"""The run directory: one training of one recipe, and all there is to know of it."""

from __future__ import annotations

import builtins
import contextlib
import os
import platform
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import RunError, as_path, nearest
from engine.events import Message
from engine.history import History
from engine.run import control_file, files, strict_json
from engine.run.about import CONFIG, as_config
from engine.run.about import config as config_of
from engine.run.journal import Journal
from engine.run.listing import FILES, RunSummary, age, foreign_below, is_run, last_words, run_directories, summaries
from engine.run.lock import Lock
from engine.run.machine import environment as this_environment
from engine.run.names import make_directory
from engine.run.root import runs_root
from engine.run.status import ALIVE, ENDED, Status
from engine.track.foreign import Foreign, is_foreign

if TYPE_CHECKING:
    from engine.recipe import Recipe, Track
    from engine.run.checkpoints import Checkpoints
    from engine.track.live import Live

_WHY_NOT = {
    "finished": "it has finished",
    "stopped": "it was stopped",
    "failed": "it has failed",
    "died": "its process is gone",
}


class Run:
    """A run directory that exists."""

    def __init__(self, path: Path) -> None:
        self.path = as_path(path, "the run")
        self.name = self.path.resolve().name
        self.recipe_path = self.path / "recipe.toml"
        self.output_path = self.path / "output.log"
        self.journal = Journal(self.path / "journal.jsonl")
        self.status = Status(self.path / "status.json")
        self._live: Live | None = None  # where it was made for a loop of one's own

    # A loop of one's own

    def log(self, step: int, values: Mapping[str, Any], epoch: float | None = None) -> None:
        """Log numbers of one step of your own loop: floats, or tensors of one value, which are not waited for.

        `epoch`, counted from 1, or how many are done (2.4), gives the run its epochs: a row each, with the mean of each
        "train/…" and the last value of all others. Blocks while somebody pauses the run. RunError for what is no number.
        """
        self._logging.log(step, values, epoch)

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked your own loop to end. Blocks while somebody pauses the run."""
        return self._logging.should_stop

    def on(self, kind: type, listener: Callable[[Any], None]) -> None:
        """Call `listener(event)` for each event of that class that your own loop's run states, in a thread of ours."""
        self._logging.on(kind, listener)

    def finish(self, state: str = "finished", reason: str = "the loop came to its end") -> None:
        """The end of your own loop, where no `with` block tells it: "finished", "stopped" or "failed"."""
        if state not in ENDED:
            raise RunError(f"state is {state!r} and must be one of {', '.join(ENDED)}")
        if self._live is not None:
            self._live.end(state, reason)

    def __enter__(self) -> Run:
        self._logging.begin()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._live is not None:
            self._live.leave(error)

    @property
    def _logging(self) -> Live:
        live = self._live
        if live is None:
            raise RunError(f"{self.name} can't be logged to: only the run that Run.create or Run.resume has just given can")
        if live.ended:
            raise RunError(f"{self.name} has ended: nothing can be logged any more")
        return live

    @property
    def own_loop(self) -> bool:
        """Whether somebody's own loop logs it, which only pauses and stops."""
        return (self.path / CONFIG).exists() and not self.recipe_path.exists()

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Set its `keep` before writing. Loads torch."""
        from engine.run.checkpoints import Checkpoints

        return Checkpoints(self.path / "checkpoints")

    @cached_property
    def lock(self) -> Lock:
        """Held by the one who writes the run."""
        return Lock(self.path / ".lock")

    def refuse_if_training(self) -> None:
        """Raise RunError when a process is at work on the run: two would spoil it."""
        try:
            status = self.status.read(self.status.path)
        except RunError:  # none can be read: then none is being written either
            return
        # Of this process the lock knows better: the status may tell of a run that ended when the disk took nothing.
        here = (status["pid"], status["host"]) == (os.getpid(), platform.node())
        if status["state"] in ALIVE and not here:
            raise RunError(f"{self.path} is being trained by process {status['pid']} on {status['host']}")

    @cached_property
    def foreign(self) -> bool:
        """Whether another tool wrote it: event files or CSV, which are only looked at."""
        return not any((self.path / name).exists() for name in FILES) and is_foreign(self.path)

    def refuse_if_foreign(self) -> None:
        """Raise RunError where another tool wrote it."""
        if self.foreign:
            raise RunError(f"{self.name} was written by another tool: it can be looked at, and nothing else")

    def refuse_without_recipe(self, wanted: str = "go on with it") -> None:
        """Raise RunError where only the program that made the run can do what is `wanted`."""
        self.refuse_if_foreign()
        if not self.recipe_path.exists():
            raise RunError(f"{self.name} has no recipe: it was made by a program, and only that can {wanted}")

    def conclude(self) -> None:
        """Write what the journal says of the end into the status, where the process was killed before it could."""
        status = self.status.read(self.status.path)
        words = last_words(self.path) if status["state"] == "died" else {}
        if words:
            kept = {key: status[key] for key in ("epochs", "monitor", "mode", "started")}
            self.status.write(**{**kept, **words})

    def tell(self, ask: str, **values: Any) -> None:
        """Ask the process that trains this run for "pause", "resume", "stop" (reason=…), "checkpoint", "validate" or "set"
        (field=…, value=…, times=…, see `engine.changes`). It is done after the step under way.

        RunError, in one sentence, when there is no such process, or it is no request.
        """
        self.refuse_if_foreign()
        status = self.status.read(self.status.path)
        if status["state"] not in ALIVE:
            raise RunError(f"{self.name} is not being trained: {_WHY_NOT.get(status['state'], status['reason'])}")
        if ask in ("checkpoint", "validate", "set") and self.own_loop:
            raise RunError(f"{self.name} is a loop of its own, which can be paused and stopped, not asked to {ask}")
        control_file.tell(self.path / "control.jsonl", ask, **values)

    @staticmethod
    def create(
        root: Path | str,
        name: str,
        recipe_toml: str | None = None,
        environment: Mapping[str, Any] | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        monitor: str = "val/loss",
        mode: str = "",
        track: Track | None = None,
    ) -> Run:
        """Make the directory of a new run below `root`, named by local time and `name`, with its recipe and environment.

        Without a recipe it is for a loop of your own:

            with Run.create("runs", name="mine", config={"lr": 3e-4}) as run:
                for step in range(1, 1001):
                    ...
                    run.log(step, {"train/loss": loss})
                    if run.should_stop:
                        break

        config: what tells this run from others, in lists and comparisons. epochs, steps: how many there will be, where that
        is known. monitor: what decides where the run was best, by the least or the largest as `mode` ("min", "max") has it;
        left out, as the metric's name has it. track: who else is told, as [track] of a recipe has it.
        environment: JSON values; left out, those of `engine.run.environment()`. RunError when it can't be made.
        """
        plan = None
        if recipe_toml is None:
            from engine.track.live import Live, Plan

            plan = Plan(
                name=name, epochs=epochs, steps=steps, monitor=monitor, mode=mode, config=as_config(config), track=track
            )
        root = as_path(root, "the directory of the runs")
        run: Run | None = None
        try:
            root.mkdir(parents=True, exist_ok=True)
            run = Run(make_directory(root, name))
            files.sync(root)
            run._describe(recipe_toml, environment)
        except OSError as error:
            if run is not None:
                _clear(run.path)
            raise RunError(f"can't make a run directory in {root}: {error.strerror}") from error
        if plan is not None:
            run._live = Live(run, plan)
        return run

    @staticmethod
    def of_recipe(root: Path | str, recipe: Recipe, **about: Any) -> Run:
        """`create` for a recipe; `about` goes into its environment.json too."""
        known = this_environment() | {"differs": recipe.differs(), **about}
        return Run.create(root, recipe.name, recipe.to_toml(), known)

    @staticmethod
    def resume(
        which: Path | str,
        step: int | None = None,
        *,
        root: Path | str | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        track: Track | None = None,
    ) -> Run:
        """Go on with the run of a loop of your own, `which` and `root` as `open` takes them, after `step`: that of the
        checkpoint your loop goes on from. Left out, after the last one.

        What was logged later is dropped. Epochs go on being counted as they were; an epoch that was cut short gets its row
        from what comes now. epochs, steps: how many there will be in all, where that is another number than before. track: who
        else is told, as in `create`. RunError for a run with a recipe (that is for `Trainer.resume`), one at work, a step that
        it never had.
        """
        from engine.track.again import earlier
        from engine.track.live import Live, Plan

        run = Run.open(which, root)
        before = earlier(run, step)
        run.refuse_if_training()
        began = before.started
        run._live = Live(
            run,
            Plan(
                name=began.name,
                epochs=epochs or began.epochs or None,
                steps=steps or began.total_steps,
                monitor=began.monitor,
                mode=began.mode,
                config=config_of(run.path),
                track=track,
                earlier=before,
            ),
        )
        return run

    @staticmethod
    def at(path: Path | str) -> tuple[Run, bool]:
        """The run at exactly this path, and whether it was there before; it is made where there is nothing.

        RunError when something else is there.
        """
        path = as_path(path, "run_dir")
        if any((path / name).exists() for name in FILES):
            return Run(path), True
        run, there = Run(path), path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RunError(f"{path} is not empty and not a run directory")
            run._describe(None, None)
        except OSError as error:
            _clear(*(path / name for name in FILES))
            if not there and path.is_dir() and not any(path.iterdir()):
                _clear(path)
            raise RunError(f"can't make the run directory {path}: {error.strerror}") from error
        return run, False

    @staticmethod
    def open(which: Path | str | Run, root: Path | str | None = None) -> Run:
        """The run at a path, or the one below `root` of that name, of which it is an unambiguous part, or the "last" one.

        root: as `runs_root` gives it when left out. RunError names what there is instead.
        """
        if isinstance(which, Run):
            return Run(which.path)
        root, path = runs_root(root), as_path(which, "the run")
        if which == "last":
            runs = Run.list(root, patience=0.0)
            if not runs:
                raise RunError(f"there is no run in {root}")
            return Run(max(runs, key=age).path)
        for there in (path, root / path):
            if is_run(there) or is_foreign(there):
                return Run(there)
        names = [path.name for path in run_directories(root)]
        names += [path.relative_to(root).as_posix() for path in foreign_below(root)]
        found = [name for name in names if str(which) in name]
        if len(found) == 1:
            return Run(root / found[0])
        if found:
            shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
            raise RunError(f"{str(which)!r} fits {len(found)} runs in {root}: {shown}")
        if path.exists():
            raise RunError(f"{which} is not a run directory")
        # People remember the name, not the time: compare with both, with and without.
        known = {name.partition("-")[2].partition("-")[2]: name for name in names} | {name: name for name in names}
        raise RunError(f"there is no run {str(which)!r} in {root}{nearest(str(which), known)}")

    @staticmethod
    def list(root: Path | str, patience: float = 60.0) -> builtins.list[RunSummary]:
        """The runs below `root`, those at work first, then the newest first; none where there is no such directory.

        What other tools wrote is read for so many seconds at most, and more of it at the next call.
        """
        return summaries(Path(root), patience)

    def _describe(self, recipe_toml: str | None, environment: Mapping[str, Any] | None) -> None:
        values = this_environment() if environment is None else environment
        files.write_atomically(self.path / "environment.json", strict_json.encode(values, indent=1))
        if recipe_toml is not None:
            files.write_atomically(self.recipe_path, recipe_toml.encode())
        self.status.write("starting")


def load_history(run: Run) -> History:
    """What the run's journal tells; a line that can't be read is a warning in it."""
    history = History()
    if run.foreign:
        theirs = Foreign(run.path)
        theirs.poll()
        return theirs.history
    events, problems = Journal.read(run.journal.path)
    for event in [*events, *(Message(text=problem, level="warning") for problem in problems)]:
        history.apply(event)
    return history


def _clear(*paths: Path) -> None:
    """Take back what a disk left half made."""
    for path in paths:
        with contextlib.suppress(OSError):
            files.remove(path)
