"""`find-lr`: the learning-rate range test of a recipe; nothing is written."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
from typing import TYPE_CHECKING, Any

from engine.cli import format
from engine.cli.output import Live, Stream
from engine.cli.recipes import read_recipe
from engine.errors import EpochalError, Problem, RecipeError

if TYPE_CHECKING:
    from engine.finder import Point, Range


def find_lr(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Train a copy with a growing rate and say which one to begin with. With `--json` a line a step, and the result last."""
    if arguments.json:
        return _as_json(arguments, out, err)
    recipe = read_recipe(arguments)
    from engine import finder
    from engine.recipe import rate_field

    if out.isatty():
        out.live = err.live = Live(out.terminal)

    def each(point: Point) -> None:
        if out.live.due:
            out.live.draw(lambda _: f"learning rate {format.lr(point.lr)}  loss {format.value(point.smoothed)}")

    try:
        found = finder.find_lr(recipe, **_span(arguments), each=each)
    finally:
        out.live.clear()
    rows = [("learning rate" if not i else "", f"{item.lr:g}", item.rule) for i, item in enumerate(found.suggestions)]
    rows = rows or [("learning rate", "none found", "the loss did not fall at any rate: look at data, model and loss first")]
    if found.points:
        low = min(found.points, key=lambda point: point.smoothed)
        rows.append(("lowest loss", f"{low.smoothed:.4g}", f"smoothed, at {low.lr:.2g}"))
    rows.append(("stopped", f"{len(found.points)} steps", found.ended))
    out.lines(format.table(rows))
    if found.suggestions:
        named = "" if arguments.recipe is None else f" {shlex.quote(arguments.recipe)}"
        out.line(
            f"{arguments.prog} train{named} --set {rate_field(recipe.to_dict(complete=False))}={found.suggestions[0].lr:g}"
        )
    return 0


def _span(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"lowest": arguments.lowest, "highest": arguments.highest, "steps": arguments.steps}
    return {key: value for key, value in given.items() if value is not None}


def _as_json(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    problems: tuple[Problem, ...] = ()
    found: Range | None = None
    with contextlib.redirect_stdout(err):  # what the code prints is no part of the lines
        try:
            recipe = read_recipe(arguments)
            from engine import finder

            found = finder.find_lr(
                recipe, **_span(arguments), each=lambda point: out.line(json.dumps(dataclasses.asdict(point)))
            )
        except RecipeError as error:
            problems = error.problems
        except EpochalError as error:
            problems = (Problem("", str(error)),)
    result = {
        "ended": "" if found is None else found.ended,
        "suggestions": [] if found is None else [dataclasses.asdict(item) for item in found.suggestions],
        "problems": [dataclasses.asdict(problem) for problem in problems],
    }
    out.line(json.dumps(result))
    return 2 if problems else 0
