"""`train`, `resume` and `fork`: a run in this terminal, this pipe, this script."""

from __future__ import annotations

import argparse
import shlex
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import format
from engine.cli.background import Background
from engine.cli.output import Log, Stream
from engine.cli.recipes import read_recipe, recipe_values
from engine.cli.signals import Signals
from engine.cli.telling import telling
from engine.distributed.launched import blamed, decided, earlier_run, outlive_agent, rank, together
from engine.errors import EpochalError
from engine.events import Event, RunStarted
from engine.notify import Notifier
from engine.recipe import Recipe
from engine.recipe_text import parse_setting, read_toml
from engine.run.worker import redirect_output

if TYPE_CHECKING:
    from engine.trainer import Trainer


def train(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Train a recipe. Returns the exit status: 0 finished, 1 failed, 130 and 143 stopped by a signal."""
    if arguments.background and arguments.no_run:
        raise EpochalError("--background can't go with --no-run: without a run directory nothing would be left of the run")
    processes = _processes(arguments, arguments.recipe)
    if processes > 1:
        from engine.cli.launching import launch

        return launch(arguments, processes, out, err, check=lambda: read_recipe(arguments))
    outlive_agent()
    from engine.run import runs_root

    if not arguments.no_run and (earlier := _earlier(runs_root(arguments.runs))):
        return _resume_earlier(earlier, arguments, out, err)

    def build() -> Trainer:
        values = recipe_values(arguments)
        recipe = Recipe.from_dict(values)
        if values.get("search") is not None and not rank():
            what = shlex.quote(str(arguments.recipe))
            err.line(f"epochal: this trains the recipe itself: {arguments.prog} search {what} does what its [search] says")
        from engine.run import Run, load_history
        from engine.trainer import Trainer

        trainer = Trainer.from_recipe(recipe, runs=None if arguments.no_run else runs_root(arguments.runs))
        if arguments.recipe is not None and (Path(arguments.recipe).parent / "journal.jsonl").exists():  # a run's own
            trainer.repeat_execution(load_history(Run.open(Path(arguments.recipe).parent)))
        return trainer

    return follow(build, arguments, out, err)


def resume(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Go on with a run from its last checkpoint. A finished run that nothing is added to is not touched."""
    outlive_agent()
    path, sentence = decided(lambda: _to_go_on_with(arguments))
    if sentence:
        if not rank():
            (err if arguments.json else out).line(sentence)
        return 0
    if not together():
        from engine.run import Run

        run = Run(path)
        processes = _processes(arguments, run.recipe_path)
        if processes > 1:
            from engine.cli.launching import launch

            return launch(arguments, processes, out, err, check=lambda: None, run=run)

    def build() -> Trainer:
        from engine.trainer import Trainer

        return Trainer.resume(path, epochs=arguments.epochs, max_steps=arguments.steps)

    return follow(build, arguments, out, err)


def _to_go_on_with(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The run, and why there is nothing to do where that is so."""
    from engine.run import Run, load_history, runs_root

    run = Run.open(arguments.run, runs_root(arguments.runs))
    run.refuse_without_recipe()
    history = load_history(run)
    ended = history.ended
    longer = ended is None or (arguments.epochs or 0) > ended.epoch or (arguments.steps or 0) > ended.step
    if ended is None or ended.state != "finished" or longer:
        run.refuse_if_training()
        return run.path, ""
    sentence = f"{run.path} is finished after {format.counted(ended.epoch, 'epoch')}"
    if history.started is not None and ended.epoch < history.started.epochs:  # early stopping: more epochs don't help
        sentence += f": {ended.reason}"
    else:
        sentence += f"; to train more: {arguments.prog} resume {shlex.quote(str(run.path))} --epochs {2 * ended.epoch}"
    run.conclude()
    return run.path, sentence


def _earlier(root: Path) -> Path | None:
    """The run of an earlier attempt, which a launcher repeats."""

    def find() -> Path | None:
        run = earlier_run(root)
        return None if run is None else run.path

    return decided(find)


def _resume_earlier(path: Path, arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    return resume(argparse.Namespace(**{**vars(arguments), "run": path, "epochs": None, "steps": None}), out, err)


def fork(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Begin a new run at a checkpoint of another."""
    from engine.run import Run, runs_root

    root = runs_root(arguments.runs)
    run = Run.open(arguments.run, root)
    step = int(arguments.step) if arguments.step.isdigit() else arguments.step
    if step not in ("last", "best") and not isinstance(step, int):
        raise EpochalError(f"--step is {step!r} and must be a whole number, last or best")
    run.refuse_without_recipe("begin another like it")
    arguments.recipe, beside = run.recipe_path, root if arguments.runs else run.path.parent
    processes = _processes(arguments, run.recipe_path)
    if processes > 1:
        from engine.cli.launching import launch

        return launch(arguments, processes, out, err, check=lambda: read_recipe(arguments), root=beside)
    outlive_agent()
    if earlier := _earlier(beside):
        return _resume_earlier(earlier, arguments, out, err)

    def build() -> Trainer:
        recipe = read_recipe(arguments)
        from engine.trainer import Trainer

        return Trainer.fork(run.path, recipe, step=step, runs=beside)

    return follow(build, arguments, out, err)


def follow(build: Callable[[], Trainer], arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Train what `build` makes, with its events on `out` and its messages on `err`; or, in the background, begin to."""
    if together() and (rank() or arguments.background):  # rank 0 tells of the run; in the background its journal does
        with Signals() as signals:
            return _fit(build, signals, err, lambda trainer: None, alone=False)
    if arguments.background:
        background = Background(out, err)
        if background.process:
            return background.wait(arguments, out, err)
        with Signals() as signals:
            # Rows and messages are in the journal: `attach` shows them, and output.log keeps what the training code prints.
            return _fit(build, signals, err, lambda trainer: trainer.on(RunStarted, lambda _: background.begun(trainer.run)))
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        tell = stack.enter_context(telling(arguments, out, err))
        out.log = err.log = log = Log()
        stack.callback(log.close)

        def listen(trainer: Trainer) -> None:
            trainer.on(RunStarted, lambda _: log.open(trainer.run.output_path) if trainer.run else None)
            trainer.on(Event, tell)

        try:
            return _fit(build, signals, err, listen)
        except EpochalError:
            raise
        except Exception:
            with suppress(OSError):
                log.write(traceback.format_exc())  # where it is printed, the run's log is closed already
            raise


def _fit(
    build: Callable[[], Trainer], signals: Signals, err: Stream, listen: Callable[[Trainer], None], alone: bool = True
) -> int:
    """Train. `alone`: not one of several that all print into the run's output.log."""
    try:
        trainer = build()
        listen(trainer)
        log = decided(lambda: trainer.run.output_path if trainer.run else None)
        if log is not None and not alone:
            trainer.on(RunStarted, lambda _: redirect_output(log))
        signals.watch(trainer.control)
        with ExitStack() as stack:
            if not rank():
                stack.enter_context(Notifier.of_user(lambda sentence: err.line(f"epochal: {sentence}"))).watch(trainer)
            result = trainer.fit()
    except Exception as error:
        raise blamed(error) from error.__cause__
    if result.state == "failed":
        err.line(f"epochal: {result.reason}")
        return 1
    return signals.status_of(result.reason) if result.state == "stopped" else 0


def _processes(arguments: argparse.Namespace, recipe: Path | str | None) -> int:
    """How many processes are to be begun; 1 where this one is to train, alone or as one of them. Own code is not run."""
    if together():
        return 1
    key = "training.processes"
    given = [value for name, value in map(parse_setting, getattr(arguments, "settings", ())) if name == key]
    values = {} if recipe is None or given or arguments.processes else read_toml(recipe)
    training = values.get("training")
    wanted = arguments.processes or (given[-1] if given else isinstance(training, Mapping) and training.get("processes", 1))
    wanted = wanted if type(wanted) is int else 1  # a mistake is for the recipe's check to tell
    if wanted <= 1 and arguments.restarts:
        raise EpochalError(f"--restarts is {arguments.restarts} and goes with --processes 2 or more; epochal resume goes on")
    return wanted
