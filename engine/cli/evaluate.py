"""`evaluate`: how good a run's model is, and where it is wrong."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.cli import format
from engine.cli.output import Stream
from engine.cli.show import print_json
from engine.errors import EpochalError

if TYPE_CHECKING:
    from engine.inference.evaluation import Evaluation

REPORT = ("class", "precision", "recall", "F1", "samples")
WORST = ("worst", "target", "output", "loss")
WIDE = 12  # classes up to which the whole matrix is printed
PAIRS = 10  # of classes that are taken for each other, where it is not
SECONDS = 0.1  # between two lines of progress


def evaluate(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Evaluate, keep it in the run, print it."""
    from engine.inference.evaluating import evaluate as run_evaluate
    from engine.run import strict_json

    if arguments.worst < 0:
        raise EpochalError(f"--worst is {arguments.worst} and must be 0 or more")
    found = run_evaluate(
        arguments.run,
        arguments.checkpoint,
        data=arguments.data,
        worst=arguments.worst,
        device=arguments.device or "auto",
        batch_size=arguments.batch_size,
        runs=arguments.runs,
        progress=_told(out) if arguments.progress else None,
    )
    if arguments.progress:
        out.line(strict_json.encode(found.as_dict()).decode())
        return 0
    if arguments.json:
        print_json(out, found.as_dict())
        return 0
    out.lines(lines(found))
    for note in found.notes:
        err.line(f"epochal: {note}")
    return 0


def _told(out: Stream) -> Any:
    """A line of JSON now and then, for who waits."""
    last = 0.0

    def tell(done: int, samples: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            out.line(json.dumps({"done": done, "samples": samples}))

    return tell


def lines(found: Evaluation) -> Iterator[str]:
    """The evaluation as text."""
    yield f"{found.run} at step {found.step:,}, {format.counted(found.samples, 'sample')}: {found.data}"
    yield "  ".join(f"{name} {format.value(value)}" for name, value in found.metrics.items())
    if found.report:
        yield ""
        yield from format.table([REPORT, *report_rows(found)], ",".join(REPORT[1:]))
    if found.confusion is not None:
        yield ""
        if len(found.classes) <= WIDE:
            yield "targets down, predictions across"
            rows = [(name, *map(str, row)) for name, row in zip(found.classes, found.confusion, strict=True)]
            yield from format.table([("", *found.classes), *rows], ",".join(found.classes))
        else:
            rows = [(target, predicted, f"{times:,}") for times, target, predicted in confused(found)[:PAIRS]]
            yield from format.table([("target", "taken for", "times"), *rows], "times")
    if found.residuals:
        yield ""
        names = tuple(found.residuals[0])
        yield from format.table([("output - target", *names), *residual_rows(found)], ",".join(names))
    if found.worst:
        yield ""
        yield from format.table([WORST, *worst_rows(found)], "loss")


def report_rows(found: Evaluation) -> list[tuple[str, ...]]:
    """Each class and the averages, as cells."""
    rows = [(row["class"], *_scores(row), f"{row['support']:,}") for row in found.report]
    averages = [(name, *_scores(values), "") for name, values in found.averages.items() if isinstance(values, dict)]
    return rows + averages


def residual_rows(found: Evaluation) -> list[tuple[str, ...]]:
    """The errors of each number that is predicted, as cells."""
    several = len(found.residuals) > 1
    return [(str(i) if several else "", *map(format.value, row.values())) for i, row in enumerate(found.residuals, 1)]


def _scores(row: dict[str, Any]) -> list[str]:
    return [f"{row[name]:.4f}" for name in ("precision", "recall", "f1")]


def worst_rows(found: Evaluation) -> list[tuple[str, ...]]:
    """The samples with the largest losses, as cells."""
    return [(str(row["index"]), said(row["target"]), said(row["output"]), format.value(row["loss"])) for row in found.worst]


def confused(found: Evaluation) -> list[tuple[int, str, str]]:
    """(how often, target, prediction) of all pairs of classes that were taken for each other, the most frequent first."""
    matrix, names = found.confusion or [], found.classes
    pairs = [(n, names[i], names[j]) for i, row in enumerate(matrix) for j, n in enumerate(row) if n and i != j]
    return sorted(pairs, key=lambda pair: -pair[0])


def said(value: Any) -> str:
    """A target or an output as a cell."""
    if value is None:
        return "…"
    if isinstance(value, str):
        return repr(value)[1:-1]
    values = value if isinstance(value, list) else [value]
    return " ".join(item if isinstance(item, str) else format.value(item) for item in values)
