"""`runs`, `check` and `catalog`: look, and change nothing."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import format
from engine.cli.output import Stream
from engine.cli.recipes import read_recipe
from engine.cli.rows import best_place
from engine.errors import EpochalError, Problem, RecipeError
from engine.phases import in_short

if TYPE_CHECKING:
    from engine.catalog import Entry, Field
    from engine.dry_run import DryRun
    from engine.recipe import Recipe
    from engine.run import RunSummary
    from engine.tracing import Operation, Trace

MOST, WIDE = 10, 60  # operations that are printed, and characters of each


def runs(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """List the runs: those at work first, then the newest first."""
    from engine.run import Run, runs_root
    from engine.run.choose import arranged

    root = runs_root(arguments.runs)
    there = Run.list(root)
    found = arranged(there, arguments.sort, arguments.filter, arguments.tag, reverse=arguments.reverse)
    if arguments.json:
        print_json(out, [{"name": summary.name, **dataclasses.asdict(summary), "path": str(summary.path)} for summary in found])
    elif not found:
        out.line(f"none of the {len(there)} runs in {root} fits" if there else f"no runs in {root}")
    else:
        heads = ("run", "state", "epoch", "step", "time", "best")
        rows = [heads, *map(_run_row, found)]
        at_work = [_process(summary) for summary in found]
        if any(at_work):
            rows = [(*row[:2], process, *row[2:]) for row, process in zip(rows, ["process", *at_work], strict=True)]
        if any(summary.tag for summary in found):
            rows = [(*row, tag) for row, tag in zip(rows, ["tag", *(summary.tag for summary in found)], strict=True)]
        rows = [(*row, other) for row, other in zip(rows, ["recipe", *map(_otherwise, found)], strict=True)]
        out.rows(format.table(rows, right="epoch,step,time"))
    return 0


def _otherwise(summary: RunSummary) -> str:
    """The run that it comes from, and what of its recipe is not as in the default one."""
    from engine.run.about import in_short

    of = f"of {summary.parent} at {summary.parent_step:,}" if summary.parent else ""
    return " · ".join(filter(None, [of, in_short(summary.differs)]))


def _process(summary: RunSummary) -> str:
    """Where a run at work is trained: "4711 on gpu7"; of another one nothing."""
    from engine.run.status import ALIVE

    return f"{summary.pid} on {summary.host}" if summary.state in ALIVE else ""


def _run_row(summary: RunSummary) -> tuple[str, ...]:
    epochs = "?" if summary.epochs is None else f"{summary.epochs:,}" if summary.epochs else "–"
    best = summary.best.get(summary.monitor)
    note = summary.reason if summary.state in ("unreadable", "failed", "died") else ""
    if best is not None:
        where = f"in {place}" if (place := best_place(summary.best)).startswith("epoch") else f"at {place}"
        value = f"{format.metric_name(summary.monitor)} {format.value(best)} {where}"
        note = f"{value} · {note}" if note else value
    return (
        summary.name,
        summary.state,
        f"{summary.epoch:,}/{epochs}",
        f"{summary.step:,}",
        format.duration(summary.seconds),
        note,
    )


def check(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Take a few steps of a recipe on copies. A mistake is raised, as RecipeError; as JSON it is one of the problems."""
    if arguments.json:
        return _check_as_json(arguments, out, err)
    recipe, found = _dry_run(arguments)
    rows = [("OK", recipe.name), *found.rows]
    rows += [("own code", name) for name in own_code(recipe)]
    rows += [("warning", sentence) for sentence in found.warnings]
    if found.trace is not None:
        rows += _trace_rows(found.trace, arguments, recipe)
    out.lines(format.table(rows))
    if found.trace is not None:
        _print_operations("operation", "CPU", found.trace.operations, out)
        _print_operations("kernel", "GPU", found.trace.kernels, out)
    return 0


def _trace_rows(trace: Trace, arguments: argparse.Namespace, recipe: Recipe) -> list[tuple[str, str]]:
    """Which steps were recorded, and what stood in the way of others."""
    begins = " (with which auto begins)" if recipe.training.execution == "auto" else ""
    took = f"{in_short(trace.seconds)} by the clock, the profiler's own work included"
    steps = f"{format.counted(trace.steps, 'step')}, {trace.execution}{begins}: {took}"
    file = f"{arguments.trace}, for ui.perfetto.dev"
    return [("trace", file), ("traced", steps), *(("warning", note) for note in trace.notes)]


def _print_operations(what: str, where: str, operations: tuple[Operation, ...], out: Stream) -> None:
    if not operations:
        return
    out.line("")
    rows = [(each.name[:WIDE], in_short(each.seconds), f"{each.share:.1%}", f"{each.calls:,}") for each in operations[:MOST]]
    out.lines(format.table([(what, where, "share", "calls"), *rows], f"{where},share,calls"))


