"""`train` and `resume`: a run in this terminal, this pipe, this script."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import format
from engine.cli.background import Background
from engine.cli.output import Log, Stream
from engine.cli.recipes import recipe_values
from engine.cli.signals import Signals
from engine.cli.telling import telling
from engine.errors import EpochalError
from engine.events import Event, RunStarted
from engine.notify import Notifier
from engine.recipe import Recipe

if TYPE_CHECKING:
    from engine.trainer import Trainer


def train(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Train a recipe. Returns the exit status: 0 finished, 1 failed, 130 and 143 stopped by a signal."""
    if arguments.background and arguments.no_run:
        raise EpochalError("--background can't go with --no-run: without a run directory nothing would be left of the run")

    def build() -> Trainer:
        values = recipe_values(arguments)
        recipe = Recipe.from_dict(values)
        if values.get("search") is not None:
            what = shlex.quote(str(arguments.recipe))
            err.line(f"epochal: this trains the recipe itself: {arguments.prog} search {what} does what its [search] says")
        from engine.run import Run, load_history, runs_root
        from engine.trainer import Trainer

        trainer = Trainer.from_recipe(recipe, runs=None if arguments.no_run else runs_root(arguments.runs))
        if arguments.recipe is not None and (Path(arguments.recipe).parent / "journal.jsonl").exists():  # a run's own
            trainer.repeat_moves(load_history(Run.open(Path(arguments.recipe).parent)))
        return trainer

    return follow(build, arguments, out, err)


def resume(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Go on with a run from its last checkpoint. A finished run that nothing is added to is not touched."""
    from engine.run import Run, load_history, runs_root

    run = Run.open(arguments.run, runs_root(arguments.runs))
    run.refuse_without_recipe()
    history = load_history(run)
    ended = history.ended
    longer = ended is None or (arguments.epochs or 0) > ended.epoch or (arguments.steps or 0) > ended.step
    if ended is not None and ended.state == "finished" and not longer:
        sentence = f"{run.path} is finished after {format.counted(ended.epoch, 'epoch')}"
        if history.started is not None and ended.epoch < history.started.epochs:  # early stopping: more epochs don't help
            sentence += f": {ended.reason}"
        else:
            sentence += f"; to train more: {arguments.prog} resume {shlex.quote(str(run.path))} --epochs {2 * ended.epoch}"
        (err if arguments.json else out).line(sentence)
        run.conclude()
        return 0
    run.refuse_if_training()

    def build() -> Trainer:
        from engine.trainer import Trainer

        return Trainer.resume(run.path, epochs=arguments.epochs, max_steps=arguments.steps)

    return follow(build, arguments, out, err)


def fork(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Begin a new run at a checkpoint of another."""
    from engine.run import Run, runs_root

    root = runs_root(arguments.runs)
    run = Run.open(arguments.run, root)
    step = int(arguments.step) if arguments.step.isdigit() else arguments.step
    if step not in ("last", "best") and not isinstance(step, int):
        raise EpochalError(f"--step is {step!r} and must be a whole number, last or best")
    if not run.recipe_path.exists():
        raise EpochalError(f"{run.name} has no recipe: it was made by a program, and only that can begin another like it")

    def build() -> Trainer:
        from engine.recipe import Recipe
        from engine.settings import apply_settings, read_toml
        from engine.trainer import Trainer

        settings = [*arguments.settings, *([f"name={arguments.name}"] if arguments.name else [])]
        recipe = Recipe.from_dict(apply_settings(read_toml(run.recipe_path), settings))
        return Trainer.fork(run.path, recipe, step=step, runs=root if arguments.runs else None)

    return follow(build, arguments, out, err)


def follow(build: Callable[[], Trainer], arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Train what `build` makes, with its events on `out` and its messages on `err`; or, in the background, begin to."""
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

        return _fit(build, signals, err, listen)


def _fit(build: Callable[[], Trainer], signals: Signals, err: Stream, listen: Callable[[Trainer], None]) -> int:
    trainer = build()
    listen(trainer)
    signals.watch(trainer.control)
    with Notifier.of_user(lambda sentence: err.line(f"epochal: {sentence}")) as notifier:
        notifier.watch(trainer)
        result = trainer.fit()
    if result.state == "failed":
        err.line(f"epochal: {result.reason}")
        return 1
    return signals.status if result.state == "stopped" else 0
