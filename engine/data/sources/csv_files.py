"""CSV files as they come: with semicolons, decimal commas, in any encoding; what is no table is one sentence."""

from __future__ import annotations

import codecs
import io
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.data.samples import wrong
from engine.errors import nearest

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN = 3  # column names that a sentence quotes
NUMBER = re.compile(r"\s*[-+]?\d*\.?\d+([eE][-+]?\d+)?\s*")
ROWS = 1 << 16  # of a file that are read at a time


@dataclass(frozen=True, slots=True)
class Format:
    """How a CSV file is written, in the words of a recipe's [data]."""

    delimiter: str = ","
    decimal: str = "."
    thousands: str = ""
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """RecipeError for what no file can be written with."""
        if len(self.delimiter) != 1:
            raise wrong("data.delimiter", f"data.delimiter = {self.delimiter!r} must be a single character")
        if len(self.thousands) > 1:
            raise wrong("data.thousands", f"data.thousands = {self.thousands!r} must be a single character, or empty")
        if self.decimal == self.delimiter:
            raise wrong("data.decimal", f"data.decimal = {self.decimal!r} is data.delimiter too: is that ';'?")
        if self.thousands == self.decimal:
            raise wrong("data.thousands", f"data.thousands = {self.thousands!r} is data.decimal too: only one can be")
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            from encodings.aliases import aliases

            known = nearest(self.encoding, sorted({name.replace("_", "-") for name in aliases.values()}))
            said = (
                f"data.encoding = {self.encoding!r} is no encoding of text{known}; utf-8, cp1252 and utf-16 are the usual ones"
            )
            raise wrong("data.encoding", said) from None

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Format:
        """That of the arguments of a recipe's [data]; others than the format's are not looked at."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments})

    def options(self) -> dict[str, Any]:
        """What pandas.read_csv is told: what it would not do by itself."""
        said: dict[str, Any] = {"sep": self.delimiter, "decimal": self.decimal, "encoding": self.encoding}
        usual = {"sep": ",", "decimal": ".", "encoding": "utf-8"}
        # "?" is how the UCI data sets write a missing value; without index_col a row that is too long moves all values.
        always = {"na_values": ["?"], "skipinitialspace": True, "low_memory": False, "index_col": False}
        told = {key: value for key, value in said.items() if value != usual[key]}
        return told | ({"thousands": self.thousands} if self.thousands else {}) | always


def read_csv(file: Path | io.BytesIO, written: Format, field: str, said: str, texts: Collection[str] = ()) -> DataFrame:
    """The table in a CSV file. Columns called as in `texts` stay as they are written.

    RecipeError on `field` for what is no table; `said` is what the sentence calls it.
    """
    import pandas

    options = written.options()
    with _explained(file, written, field, said):
        usual = {key: value for key, value in options.items() if key not in ("na_values", "index_col")}
        first = pandas.read_csv(_from_start(file), header=None, nrows=1, dtype=str, keep_default_na=False, **usual)
        head = [str(name) for name in first.iloc[0]]
        refuse_twice(head, field, said)
        kept = {name: str for name in head if name.strip() in texts}
        table = _in_pieces(file, {**options, "dtype": kept or None})
    table.columns = table.columns.str.strip()
    if table.empty:
        raise wrong(field, f"{said} has a header line and no rows below it: each row is a sample")
    return table


def _in_pieces(file: Path | io.BytesIO, options: Mapping[str, Any]) -> DataFrame:
    """The table, read some rows at a time: of what pandas reads at once it holds the text besides, twice as much again."""
    import pandas

    with pandas.read_csv(_from_start(file), chunksize=ROWS, **options) as reader:
        pieces = list(reader)
    if len(pieces) == 1:
        return pieces[0]
    names = list(pieces[0].columns)
    unlike = [name for name in names if len(kinds := {piece[name].dtype for piece in pieces}) > 1 and not _numbers(kinds)]
    columns = {name: pandas.concat([piece.pop(name) for piece in pieces], ignore_index=True) for name in names}
    if unlike:  # words in one piece, and what pandas takes for numbers in another: only the whole column tells what it is
        columns |= dict(pandas.read_csv(_from_start(file), usecols=unlike, **options).items())
    return pandas.DataFrame(columns, copy=False)


def _numbers(kinds: Collection[Any]) -> bool:
    return all(kind.kind in "if" for kind in kinds)


def refuse_twice(names: Collection[Any], field: str, said: str) -> None:
    """RecipeError where two columns have one name: which of them is meant can't be told."""
    if len(set(names)) < len(names) and all(NUMBER.fullmatch(str(name)) for name in names):
        raise wrong(field, f"{said}: its first line, {shown(names)}, holds no names of columns")
    known: dict[str, int] = {}
    for place, name in enumerate((str(name).strip() for name in names), 1):
        if name and name in known:
            raise wrong(field, f"{said} names two columns {name!r}, the {_th(known[name])} and the {_th(place)}: rename one")
        known[name] = place


def shown(names: Collection[Any]) -> str:
    """Some of the names, for a sentence."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:10]) + (", …" if len(listed) > 10 else "")


@contextmanager
def _explained(file: Path | io.BytesIO, written: Format, field: str, said: str) -> Iterator[None]:
    """What pandas finds wrong, in words for whoever wrote the file."""
    from pandas.errors import EmptyDataError, ParserWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            yield
    except EmptyDataError:
        raise wrong(field, f"{said} is empty: a table has a line with the names of its columns, and a row a sample") from None
    except UnicodeError:
        likely = "utf-16" if _start(file).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "cp1252"
        named = f'data.encoding = "{likely}"' if likely != written.encoding else "data.encoding"
        remedy = f"{named} may say what it is in" if field != "data" else "the run's training data were"
        raise wrong(field, f"{said} is not text in {written.encoding.upper()}: {remedy}") from None
    except ParserWarning:
        raise wrong(field, f"{said} has more values in a row than names in its first line{_other(file, written)}") from None
    except (ValueError, OSError) as error:  # what pandas raises for files that are none derives from these
        raise wrong(field, f"{said} can't be read as a table: {_why(error, file, written)}") from None


def _why(error: ValueError | OSError, file: Path | io.BytesIO, written: Format) -> str:
    words = " ".join(str(error).split())
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", words):
        columns, line, values = found.groups()
        several = "columns" if columns != "1" else "column"
        return f"line {line} holds {values} values, and the first line names {columns} {several}{_other(file, written)}"
    if found := re.search(r"EOF inside string starting at row (\d+)", words):
        return f"the quotation mark that opens in line {int(found.group(1)) + 1} is never closed"
    return words


def _other(file: Path | io.BytesIO, written: Format) -> str:
    """Another delimiter that the first line has, as a question."""
    line = _start(file).decode(written.encoding, "replace").lstrip("\ufeff\r\n").split("\n")[0]
    if written.delimiter in line:
        return "; is a text that holds a delimiter in quotes?"
    found = [mark for mark in ";\t|," if mark in line]
    return f"; is the delimiter {found[0]!r}?" if found else f", {line.strip()[:40]!r}"


def _start(file: Path | io.BytesIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:4096]
    try:
        with file.open("rb") as opened:
            return opened.read(4096)
    except OSError:
        return b""


def _from_start(file: Path | io.BytesIO) -> Path | io.BytesIO:
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return file


def _th(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