def _check_as_json(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    rows: list[tuple[str, str]] = []
    warnings: list[str] = []
    problems: tuple[Problem, ...] = ()
    facts: dict[str, Any] = {}
    with contextlib.redirect_stdout(err):  # what the code prints is no part of the object
        try:
            recipe, found = _dry_run(arguments)
            rows = [*found.rows, *(("own code", name) for name in own_code(recipe))]
            warnings, facts = found.warnings, {**found.facts}
            if found.trace is not None:
                facts["trace"] = dataclasses.asdict(found.trace)
            if arguments.sweep:
                facts["sweep"] = _sweep(arguments)
        except RecipeError as error:
            problems = error.problems
        except EpochalError as error:
            problems = (Problem("", str(error)),)
    print_json(out, {"rows": rows, "warnings": warnings, "problems": list(map(dataclasses.asdict, problems)), "facts": facts})
    return 2 if problems else 0


def _sweep(arguments: argparse.Namespace) -> list[tuple[int, str]]:
    """The groups of a sweep: how many runs, and why they are not trained together, "" where they are."""
    from engine.cli.recipes import recipe_values
    from engine.sweep import expand
    from engine.sweep.sweeping import Sweep

    sweep = Sweep(expand(recipe_values(arguments), arguments.sweep))
    return [(len(group), sweep.apart(group) if len(group) > 1 else "") for group in sweep.groups()]


def _dry_run(arguments: argparse.Namespace) -> tuple[Recipe, DryRun]:
    recipe, path = read_recipe(arguments), None
    if arguments.trace is not None:
        from engine.tracing import refuse

        path = Path(arguments.trace)
        refuse(path)
    from engine.dry_run import dry_run

    return recipe, dry_run(recipe, path)


def own_code(recipe: Recipe) -> list[str]:
    """What the recipe runs that is not of the catalog: "model net.py:Net"."""
    named = {"data": recipe.data, "model": recipe.model, "loss": recipe.loss, "optimizer": recipe.optimizer}
    if recipe.scheduler is not None:
        named["scheduler"] = recipe.scheduler
    return [f"{kind} {component.name}" for kind, component in named.items() if ":" in component.name]


def catalog(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """The kinds, the entries of a kind, or the fields of an entry."""
    from engine.catalog import KINDS, entries, find

    if arguments.kind is None:
        counts = {kind: [entry.name for entry in entries(kind) if not entry.refusal] for kind in KINDS}
        if arguments.json:
            print_json(out, counts)
        else:
            out.lines(format.table([("kind", "names", "")] + [(k, str(len(n)), _few(n)) for k, n in counts.items()], "names"))
            out.line(f"{arguments.prog} catalog KIND lists all of one; {arguments.prog} catalog KIND NAME the fields of one")
    elif arguments.name is None:
        found = entries(arguments.kind)
        if arguments.json:
            print_json(out, [{key: getattr(entry, key) for key in ("name", "summary", "refusal")} for entry in found])
        else:
            _print_kind(found, out)
    else:
        entry = find(arguments.kind, arguments.name)
        if arguments.json:
            print_json(out, _entry_values(entry))
        else:
            _print_entry(entry, out)
    return 0


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown}, …" if len(names) > 6 else shown


def _print_kind(found: tuple[Entry, ...], out: Stream) -> None:
    able = [(entry.name, entry.summary) for entry in found if not entry.refusal]
    refused = [(entry.name, entry.refusal) for entry in found if entry.refusal]
    out.lines(format.table(able))
    if refused:
        out.line("")
        out.line("not for a recipe:")
        out.lines(format.table(refused))


def _print_entry(entry: Entry, out: Stream) -> None:
    from engine.catalog import fields_of_options
    from engine.recipe import Loading

    out.line(f"{entry.kind} {entry.name}: {entry.summary}" if entry.summary else f"{entry.kind} {entry.name}")
    if entry.refusal:
        out.line(f"not for a recipe: {entry.refusal}")
        return
    _print_fields(entry.fields, out)
    if not entry.fields:
        out.line("it has no fields" if not entry.open else "it takes any fields")
    if entry.kind == "data":
        out.line("with all data:")
        _print_fields(fields_of_options(Loading), out)


def _print_fields(fields: tuple[Field, ...], out: Stream) -> None:
    """Two lines a field: what it takes, and what it does."""
    width = max((len(field.key) for field in fields), default=0)
    for field in fields:
        out.line(f"  {field.key:<{width}}  {field.expects}; {_default(field)}")
        if field.help:
            out.line(f"  {'':<{width}}  {field.help}")


def _default(field: Field) -> str:
    from engine.catalog import REQUIRED

    if field.default is REQUIRED:
        return "must be given"
    if field.default is None:
        return f"left out: {field.derived}" if field.derived else "may be left out"
    shown = field.show(field.default)
    return f"default [{shown}]" if field.kind == "list" else f"default {shown or 'empty'}"


def _entry_values(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "summary": entry.summary,
        "refusal": entry.refusal,
        "fields": [_field_values(field) for field in entry.fields],
    }


def _field_values(field: Field) -> dict[str, Any]:
    from engine.catalog import REQUIRED

    keys = ("key", "kind", "item", "choices", "minimum", "maximum", "optional", "derived", "help")
    required = field.default is REQUIRED
    default = None if required else field.default
    return {**{key: getattr(field, key) for key in keys}, "required": required, "default": default}


def print_json(out: Stream, value: Any) -> None:
    """`value` as strict JSON: a number that is none becomes the word that it has in a journal ("NaN")."""
    strict = json.loads(json.dumps(value, default=str), parse_constant=str)
    out.line(json.dumps(strict, indent=2))
