"""Columns of a table as inputs of a model: learned from the training's table, applied to any other."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from engine.data.samples import wrong
from engine.errors import RecipeError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

Kind = Literal["number", "truth", "category"]
CATEGORIES = 100  # texts with more different values than this are names or remarks, not categories
_MONTH = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
DATE = re.compile(
    r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    rf"|\d{{1,2}}[-. ]+{_MONTH}[-,. ]+\d{{2,4}}|{_MONTH}[. ]+\d{{1,2}},?[ ]+\d{{4}}|\d{{1,2}}:\d{{2}}(:\d{{2}})?)(\D.*)?",
    re.IGNORECASE,
)
SHOWN = 3  # values that a sentence names
GROUPED, PLAIN = r"[-+]?\d{1,3}(%s\d{3})+", r"[-+]?\d+"
NOTATIONS = {  # of numbers that were read as texts, by what a recipe says of such a file
    'data.thousands = ","': re.compile(rf"({GROUPED % ','}|{PLAIN})(\.\d+)?"),
    'data.decimal = ","': re.compile(rf"{PLAIN}(,\d+)?"),
    'data.decimal = "," and data.thousands = "."': re.compile(rf"({GROUPED % '[.]'}|{PLAIN})(,\d+)?"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: a number is one input as it is, true or false 1 or 0, a text one 0/1 input for each of `categories`.

    With `missing` a category has one more input, which says that there is none. A missing number stays NaN.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    missing: bool = False

    @classmethod
    def of(cls, values: Series, name: str) -> Column:
        """What the training's values are. RecipeError for what can't be inputs."""
        from pandas.api.types import is_scalar

        first = values.dropna().iloc[0]
        if not is_scalar(first):
            raise _refused(name, f"holds values of type {type(first).__name__}, not plain ones")
        kind = kind_of(values)
        if kind != "category":
            return cls(name, kind)
        texts = _texts(values)
        present = texts.dropna()
        if all(DATE.fullmatch(text) for text in present):
            remedy = "write what counts of them as numbers, such as the month, the weekday or the days since the first, or "
            raise _refused(name, f"holds dates or times ({present.iloc[0]!r}), which are no numbers", remedy)
        categories = sorted(present.unique())
        if len(categories) > CATEGORIES:
            said = (
                f"holds {len(categories)} different texts ({present.iloc[0]!r}, …), and at most {CATEGORIES} can be categories"
            )
            notation = _notation(categories)
            raise _refused(name, said, f"are they numbers, {notation}? Else " if notation else "")
        return cls(name, "category", tuple(categories), bool(texts.isna().any()))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Column:
        """What `as_dict` gave."""
        return cls(values["name"], values["kind"], tuple(values["categories"]), values["missing"])

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "categories": list(self.categories)}

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its inputs."""
        if self.kind != "category":
            return (self.name,)
        return *(f"{self.name} = {name}" for name in self.categories), *([f"{self.name} is missing"] if self.missing else [])

    def inputs(self, values: Series) -> list[Any]:
        """The inputs, as many as `features`, with NaN where a number is missing. RecipeError for values of another kind."""
        if self.kind == "number":
            return [self.numbers(values)]
        if self.kind == "truth":
            return [self._truths(values)]
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
        """A sentence where a few words among numbers have made all of them categories."""
        import pandas

        if self.kind != "category":
            return []
        if notation := _notation(self.categories):
            said = f"column {self.name!r} holds {self.categories[0]!r} and the like, {len(self.categories)} categories"
            return [f"{said}: if they are numbers, {notation} reads them as such"]
        spelt = pandas.to_numeric(pandas.Series(self.categories), errors="coerce").isna().to_numpy()
        if not spelt.any() or spelt.all():
            return []
        texts = _texts(values)
        words = texts.isin([name for name, word in zip(self.categories, spelt, strict=True) if word])
        if words.sum() * 2 > texts.notna().sum():
            return []
        where = f"column {self.name!r} holds {texts[words].iloc[0]!r} in row {int(words.to_numpy().argmax()) + 1}"
        return [
            f"{where}, so that its numbers are {len(self.categories)} categories: a number that is missing is left empty, or ?"
        ]

    def strange(self, values: Series) -> list[str]:
        """What the values hold that the training had not: such a row counts as of none of the categories."""
        if self.kind != "category":
            return []
        texts = _texts(values)
        found = [f"{value!r}" for value in sorted(set(texts.dropna()) - set(self.categories))]
        return found + (["a missing value"] if texts.isna().any() and not self.missing else [])

    def _truths(self, values: Series) -> Series:
        words = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
        found = values.map(lambda value: words.get(str(value).strip().lower()), na_action="ignore").astype(float)
        self._refuse(values, found.isna() & values.notna(), "true or false")
        return found

    def _refuse(self, values: Series, bad: Series, wanted: str) -> None:
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise wrong("data", f"column {self.name!r} holds {values.iloc[row]!r} in row {row + 1}, and it must be {wanted}")


def _refused(name: str, what: str, remedy: str = "") -> RecipeError:
    return wrong(
        "data.columns", f"column {name!r} {what}: {remedy}leave it out, data.ignore = [{json.dumps(name, ensure_ascii=False)}]"
    )


def _notation(texts: Sequence[str]) -> str:
    """What a recipe says of a file whose numbers are written so; empty where these are none, or are read as they are."""
    found = [said for said, written in NOTATIONS.items() if all(written.fullmatch(text.strip()) for text in texts)]
    return found[0] if found and any("," in text or "." in text for text in texts) else ""


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
    return inputs


def _texts(values: Series) -> Series:
    return values.astype(str).where(values.notna())
