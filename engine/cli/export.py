"""`export`: a run's model in a format that others read, or the script of a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.cli.output import Stream
from engine.errors import EpochalError


def export(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Write what is asked for to a file, or a script to standard output."""
    from engine.export import FORMATS, format_of

    if arguments.file is not None and arguments.output is not None:
        raise EpochalError(f"two files are named, {arguments.file} and {arguments.output}: only one can be written")
    if arguments.script and arguments.format not in (None, "script"):
        raise EpochalError(f"--script and --format {arguments.format} are two formats: only one can be written")
    given = arguments.file or arguments.output
    target = None if given is None else Path(given)
    kind = "script" if arguments.script else arguments.format
    if kind is None and target is None:
        raise EpochalError(f"export needs to know what is wanted: a file (model{'|'.join(FORMATS.values())}) or --format")
    if kind is None and target is not None:
        kind = format_of(target)
    return _script(arguments, target, out, err) if kind == "script" else _model(arguments, str(kind), target, out, err)


def _model(arguments: argparse.Namespace, kind: str, target: Path | None, out: Stream, err: Stream) -> int:
    from engine.export import FORMATS, refuse_target
    from engine.export.model import export_model
    from engine.inference.trained import load_trained

    if target is not None:
        refuse_target(target, arguments.force, kind)  # before the model is loaded
    trained = load_trained(arguments.what, arguments.checkpoint, device="cpu", runs=arguments.runs)
    target = target or Path(f"{Path(trained.name).stem if trained.run is None else trained.name}{FORMATS[kind]}")
    made = export_model(trained, target, format=kind, force=arguments.force)
    for note in made.notes:
        err.line(f"epochal: {note}")
    out.line(f"{made.path} is written: {trained.name} at step {trained.step:,}, checked with {made.checked}")
    return 0


def _script(arguments: argparse.Namespace, target: Path | None, out: Stream, err: Stream) -> int:
    recipe, edited = _recipe(arguments)
    from engine.export import write_bytes
    from engine.export.script import script
    from engine.recipe import Recipe

    text = script(Recipe.load(recipe))
    if edited:
        err.line(f"epochal: the script is the recipe as it was; the run was changed on its way: {edited}")
    if target is None:
        out.line(text.rstrip("\n"))
    else:
        write_bytes(target, text.encode(), force=arguments.force)
        out.line(f"{target} is written: python {target}")
    return 0


def _recipe(arguments: argparse.Namespace) -> tuple[Path, str]:
    """The file of the recipe, and what was changed in the run while it trained."""
    path = Path(arguments.what)
    if path.suffix == ".toml" and not path.is_dir():
        return path, ""
    from engine.run import Run, load_history, runs_root

    run = Run.open(arguments.what, runs_root(arguments.runs))
    run.refuse_if_foreign()
    if not run.recipe_path.exists():
        raise EpochalError(f"{run.path} has no recipe: it trained objects that were made in Python")
    changes = [f"{event.field} after step {event.step}" for event in load_history(run).settings]
    return run.recipe_path, ", ".join(changes)
