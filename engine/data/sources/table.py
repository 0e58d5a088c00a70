"""CSV and Parquet files: columns of numbers, yes-or-no and texts become inputs, one column the target."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.data.columns import Column, alike, constant, instead, kind_of, leave_out, stacked
from engine.data.samples import Samples, as_classes, wrong
from engine.data.sources.csv_files import NUMBER, Format, read_csv, refuse_twice, shown
from engine.data.sources.declare import existing, package, source
from engine.errors import Problem, RecipeError, nearest

if TYPE_CHECKING:
    from pandas import DataFrame, Series

FEW = 20  # rows, in which a column may tell the classes by chance
CLASSES = 20  # whole numbers with at most so many different values are classes

AsTask = Literal["auto", "classification", "regression"]


@source(task=None)
def csv(
    path: str,
    target: str,
    columns: tuple[str, ...] = (),
    task: AsTask = "auto",
    ignore: tuple[str, ...] = (),
    delimiter: str = ",",
    decimal: Literal[".", ","] = ".",
    thousands: str = "",
    day_first: bool | None = None,
    encoding: str = "utf-8",
    validation_path: str = "",
) -> Samples:
    """A table from a CSV file with a header line: one column is the target, the others are inputs.

    Numbers are taken as they are, true and false as 1 and 0, texts as one 0/1 input for each category; dates as the years
    since 2000 with sine and cosine of the year, the week and, where there are times, the day. A missing number becomes the
    median of the training part, with a 0/1 input that says so; a row without a target is left out.

    Args:
        path: the file, seen from the working directory
        target: the column to predict
        columns: the columns to predict from; none given: all others
        task: auto: classification for texts, true and false, and whole numbers of at most 20 different values
        ignore: columns to leave out
        delimiter: what stands between two values
        decimal: what stands before a number's decimals
        thousands: what groups a number's digits, as in 1,000; empty: nothing does
        day_first: whether 03/04/2025 is in April; left out: what the other dates of its column show
        encoding: how the text is written, such as cp1252 by older Windows programs
        validation_path: a file with the same columns to validate on; none: a share of the rows
    """
    written = Format(delimiter, decimal, thousands, encoding)

    def read(file: Path, field: str, said: str) -> DataFrame:
        return read_csv(file, written, field, said)

    return _from_files(read, path, validation_path, target, columns, task, ignore, day_first)


@source(task=None)
def parquet(
    path: str,
    target: str,
    columns: tuple[str, ...] = (),
    task: AsTask = "auto",
    ignore: tuple[str, ...] = (),
    day_first: bool | None = None,
    validation_path: str = "",
) -> Samples:
    """A table from a Parquet file: one column is the target, the others are inputs, treated as those of a CSV file.

    Args:
        path: the file, seen from the working directory
        target: the column to predict
        columns: the columns to predict from; none given: all others
        task: auto: classification for texts, true and false, and whole numbers of at most 20 different values
        ignore: columns to leave out
        day_first: whether 03/04/2025 is in April; left out: what the other dates of its column show
        validation_path: a file with the same columns to validate on; none: a share of the rows
    """
    package("pyarrow", "pyarrow")

    def read(file: Path, field: str, said: str) -> DataFrame:
        import pandas

        try:
            table = pandas.read_parquet(file, engine="pyarrow")
        except (ValueError, OSError) as error:  # what pandas and pyarrow raise for files that are none derives from these
            raise wrong(field, f"{said} can't be read as a table: {' '.join(str(error).split())}") from None
        refuse_twice(table.columns, field, said)
        if table.empty:
            raise wrong(field, f"{said} has no rows: each row is a sample")
        return table

    return _from_files(read, path, validation_path, target, columns, task, ignore, day_first)


def _from_files(
    read: Callable[[Path, str, str], DataFrame],
    path: str,
    validation_path: str,
    target: str,
    columns: Sequence[str],
    task: str,
    ignore: Sequence[str],
    day_first: bool | None,
) -> Samples:
    def table(argument: str, path: str) -> DataFrame:
        return read(existing(path, argument), f"data.{argument}", f"data.{argument} = {path!r}")

    held = table("validation_path", validation_path) if validation_path else None
    return from_tables(table("path", path), held, target, columns, task, path, ignore, day_first)


def from_tables(
    table: DataFrame,
    held: DataFrame | None,
    target: str,
    columns: Sequence[str],
    task: str,
    origin: str,
    ignore: Sequence[str] = (),
    day_first: bool | None = None,
) -> Samples:
    """Samples from a data frame, and from a second one to validate on. `origin` is what the sentences call the first.

    The columns are taken out of the data frame as they are used: a great table is held once.
    """
    import numpy
    import pandas

    if target not in table.columns:
        raise _no_column("target", target, table, origin)
    for field, names in (("columns", columns), ("ignore", ignore)):
        for column in names:
            if column not in table.columns:
                raise _no_column(field, column, table, origin)
    if target in columns:
        raise wrong("data.columns", f"data.columns holds the target {target!r} itself: leave it out")
    if both := [column for column in columns if column in ignore]:
        raise wrong("data.ignore", f"data.ignore holds {both[0]!r}, and data.columns too: only one can be meant")
    # A nameless first column is the row number that pandas writes; it tells of the file's order, not of the world.
    others = [name for name in table.columns if name != target and name not in ignore]
    wanted = list(columns) or [name for name in others if not str(name).startswith("Unnamed: ")]
    rows = len(table)
    if held is not None:
        for column in (target, *wanted):
            if column not in held.columns:
                raise _no_column("validation_path", column, held, "the validation data")
        table = pandas.concat([table, held])
    table.index = pandas.RangeIndex(len(table))  # sentences say in which row something stands
    notes = []
    labelled = table[target].notna().to_numpy()
    kept = None
    if not labelled.all():
        kept = numpy.flatnonzero(labelled[rows:] if held is not None else labelled)
        notes.append(f"{(~labelled).sum()} of {len(table)} rows have no {target!r} and were left out")
        rows, table = int(labelled[:rows].sum()), table[labelled]
    if not rows or (held is not None and rows == len(table)):
        argument = "validation_path" if rows else "path"
        raise wrong(f"data.{argument}", f"data.{argument}: {origin if not rows else 'it'} has no row with a {target!r}")
    if rows == 1:
        raise wrong("data.path", f"data.path: {origin} has a single row with a {target!r}, and at least two are needed")

    encoders: list[Column] = []
    problems: list[Problem] = []
    for column in wanted:
        if table[column].isna().all():
            notes.append(f"column {column!r} is empty and was left out")
            continue
        try:
            encoder = Column.of(table[column], str(column), day_first)
        except RecipeError as error:  # the others are looked at as well, so that all are told at once
            problems += error.problems
            continue
        encoders.append(encoder)
        notes += encoder.doubts(table[column])
    if problems:
        raise RecipeError(problems)
    if same := [encoder.name for encoder in encoders if constant(table[encoder.name])]:
        notes.append(f"the same value in every row, which tells nothing: {shown(same)}")
    if not encoders:
        raise wrong("data.columns", f"data.columns: {origin} has no column to predict {target!r} from")

    values, kind, classes = _target(table[target], target, task)
    predicted = Column(target, kind_of(table[target]))
    if predicted.kind == "category" and (remedy := instead(table[target].astype(str))):
        notes.append(f"{target!r} is {classes[0]!r} and the like, {len(classes)} classes: {remedy}")
    if not classes and constant(table[target]):
        notes.append(f"{target!r} is {values[0]:g} in every row: there is nothing to learn")
    for encoder in encoders if classes else []:
        if _tells(table[encoder.name], values):
            said = f"column {encoder.name!r} alone tells {target!r} in every row: if it is known only afterwards"
            notes.append(f"{said}, {leave_out(encoder.name)}")
    if pair := alike(classes):
        notes.append(f"{target!r} is {pair[0]!r} or {pair[1]!r}, which are two classes: are they one?")
    inputs = stacked(table, encoders)
    return Samples(
        inputs=inputs[:rows],
        targets=values[:rows],
        validation=None if held is None else (inputs[rows:], values[rows:]),
        task=kind,
        classes=classes,
        features=tuple(name for encoder in encoders for name in encoder.features),
        impute=True,
        notes=tuple(notes),
        columns=tuple(encoders),
        target=predicted,
        rows=kept,
        spare=True,
    )


def _tells(values: Series, classes: Any) -> bool:
    """Whether all rows of any one value are of one class; not where the values are too many to mean anything."""
    import numpy
    import pandas

    for some in (slice(1000), slice(None)):  # the first tell of most columns that it is not so
        codes, different = pandas.factorize(values.iloc[some], use_na_sentinel=False)
        pairs = len(numpy.unique(codes * (int(classes.max()) + 1) + classes[some]))
        if len(codes) < FEW or not 1 < len(different) <= len(codes) / 5 or pairs != len(different):
            return False
    return True


def _no_column(field: str, name: str, table: DataFrame, origin: str) -> Exception:
    known = [str(column) for column in table.columns]
    if len(known) == 1 and (found := re.search(r"[;\t|,]", known[0])):
        return wrong("data.delimiter", f"{origin} has one column, {known[0]!r}: is the delimiter {found.group()!r}?")
    said = f"data.{field}: {origin} has no column {name!r}{nearest(name, known)}"
    if all(NUMBER.fullmatch(column) for column in known):
        return wrong(f"data.{field}", f"{said}: its first line, {shown(known)}, holds no names of columns")
    return wrong(f"data.{field}", f"{said}; it has {shown(known)}")


def _target(values: Series, name: str, task: str) -> tuple[Any, Literal["classification", "regression"], tuple[str, ...]]:
    """The target column: class numbers with their names, or numbers."""
    from engine.data.dates import LIKE

    number = kind_of(values) == "number"
    if task == "regression" and not number:
        raise wrong("data.task", f"data.task = 'regression' needs numbers, and column {name!r} holds {values.iloc[0]!r}")
    whole = number and bool((values % 1 == 0).all())
    if task == "regression" or (task == "auto" and number and not (whole and values.nunique() <= CLASSES)):
        return values.to_numpy(float), "regression", ()
    if whole:
        values = values.astype(int)  # a column with missing values was read as floats: "1.0" is no name for a class
    numbers, classes = as_classes(values.to_numpy() if number else values.astype(str).to_numpy(str))
    if len(classes) > CLASSES and not number and all(map(LIKE.fullmatch, classes)):
        said = f"data.target = {name!r} holds dates or times ({classes[0]!r}), which are neither numbers nor classes"
        raise wrong("data.target", f"{said}: a column of numbers can be predicted, such as the days until then")
    if len(classes) > CLASSES and len(classes) > len(values) / 2:
        said = f"data.target = {name!r} has {len(classes)} different values in {len(values)} rows: too many to be classes"
        remedy = "" if number else instead(values.astype(str))
        raise wrong("data.target", f"{said}; {remedy}" if remedy else said)
    return numbers, "classification", classes
