"""Data for a trained model: files and arrays as samples that are preprocessed as those of its training were."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from engine.data.columns import encoded
from engine.data.nested import leaves, mapped
from engine.data.preprocessing import Preprocessing
from engine.data.samples import as_array, wrong
from engine.data.sources.csv_files import Format, read_csv, refuse_twice
from engine.data.sources.images import ENDINGS as PICTURES
from engine.errors import RecipeError, nearest

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

STDIN = "-"
TABLES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".npy": "npy", ".npz": "npz"}
KINDS = {**TABLES, ".safetensors": "safetensors", ".txt": "text"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Samples to be predicted: `take(first, last)` gives some of them as the model takes them.

    `names` are the files that they come from, where each has one. `notes` are sentences for the person.
    """

    samples: int
    take: Callable[[int, int], Any]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    table: Any = field(default=None, repr=False)  # the data frame that they were read from

    def batches(self, size: int) -> Iterator[Any]:
        """All of them in their order."""
        for first in range(0, self.samples, size):
            yield self.take(first, min(first + size, self.samples))


def inputs_of(given: Any, preprocessing: Preprocessing, source: Mapping[str, Any]) -> Inputs:
    """What a model of this `preprocessing` is to predict.

    given: a path (.csv, .tsv, .parquet, .npy, .npz, .safetensors, .txt, a folder of pictures or a picture; "-" is a CSV on
    standard input), a data frame, an array, tensor or list of samples; or, where the training's own data set gave the model
    something else than one tensor, a batch of that.
    source: the recipe's [data], whose arguments hold for files of the same kind.
    """
    if isinstance(given, str | Path):
        return _of_file(str(given), preprocessing, source)
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return of_table(given, preprocessing, "the table")
    if preprocessing.as_is and isinstance(given, Mapping | tuple):
        return _of_batch(given)
    return of_array(given, preprocessing)


def of_array(values: Any, preprocessing: Preprocessing) -> Inputs:
    """Samples in memory, one a row."""
    array = as_array(values, "inputs")
    preprocessing.inputs(array[:1])  # of another shape or kind: said before the first batch
    return Inputs(samples=len(array), take=lambda first, last: preprocessing.inputs(array[first:last]))


def of_table(table: DataFrame, preprocessing: Preprocessing, origin: str) -> Inputs:
    """The rows of a table, whose columns are found by name."""
    table = table.rename(columns=str)
    table.index = range(len(table))  # sentences say in which row something stands
    refuse_twice(table.columns, "data", origin)
    if preprocessing.columns:
        values, notes = encoded(table, preprocessing.columns, origin)
    else:
        values, notes = _by_features(table, preprocessing, origin), ()
    return Inputs(
        samples=len(table), take=lambda first, last: preprocessing.inputs(values[first:last]), notes=notes, table=table
    )


def read_table(path: str, kind: str, preprocessing: Preprocessing, source: Mapping[str, Any]) -> DataFrame:
    """The table in a file, or on standard input. Texts stay as they are written where the training had texts."""
    name = "standard input" if path == STDIN else path
    if kind == "parquet":
        return _parquet(path)
    columns = [*preprocessing.columns, *([preprocessing.target] if preprocessing.target else [])]
    written = Format.of(source) if source.get("name") == "csv" else Format()
    if path.endswith(".tsv"):
        written = replace(written, delimiter="\t")
    file = io.BytesIO(sys.stdin.buffer.read()) if path == STDIN else existing(path)
    return read_csv(file, written, "data", name, {column.name for column in columns if column.kind == "category"})


def _parquet(path: str) -> DataFrame:
    import pandas

    from engine.data.sources.declare import package

    package("pyarrow", "pyarrow")
    try:
        return pandas.read_parquet(existing(path), engine="pyarrow").reset_index(drop=True)
    except (ValueError, OSError) as error:  # what pandas and pyarrow raise for files that are none derives from these
        raise wrong("data", f"{path} can't be read as a table: {' '.join(str(error).split())}") from None


def existing(path: str, *, folder: bool = False) -> Path:
    """The file or folder. RecipeError that names the nearest one."""
    from engine.data.sources.declare import existing as checked

    try:
        return checked(path, folder=folder)
    except RecipeError as error:
        raise wrong("data", str(error).removeprefix("data.path = ")) from None


def kind_of(path: str, task: str) -> str:
    """The catalog's name of what reads this file. RecipeError for one that nothing reads."""
    if path == STDIN:
        return "csv"
    file = Path(path).expanduser()
    if file.is_dir() or file.suffix.lower() in PICTURES:
        return "images"
    if file.suffix.lower() in KINDS:
        return KINDS[file.suffix.lower()]
    if task == "text" and file.exists():
        return "text"
    known = ", ".join([*KINDS, "a folder of pictures"])
    raise wrong("data", f"{path} is of no kind that is read here: there are {known}")


