"""`tag`, `rename`, `delete` and `diff`: keeping order among runs."""

from __future__ import annotations

import argparse
import sys

from engine.cli import format
from engine.cli.output import Stream
from engine.errors import EpochalError, plain


def tag(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Keep a line of text with a run, or show it."""
    from engine.run import Run, manage, runs_root
    from engine.run.about import about

    run = Run.open(arguments.run, runs_root(arguments.runs))
    if arguments.text is not None:
        manage.tag(run, arguments.text)
    said = about(run.path).tag
    out.line(f"{run.name} has the tag {said!r}" if said else f"{run.name} has no tag")
    return 0


def rename(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Give a run another name."""
    from engine.run import Run, manage, runs_root

    run = Run.open(arguments.run, runs_root(arguments.runs))
    before, renamed = run.name, manage.rename(run, arguments.name)
    out.line(plain(f"{before} is {renamed.name} now"))
    return 0


def delete(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Remove runs that are not at work, after a question."""
    from engine.run import Run, manage, runs_root

    runs = [Run.open(name, runs_root(arguments.runs)) for name in dict.fromkeys(arguments.names)]
    runs = list({run.path.resolve(): run for run in runs}.values())
    for run in runs:
        run.refuse_if_training()
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise EpochalError("delete asks, and nobody is there to answer: --yes deletes without a question")
        out.lines(plain(str(run.path)) for run in runs)
        which = "this run" if len(runs) == 1 else f"these {len(runs)} runs"
        if not _sure(f"Delete {which}, checkpoints and all? [y/N] "):
            out.line("nothing is deleted")
            return 1
    for run in runs:
        manage.delete(run)
        out.line(plain(f"{run.name} is deleted"))
    return 0


def _sure(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def diff(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """In what the recipes of runs differ; of one, from the default recipe. Status 1 where they do, as `diff` has it."""
    from engine.recipe import Recipe
    from engine.run import Run, runs_root
    from engine.run.about import config, flat

    runs = [Run.open(name, runs_root(arguments.runs)) for name in arguments.names]
    for run in runs:
        run.refuse_if_foreign()
    without = next((run for run in runs if not run.recipe_path.exists() and (len(runs) == 1 or not run.own_loop)), None)
    if without is not None:
        raise EpochalError(f"{without.name} has no recipe: it was made by a program")
    recipes = [(run.name, flat(config(run.path) if run.own_loop else Recipe.load(run.recipe_path).to_dict())) for run in runs]
    if len(recipes) == 1:
        recipes.insert(0, ("default", flat(Recipe().to_dict())))
    keys = dict.fromkeys(key for _, values in recipes for key in values)
    differing = [key for key in keys if any(values.get(key) != recipes[0][1].get(key) for _, values in recipes[1:])]
    if not differing:
        out.line("the recipes are the same")
        return 0
    rows = [("field", *(name for name, _ in recipes))]
    rows += [(key, *("–" if values.get(key) is None else str(values[key]) for _, values in recipes)) for key in differing]
    out.lines(format.table(rows))
    return 1
