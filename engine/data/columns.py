"""Columns of a table as inputs of a model: learned from the training's table, applied to any other."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from engine.data.samples import wrong
from engine.errors import RecipeError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

Kind = Literal["number", "truth", "category", "date", "datetime", "time"]
CATEGORIES = 100  # texts with more different values than this are names or remarks, not categories
IDS = 50  # rows, in which whole numbers that are all different are hardly a measure
GREAT = 1 << 16  # rows, of which a column is worth its memory
FEW = 9  # rows, in which texts may all be different by chance
SHOWN = 3  # values that a sentence names
MEASURED = re.compile(r"\s*([$€£¥₹]|[A-Z]{3}(?= ))?\s*[-+]?[\d.,' ]*\d\s*([$€£¥₹%‰°]|[^\W\d_]{1,4}(?:/[^\W\d_]{1,3})?)?\s*")
MARKS = ((".", ","), (",", ""), (",", "."), (".", " "), (",", " "), (".", "'"))  # before decimals, between digits
NOTATIONS = {  # of numbers that were read as texts
    (decimal, thousands): re.compile(rf"[-+]?(\d{{1,3}}({re.escape(thousands)}\d{{3}})+|\d+)({re.escape(decimal)}\d+)?")
    for decimal, thousands in MARKS
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a number is one input as it is, true or false 1 or 0, a text one 0/1 input for each of `categories`.

    With `missing` a category has one more input, which says that there is none. A missing number stays NaN. Dates and times
    become several inputs (`engine.data.dates`); those of the training are from the first to the second of `span`.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    missing: bool = False
    day_first: bool = False
    span: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Series, name: str, day_first: bool | None = None) -> Column:
        """What the training's values are. RecipeError for what can't be inputs, and dates whose `day_first` must be told."""
        from pandas.api.types import is_scalar

        from engine.data import dates

        first = values.dropna().iloc[0]
        if not is_scalar(first):
            raise _refused(name, f"holds values of type {type(first).__name__}, not plain ones")
        kind = kind_of(values)
        if kind != "category":
            return cls(name, kind)
        texts = _texts(values)
        present = texts.dropna()
        different = present.unique()
        if all(map(dates.LIKE.fullmatch, different.tolist())):
            return cls._of_dates(texts, name, day_first)
        categories = sorted(different)
        if len(categories) > CATEGORIES:
            said = f"{len(categories)} different texts ({present.iloc[0]!r}, …), and at most {CATEGORIES} can be categories"
            remedy = instead(texts)
            raise _refused(name, f"holds {said}", f"{remedy}, or " if remedy else "")
        return cls(name, "category", tuple(categories), bool(texts.isna().any()))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Column:
        """What `as_dict` gave."""
        whose = {"day_first": values.get("day_first", False), "span": tuple(values.get("span", ()))}  # older runs have none
        return cls(values["name"], values["kind"], tuple(values["categories"]), values["missing"], **whose)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "categories": list(self.categories), "span": list(self.span)}

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its inputs."""
        if self.kind in ("number", "truth"):
            return (self.name,)
        if self.kind != "category":
            from engine.data import dates

            return dates.features(self.name, self.kind)
        return *(f"{self.name} = {name}" for name in self.categories), *([f"{self.name} is missing"] if self.missing else [])

    def inputs(self, values: Series) -> list[Any]:
        """The inputs, as many as `features`, with NaN where a number is missing. RecipeError for values of another kind."""
        if self.kind == "number":
            return [self.numbers(values)]
        if self.kind == "truth":
            return [self._truths(values)]
        if self.kind != "category":
            from engine.data import dates

            texts = _texts(values)
            inputs, mistake = self._dates(texts, dates.fields_of(texts))
            if mistake:
                raise wrong("data", f"column {self.name!r} {mistake}")
            return inputs
        import pandas

        texts = _texts(values)
        numbers = pandas.Index(self.categories).get_indexer(pandas.Index(texts))  # -1: none of them
        return [*(numbers == number for number in range(len(self.categories))), *([texts.isna()] if self.missing else [])]

    def numbers(self, values: Series) -> Series:
        """As floats; RecipeError that names the first value that is no number."""
        import pandas

        found = pandas.to_numeric(values, errors="coerce")
        self._refuse(values, found.isna() & values.notna(), "a number")
        return found.astype(float)

    def labels(self, values: Series) -> Series:
        """The names of classes that the values of this column, a target, stand for; NaN where there is none."""
        if self.kind == "category":
            return _texts(values)
        if self.kind == "truth":
            return self._truths(values).map({1.0: "True", 0.0: "False"})
        found = self.numbers(values)
        self._refuse(values, found.notna() & (found % 1 != 0), "a whole number")
        return found.map(lambda value: str(int(value)), na_action="ignore")

    def doubts(self, values: Series) -> list[str]:
        """Sentences on what is likely meant otherwise."""
        if self.kind == "number":
            return self._doubted_numbers(values)
        if self.kind != "category":
            return []
        said = []
        if remedy := instead(_texts(values)):
            said.append(f"holds {self.categories[0]!r} and the like, {len(self.categories)} categories: {remedy}")
        elif FEW < len(self.categories) == len(values):
            said.append(f"holds a different text in each row, as names do: {leave_out(self.name)}")
        if pair := alike(self.categories):
            said.append(f"holds {pair[0]!r} and {pair[1]!r}, which are two categories: are they one?")
        return [f"column {self.name!r} {sentence}" for sentence in said]

    def _doubted_numbers(self, values: Series) -> list[str]:
        if (values.head(IDS).dropna() % 1 != 0).any():  # of most columns the first tell, without an array of their size
            return []
        present = values.dropna()
        if (present % 1 != 0).any():
            return []
        dated = present.min() >= 19_000_101 and present.max() <= 21_001_231
        if dated and ((present // 100 % 100).between(1, 12) & (present % 100).between(1, 31)).all():
            said = f"holds {present.iloc[0]:.0f} and the like, which count as numbers: if they are dates, write 2024-12-31"
        elif len(values) >= IDS and present.is_unique and len(present) == len(values):
            said = f"holds a different whole number in each row: if these are ids, {leave_out(self.name)}"
        else:
            return []
        return [f"column {self.name!r} {said}"]

    def strange(self, values: Series) -> list[str]:
        """What the values hold that the training had not: such a row counts as of none of the categories."""
        if self.kind != "category":
            return []
        texts = _texts(values)
        found = [f"{value!r}" for value in sorted(set(texts.dropna()) - set(self.categories))]
        return found + (["a missing value"] if texts.isna().any() and not self.missing else [])

    def beyond(self, values: Series) -> str:
        """A sentence where dates are before the first or after the last of the training."""
        if not self.span:
            return ""
        import numpy

        from engine.data import dates

        days = dates.days_of(dates.fields_of(_texts(values)), self.day_first)
        outside = days[(days < numpy.datetime64(self.span[0])) | (days > numpy.datetime64(self.span[1]))]
        if not len(outside):
            return ""
        return f"column {self.name!r} holds {outside[0]}, and the training's dates are from {' to '.join(self.span)}"

    @classmethod
    def _of_dates(cls, texts: Series, name: str, day_first: bool | None) -> Column:
        from engine.data import dates

        fields = dates.fields_of(texts)
        if day_first is None and (day_first := dates.day_first(fields)) is None:
            text = texts[fields[:, 3] > 0].iloc[0]
            said = f"column {name!r} holds {text!r} and the like, of which either number may be the day"
            raise wrong("data.day_first", f"{said}: data.day_first = true or false says which it is, or {leave_out(name)}")
        column = cls(name, dates.kind_of(fields), day_first=day_first)
        if mistake := column._dates(texts, fields)[1]:
            raise _refused(name, mistake, "empty it where there is none, or ")
        if column.kind == "time":
            return column
        days = dates.days_of(fields, day_first)[texts.notna()]
        return replace(column, span=(str(days.min()), str(days.max())))

    def _dates(self, texts: Series, fields: NDArray[Any]) -> tuple[list[Any], str]:
        """The inputs, and what is wrong with the first value that is no date or time."""
        import numpy

        from engine.data import dates

        inputs = dates.inputs(fields, self.kind, self.day_first)
        bad = numpy.isnan(inputs[0]) & texts.notna().to_numpy()
        if not bad.any():
            return inputs, ""
        row = int(bad.argmax())
        order = f" with the {'day' if self.day_first else 'month'} first" if fields[row, 3] > 0 else ""
        kind = "time of day" if self.kind == "time" else "date"
        return inputs, f"holds {texts.iloc[row]!r} in row {texts.index[row] + 1}, which is no {kind}{order}"

    def _truths(self, values: Series) -> Series:
        words = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
        found = values.map(lambda value: words.get(str(value).strip().lower()), na_action="ignore").astype(float)
        self._refuse(values, found.isna() & values.notna(), "true or false")
        return found

    def _refuse(self, values: Series, bad: Series, wanted: str) -> None:
        if bad.any():
            row = int(bad.to_numpy().argmax())
            said = f"holds {values.iloc[row]!r} in row {values.index[row] + 1}, and it must be {wanted}"
            raise wrong("data", f"column {self.name!r} {said}")


def _refused(name: str, what: str, remedy: str = "") -> RecipeError:
    return wrong("data.columns", f"column {name!r} {what}: {remedy}{leave_out(name)}")


def leave_out(name: str) -> str:
    """What a recipe says so, in words."""
    return f"leave it out, data.ignore = [{json.dumps(name, ensure_ascii=False)}]"


def constant(values: Series) -> bool:
    """Whether all are the same."""
    return all(some.notna().all() and (some == some.iloc[0]).all() for some in (values.head(IDS), values))


def alike(names: Sequence[str]) -> tuple[str, str] | None:
    """Two of them that differ in nothing but case and blanks."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(" ".join(name.casefold().split()), name)
        if other != name:
            return other, name
    return None


def _notation(texts: Sequence[str]) -> str:
    """What a recipe says of a file whose numbers are written so; empty where nothing it can say makes numbers of them."""
    for (decimal, thousands), written in NOTATIONS.items():
        if all(written.fullmatch(text.strip()) for text in texts):
            said = {"data.decimal": decimal if decimal != "." else "", "data.thousands": thousands}
            return " and ".join(f'{key} = "{mark}"' for key, mark in said.items() if mark)
    return ""


def instead(texts: Series) -> str:
    """What is to be done if these are no categories, but numbers or dates; empty where nothing tells of such."""
    import numpy
    import pandas

    from engine.data import dates

    different = texts.dropna().unique().tolist()
    numbers = pandas.to_numeric(pandas.Series(different), errors="coerce").notna()
    if numbers.all():
        return "if they are numbers, they are texts in the file, or there is a text in a row without a target"
    if notation := _notation(different):
        return f"if they are numbers, {notation} reads them as such"
    measured = [MEASURED.fullmatch(text) for text in different]
    if all(measured) and len(units := {found.groups() for found in measured if found} - {(None, None)}) == 1:
        return f"if they are numbers, write them without {next(unit for unit in units.pop() if unit)!r}"
    for kind, are in (("numbers", numbers), ("dates", [bool(dates.LIKE.fullmatch(text)) for text in different])):
        others = texts.isin(numpy.array(different, object)[~numpy.array(are)])
        if 0 < others.sum() <= texts.notna().sum() / 2:
            row = int(others.to_numpy().argmax())
            return f"if they are {kind}, leave {texts.iloc[row]!r} in row {texts.index[row] + 1} and the like empty"
    return ""


def kind_of(values: Series) -> Kind:
    """What the values of a column are."""
    import numpy

    if values.dtype.kind in "iuf":
        return "number"
    present = values.dropna()
    if len(present) and isinstance(present.iloc[0], bool | numpy.bool_):  # with missing values among them pandas keeps objects
        return "truth" if set(present.unique()) <= {True, False} else "category"
    return "category"


def encoded(table: DataFrame, columns: Sequence[Column], origin: str) -> tuple[Any, tuple[str, ...]]:
    """The table's inputs (N, inputs), and sentences on what in it the training had not.

    RecipeError names the columns that are missing; others than `columns` are not looked at.
    """
    known = [str(name) for name in table.columns]
    absent = [column.name for column in columns if column.name not in table.columns]
    if absent:
        if len(known) == 1 and (found := re.search(r"[;\t|,]", known[0])):
            said = f"{origin} has one column, {known[0]!r}: is the delimiter {found.group()!r}? The training's was another"
            raise wrong("data", said)
        several = f"columns {', '.join(map(repr, absent[:SHOWN]))}" + (", …" if len(absent) > SHOWN else "")
        shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
        what = f"column {absent[0]!r}{nearest(absent[0], known)}" if len(absent) == 1 else several
        raise wrong("data", f"{origin} has no {what}; it has {shown}")
    notes = []
    for column in columns:
        if strange := column.strange(table[column.name]):
            shown = ", ".join(strange[:SHOWN]) + (", …" if len(strange) > SHOWN else "")
            notes.append(f"column {column.name!r} holds {shown}, which the training had not: it counts as none of the others")
        if beyond := column.beyond(table[column.name]):
            notes.append(beyond)
    return stacked(table.copy(deep=False), columns), tuple(notes)


def stacked(table: DataFrame, columns: Sequence[Column]) -> NDArray[Any]:
    """The columns' inputs (N, inputs). Each is taken out of the table as it is written, so that both together are held once."""
    import numpy

    inputs = numpy.empty((len(table), sum(len(column.features) for column in columns)), order="F")
    place = inputs.shape[1]
    for column in reversed(columns):  # the last that was read is the first that the C library gives back
        for values in reversed(column.inputs(table.pop(column.name))):
            place -= 1
            inputs[:, place] = values
        if len(inputs) >= GREAT:
            _give_back()
    return inputs


def _give_back() -> None:
    """To the system, what glibc keeps for later: a small thing behind the columns in its heap would hold them all there."""
    import ctypes

    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _texts(values: Series) -> Series:
    return values.astype(str).where(values.notna())