def _of_file(path: str, preprocessing: Preprocessing, source: Mapping[str, Any]) -> Inputs:
    kind = kind_of(path, preprocessing.task)
    if kind in ("csv", "parquet"):
        return of_table(
            read_table(path, kind, preprocessing, source), preprocessing, "standard input" if path == STDIN else path
        )
    if kind == "images":
        return _of_pictures(existing(path, folder=Path(path).expanduser().is_dir()), preprocessing)
    if kind == "text":
        return _of_text(existing(path), preprocessing)
    return of_array(_array(path, kind, source), preprocessing)


def _array(path: str, kind: str, source: Mapping[str, Any]) -> Any:
    """The array of inputs in a file: that of the name that the recipe gives, or the only one."""
    file = existing(path)
    name = str(source.get("inputs", "x")) if source.get("name") in ("npz", "safetensors") else "x"
    try:
        if kind == "npy":
            return numpy.load(file, allow_pickle=False)
        if kind == "npz":
            with numpy.load(file, allow_pickle=False) as archive:
                return archive[_one_of(archive.files, name, path)]
        from safetensors import safe_open

        with safe_open(file, "np") as tensors:
            return tensors.get_tensor(_one_of(list(tensors.keys()), name, path))
    except RecipeError:
        raise
    except Exception as error:  # three readers, each with errors of its own for a file that is none
        raise wrong("data", f"{path} can't be read: {' '.join(str(error).split())}") from None


def _one_of(names: Sequence[str], name: str, path: str) -> str:
    if name in names or len(names) == 1:
        return name if name in names else names[0]
    raise wrong("data", f"{path} has no array {name!r}{nearest(name, names)}; it has {', '.join(names) or 'none'}")


def _by_features(table: DataFrame, preprocessing: Preprocessing, origin: str) -> Any:
    """Columns for inputs that came from no table: by the names of the features where these have some, else in their order."""
    from engine.data.columns import Column

    if len(preprocessing.raw_shape) != 1:
        shape = ", ".join(map(str, preprocessing.raw_shape))
        raise wrong("data", f"{origin} is a table, and one sample of the run has shape ({shape}): give an .npy or .npz file")
    names = preprocessing.features or tuple(map(str, table.columns))
    if len(names) != preprocessing.raw_shape[0]:
        raise wrong("data", f"{origin} has {len(names)} columns, and the run was trained on {preprocessing.raw_shape[0]}")
    return encoded(table, [Column(name, "number") for name in names], origin)[0]


def _of_pictures(path: Path, preprocessing: Preprocessing) -> Inputs:
    """The pictures below a folder, in the order of their names, or a single one."""
    from engine.data.sources.pictures import Pictures, open_file

    shape = preprocessing.input_shape
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise wrong("data", f"{path} holds pictures, and one sample of the run has shape {shape}")
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix.lower() in PICTURES and f.is_file())
    if not files:
        raise wrong("data", f"{path} holds no pictures ({', '.join(sorted(PICTURES))})")
    pictures = Pictures(files, [0] * len(files), (), open_one=open_file, size=shape[1], grey=shape[0] == 1)

    def take(first: int, last: int) -> Tensor:
        return preprocessing.inputs(numpy.stack([pictures.pixels(index) for index in range(first, last)]))

    names = tuple(str(file if path.is_file() else file.relative_to(path)) for file in files)
    return Inputs(samples=len(files), take=take, names=names)


def _of_text(path: Path, preprocessing: Preprocessing) -> Inputs:
    return of_array(windows(path, preprocessing)[0], preprocessing)


def windows(path: Path, preprocessing: Preprocessing) -> tuple[Any, Any]:
    """A text as windows of characters lying end to end, and the characters that follow each; the tail is left out."""
    if preprocessing.task != "text":
        raise wrong("data", f"{path} is a text, and the run is for {preprocessing.task}")
    context = preprocessing.input_shape[0]
    number = {character: index for index, character in enumerate(preprocessing.classes)}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise wrong("data", f"{path} is not a UTF-8 text ({error})") from None
    unknown = sorted(set(text) - number.keys())
    if unknown:
        raise wrong("data", f"{path} holds {unknown[0]!r}, which is none of the {len(number)} characters of the training")
    if len(text) <= context:
        raise wrong("data", f"{path} has {len(text)} characters, and a window of the run has {context} and the one after it")
    tokens = numpy.array([number[character] for character in text], numpy.int64)
    held = numpy.lib.stride_tricks.sliding_window_view(tokens, context + 1)[::context]
    return held[:, :-1], held[:, 1:]


def _of_batch(given: Any) -> Inputs:
    """Several tensors for each sample, as one's own data set gives them."""
    lengths = {len(value) for value in leaves(given)}
    if len(lengths) != 1:
        raise wrong("data", f"the inputs are of different lengths: {', '.join(map(str, sorted(lengths)))}")
    return Inputs(samples=lengths.pop(), take=lambda first, last: mapped(given, lambda leaf: leaf[first:last]))
