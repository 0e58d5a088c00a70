"""The console's one door to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.catalog.fields import Section
from engine.errors import Problem, RecipeError
from engine.run.children import command

if TYPE_CHECKING:
    from engine.control import Control
    from engine.history import History
    from engine.inference.evaluation import Evaluation
    from engine.run.queue import Job, Queue
    from engine.run.scores import Scores
    from engine.saved_recipes import SavedRecipes
    from engine.search.board import Board
    from tui.background import Starting
    from tui.dry_run import DryRun
    from tui.evaluating import Evaluating
    from tui.exporting import Exporting
    from tui.finding import Finding
    from tui.writing import Writing


class Trains(Protocol):
    """What a session needs of a trainer."""

    run: Any

    @property
    def history(self) -> History: ...

    def on(self, kind: type, listener: Callable[[Any], None], /) -> object: ...

    def fit(self) -> object: ...


class Follows(Protocol):
    """What following a run needs of its follower."""

    @property
    def history(self) -> History: ...

    @property
    def alive(self) -> bool: ...

    def poll(self) -> object: ...


PATIENCE = 0.2  # seconds that a list may read of what other tools wrote; the rest comes with the next one


class Watches(Protocol):
    """What looks at a search."""

    def read(self, *, importance: bool) -> Board: ...


class Engine:
    """The console's one door to the engine. Every method imports what it needs when it is called."""

    check: Sequence[str] = command("check")  # the command of a dry run
    find_command: Sequence[str] = command("find-lr")
    export_command: Sequence[str] = command("export")
    evaluate_command: Sequence[str] = command("evaluate")
    resume_command: Sequence[str] = command("resume")
    train_command: Sequence[str] = command("train")
    search_command: Sequence[str] = command("search")
    sweep_command: Sequence[str] = command("sweep")

    def __init__(self, runs: Path | None = None) -> None:
        self.runs = runs

    def load(self) -> None:
        """Import what assembling needs. Takes seconds: called in a thread after the first frame."""
        from tui.preload import import_all

        import_all()

    def sections(self, values: Mapping[str, Any], *, light: bool) -> tuple[Section, ...]:
        """The form's groups for these values; `light` ones have no fields for which torch must be loaded."""
        from engine.catalog import sections

        return sections(values, light=light)

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with every default written out."""
        from engine.recipe import Recipe

        return Recipe.from_dict(values).to_dict()

    def problems(self, values: Mapping[str, Any]) -> tuple[Problem, ...]:
        """Every mistake that can be found without building anything."""
        from engine.catalog import problems

        return problems(values)

    def summary(self, kind: str, name: str) -> str:
        """What the catalog says of a name; nothing of one's own code."""
        from engine.catalog import entries

        return next((entry.summary for entry in entries(kind) if entry.name == name), "")

    def dry_run(self, values: Mapping[str, Any], axes: Sequence[str] = ()) -> DryRun:
        """A dry run of these values, started; with `axes` it says how the sweep would be trained."""
        from tui.dry_run import DryRun

        return DryRun(self.check, values, axes)

    def measure(self, values: Mapping[str, Any], axes: Sequence[str]) -> DryRun:
        """A dry run that nobody asked for, and that gives way to whatever else there is to do."""
        run = self.dry_run(values, axes)
        run.give_way()
        return run

    def unmeasured(self, values: Mapping[str, Any]) -> str:
        """Why these values are not to be measured unasked; "" where they may be."""
        from engine.run.status import ALIVE

        model, data = values.get("model", {}), values.get("data", {})
        if data.get("name") in ("torchvision", "huggingface") or model.get("pretrained"):
            return "something may have to be downloaded"
        return "a run is training" if any(run.state in ALIVE for run in self.list_runs()) else ""

    def find_lr(self, values: Mapping[str, Any]) -> Finding:
        """A learning-rate range test of these values, started."""
        from tui.finding import Finding

        return Finding(self.find_command, values)

    def script(self, values: Mapping[str, Any]) -> Writing:
        """The plain script of these values, about to be written."""
        from tui.writing import Writing

        return Writing(self.export_command, values)

    def evaluate(self, path: Path, checkpoint: str = "") -> Evaluating:
        """An evaluation of a run's model, started."""
        from tui.evaluating import Evaluating

        return Evaluating(self.evaluate_command, path, checkpoint)

    def export(self, path: Path, file: str, format: str, *, force: bool = False) -> Exporting:
        """An export of a run's model to a file, started."""
        from tui.exporting import Exporting

        return Exporting(self.export_command, path, file, format, force=force)

    def evaluation_of(self, path: Path) -> Evaluation | None:
        """The last one that the run keeps. Raises RunError where it can't be read."""
        from engine.inference.evaluation import Evaluation

        return Evaluation.kept(path)

    def train(self, values: Mapping[str, Any], control: Control) -> Trains:
        """A trainer for a new run. Raises RecipeError."""
        from engine.recipe import Recipe
        from engine.trainer import Trainer

        return Trainer.from_recipe(Recipe.from_dict(dict(values)), runs=self.root, control=control)

    def resume(self, path: Path, epochs: int | None, control: Control) -> Trains:
        """A trainer that goes on from the last checkpoint of a run. Raises RunError, CheckpointError or RecipeError."""
        from engine.trainer import Trainer

        return Trainer.resume(path, epochs=epochs, control=control)

    def fork(self, path: Path, step: int, values: Mapping[str, Any], control: Control) -> Trains:
        """A trainer for a new run that begins at a checkpoint of another. Raises as `resume`."""
        from engine.recipe import Recipe
        from engine.trainer import Trainer

        return Trainer.fork(path, Recipe.from_dict(dict(values)), step=step, runs=self.root, control=control)

    @property
    def root(self) -> Path:
        """The directory of all runs."""
        from engine.run import runs_root

        return runs_root(self.runs)

    def list_runs(self) -> list[Any]:
        """One RunSummary a run, as `Run.list` gives them."""
        from engine.run import Run

        return Run.list(self.root, patience=PATIENCE)

    @cached_property
    def scores(self) -> Scores:
        """What every run reached, for the thread that lists them."""
        from engine.run.scores import Scores

        return Scores()

    def checkpoints(self, path: Path) -> list[tuple[int, str]]:
        """The steps of a run's checkpoints, the newest first, and which is "last" or "best"."""
        from engine.run import manage

        return manage.steps(path)

    def tag(self, path: Path, text: str) -> None:
        """Keep a line of text with a run. RunError."""
        from engine.run import Run, manage

        manage.tag(Run(path), text)

    def rename(self, path: Path, name: str) -> Path:
        """Give a run another name; where it is then. RunError."""
        from engine.run import Run, manage

        return manage.rename(Run(path), name).path

    def delete(self, path: Path) -> None:
        """Remove a run that is not at work. RunError."""
        from engine.run import Run, manage

        manage.delete(Run(path))

    def parent_of(self, path: Path) -> Path | None:
        """The directory of the run that this one was forked from, if it is still there."""
        from engine.run.about import about

        of = Path(about(path).parent_path)
        return of if of.name and of.is_dir() else None

    def with_settings(self, values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
        """A recipe's values after `optimizer.lr=3e-4` and the like. Raises RecipeError for every mistake in the result."""
        from engine.catalog import problems
        from engine.recipe_text import apply_settings

        changed = apply_settings(values, settings)
        if found := problems(changed):
            raise RecipeError(found)
        return changed

    def only_one(self, at: Path) -> Path | None:
        """Of a place with runs of ours or of other tools the one that there is; None of several. RunError where nothing is."""
        from engine.run.choose import runs_in

        found = runs_in(at)
        if at.is_file():
            self.runs = at.parent
        return found[0] if len(found) == 1 else None

    def find(self, which: str) -> Path:
        """The directory of a run by its path, name or a part of it; for "" of the newest at work, else the newest."""
        from engine.run import Run

        runs = [] if which else self.list_runs()
        return runs[0].path if runs else Run.open(which or "last", self.root).path

    def named(self, path: Path) -> str:
        """The shortest words by which `epochal attach` finds a run from this directory."""
        from engine.run import runs_root

        return path.name if path.parent.resolve() == runs_root().resolve() else str(path)

    def recipe_of(self, path: Path) -> dict[str, Any]:
        """The recipe of a run on disk, empty for a run of one's own objects. RunError, OSError or ValueError."""
        import tomllib

        from engine.run import Run

        recipe = Run.open(path).recipe_path
        return tomllib.loads(recipe.read_text(encoding="utf-8")) if recipe.exists() else {}

    def config_of(self, path: Path) -> dict[str, Any]:
        """What a loop of one's own told of its run."""
        from engine.run.about import config

        return config(path)

    def follower(self, path: Path) -> Follows:
        """What follows a run through its directory."""
        from engine.run import Run
        from engine.run.follow import following

        return following(Run.open(path))

    def place_of(self, path: Path) -> tuple[str, int]:
        """Host and number of the process that trains a run. RunError where its status can't be read."""
        from engine.run import Status

        status = Status.read(path / "status.json")
        return status["host"], status["pid"]

    def tell(self, path: Path, ask: str, **values: Any) -> None:
        """Ask the process that trains a run for something. RunError where there is none."""
        from engine.run import Run

        Run.open(path).tell(ask, **values)

    def start_in_background(self, values: Mapping[str, Any]) -> Starting:
        """A run of these values in a process of its own, about to begin."""
        from tui.background import Starting

        return Starting(self.train_command, values, self.root)

    def resume_in_background(self, path: Path, epochs: int | None) -> Starting:
        """The run in processes of its own, about to go on."""
        from tui.background import Starting

        longer = [] if epochs is None else ["--epochs", str(epochs)]
        return Starting(self.resume_command, None, self.root, str(path.resolve()), *longer)

    def start_sweep(self, values: Mapping[str, Any], *axes: str) -> Starting:
        """A sweep of these values in a process of its own, about to begin."""
        from tui.background import Starting

        return Starting(self.sweep_command, values, self.root, *axes)

    def start_search(self, values: Mapping[str, Any]) -> Starting:
        """The search of these values in a process of its own, about to begin, or to go on."""
        from tui.background import Starting

        return Starting(self.search_command, values, self.root)

    def searches(self) -> list[Path]:
        """The folders of all searches, the newest first."""
        from engine.search.folder import Folder

        return [folder.path for folder in Folder.all(self.root)]

    def watch_search(self, path: Path) -> Watches:
        """What looks at a search again and again. EpochalError where it can't be read, or Optuna is not installed."""
        from engine.search.board import Watch
        from engine.search.folder import Folder

        return Watch(Folder(path))

    def stop_search(self, path: Path) -> str:
        """Have all who work on a search stop; one sentence. EpochalError where there is nobody."""
        from engine.search.folder import Folder

        return f"{Folder(path).stop()} stopping, with checkpoints; r goes on"

    def go_on_with_search(self, path: Path) -> Starting:
        """The same search in a process of its own, about to go on. EpochalError where its recipe can't be read."""
        from engine.search.folder import Folder

        return self.start_search(Folder(path).values)

    @property
    def saved(self) -> SavedRecipes:
        """The recipes that the person keeps by name."""
        from engine.saved_recipes import SavedRecipes

        return SavedRecipes()

    @property
    def queue(self) -> Queue:
        """What is trained one after another."""
        from engine.run.queue import Queue

        return Queue(self.root)

    def enqueue(self, values: Mapping[str, Any], axes: Sequence[str] = ()) -> str:
        """Put a recipe, a sweep, or a search into the queue and let that begin; one sentence. EpochalError."""
        from engine.cli.queue import job_of

        return self._enqueue(job_of(dict(values), tuple(axes), self.root))

    def enqueue_run(self, path: Path) -> str:
        """Put a run, or a search, that is to be gone on with into the queue; one sentence. RunError."""
        from engine.cli.queue import resuming

        return self._enqueue(resuming(path, self.root))

    def _enqueue(self, job: Job) -> str:
        (made,) = self.queue.add([job])
        return f"job {made.id}: {self.work_on_queue(again=False)}"

    def work_on_queue(self, *, again: bool = True) -> str:
        """Have a worker at work, `again`: also after the queue was held; one sentence. RunError."""
        from engine.run.worker import begin_working

        return begin_working(self.queue, again=again)
