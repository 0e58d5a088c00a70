"""`export`: a recipe, or that of a run, for others."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.cli.output import Stream
from engine.errors import EpochalError


def export(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Write what is asked for to a file, or to standard output."""
    if not arguments.script:
        raise EpochalError("export needs to know what is wanted: --script")
    recipe, edited = _recipe(arguments)
    from engine.export import write
    from engine.export.script import script
    from engine.recipe import Recipe

    text = script(Recipe.load(recipe))
    if edited:
        err.line(f"epochal: the script is the recipe as it was; the run was changed on its way: {edited}")
    if arguments.output is None:
        out.line(text.rstrip("\n"))
    else:
        write(arguments.output, text)
        out.line(f"{arguments.output} is written: python {arguments.output}")
    return 0


def _recipe(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file of the recipe, and what was changed in the run while it trained."""
    path = Path(arguments.what)
    if path.suffix == ".toml" and not path.is_dir():
        return path, ""
    from engine.run import Run, load_history, runs_root

    run = Run.open(arguments.what, runs_root(arguments.runs))
    if not run.recipe_path.exists():
        raise EpochalError(f"{run.path} has no recipe: it trained objects that were made in Python")
    changes = [f"{event.field} after step {event.step}" for event in load_history(run).settings]
    return run.recipe_path, ", ".join(changes)
