"""Dates and times that stand in a table as texts: what they say, and the inputs of a model that they become."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pandas import Series

Array = NDArray[Any]
Kind = Literal["date", "datetime", "time"]
CYCLES = {"date": ("year", "week"), "datetime": ("year", "week", "day"), "time": ("day",)}
START, YEAR = numpy.datetime64("2000-01-01"), 365.2425  # what years are counted from, and the days of one
DAY = numpy.timedelta64(1, "D")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = f"({'|'.join(_MONTHS)})[a-z]*"
LIKE = re.compile(  # at a glance: each that is one is like this
    r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    rf"|\d{{1,2}}[-. ]+{_MONTH}[-,. ]+\d{{2,4}}|{_MONTH}[. ]+\d{{1,2}},?[ ]+\d{{4}}|\d{{1,2}}:\d{{2}}(:\d{{2}})?)(\D.*)?",
    re.IGNORECASE,
)
_DAYS = tuple(
    re.compile(rf"{day}[t,\s]*", re.IGNORECASE | re.ASCII)
    for day in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<month>\d{1,2})(?P<mark>[-/.])(?P<day>\d{1,2})(?P=mark)(?P<year>\d{4}|\d{2})",
        rf"(?P<day>\d{{1,2}})[-. ]+(?P<month>{_MONTH})[-,. ]+(?P<year>\d{{4}}|\d{{2}})",
        rf"(?P<month>{_MONTH})[. ]+(?P<day>\d{{1,2}}),?[ ]+(?P<year>\d{{4}})",
    )
)
_CLOCK = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2}(?:[.,]\d+)?))?\s*(?:([ap])\.?m\.?)?\s*(?:z|utc|gmt|([-+])(\d{2}):?(\d{2})?)?",
    re.IGNORECASE | re.ASCII,
)
_NONE = (numpy.nan,) * 6


def features(name: str, kind: str) -> tuple[str, ...]:
    """The names of the inputs: how far along, and where in each cycle."""
    far = f"{name} ({'hours' if kind == 'time' else 'years'})"
    return far, *(f"{name} ({wave} {cycle})" for cycle in CYCLES[kind] for wave in ("sin", "cos"))


def fields_of(texts: Series) -> Array:
    """A row a text: year, month, day, how its order is known, hours, and the hours that its zone is ahead.

    The order is 0 where it is known, 1 where day and month may have changed places, 2 where there are dots between them.
    NaN is what a text does not say; all of it, where it is neither date nor time or there is none.
    """
    import pandas

    codes, different = pandas.factorize(texts)
    found = numpy.fromiter(map(_fields, different.tolist()), numpy.dtype((numpy.float64, 6)), len(different))
    rows: Array = numpy.concatenate([found, [_NONE]])[codes]  # -1, the last: there is none
    return rows


def _fields(text: str) -> tuple[float, ...]:
    text = text.strip()
    colon = text.find(":")
    start = len(text) if colon < 0 else max(colon - 2, 0)
    start += not text[start : start + 1].isdigit()  # an hour may have a single digit
    day, clock = _day(text[:start]), _clock(text[start:])
    run_together = 0 < start < len(text) and text[start - 1].isdigit()
    return _NONE if day is None or clock is None or run_together else day + clock


@lru_cache(1 << 16)  # in a column both come again and again
def _day(text: str) -> tuple[float, ...] | None:
    if not text:
        return _NONE[:4]
    found = next((found for day in _DAYS if (found := day.fullmatch(text))), None)
    if found is None:
        return None
    said = found.groupdict()
    year, month = said["year"], said["month"]
    century = 0 if len(year) == 4 else 1900 if int(year) > 68 else 2000  # as POSIX has it
    number = int(month) if month.isdecimal() else _MONTHS.index(month[:3].lower()) + 1
    return century + int(year), number, int(said["day"]), {"/": 1, "-": 1, ".": 2}.get(said.get("mark", ""), 0)


@lru_cache(1 << 17)
def _clock(text: str) -> tuple[float, ...] | None:
    if not text:
        return _NONE[:2]
    found = _CLOCK.fullmatch(text)
    if found is None:
        return None
    hour, minute, second, half, sign, ahead, minutes = found.groups()
    hours, seconds = int(hour), float((second or "0").replace(",", "."))
    if int(minute) > 59 or seconds >= 61 or (half and not 1 <= hours <= 12):
        return None
    if half:
        hours = hours % 12 + 12 * (half in "pP")
    offset = (int(ahead) + int(minutes or 0) / 60) * (-1 if sign == "-" else 1) if sign else 0.0
    return hours + int(minute) / 60 + seconds / 3600, offset


def kind_of(fields: Array) -> Kind:
    """What most is said by any of them."""
    if numpy.isnan(fields[:, 0]).all() and not numpy.isnan(fields[:, 4]).all():
        return "time"
    return "datetime" if (fields[:, 4] > 0).any() else "date"


def day_first(fields: Array) -> bool | None:
    """Whether the day stands before the month, as some value shows or dots mean; None where it may be either."""
    order, first, second = fields[:, 3], fields[:, 1], fields[:, 2]
    dots = (order == 2).any() and not (second[order == 2] > 12).any()
    if dots or (first[order > 0] > 12).any():
        return True
    return None if (order == 1).any() and not (second[order > 0] > 12).any() else False


def days_of(fields: Array, day_first: bool) -> Array:
    """The dates, NaT where there is none in the calendar."""
    year, month, day, order = fields[:, :4].T
    if day_first:
        month, day = numpy.where(order > 0, (day, month), (month, day))
    real = (year > 0) & (month > 0) & (month < 13) & (day > 0)
    months = numpy.where(real, (year - 1970) * 12 + month - 1, 0).astype("M8[M]")
    days = months.astype("M8[D]") + numpy.where(real, day - 1, 0).astype("m8[D]")
    return numpy.where(real & (days.astype("M8[M]") == months), days, numpy.datetime64("NaT"))


def inputs(fields: Array, kind: str, day_first: bool) -> list[Array]:
    """As many as `features`. The first is NaN where there is no such date or time, and the others are 0, in no direction.

    Years count from 2000 in universal time, the cycles are those of the clock and the calendar where it was written.
    """
    clock = fields[:, 4]
    hours = numpy.nan_to_num(clock)
    if kind == "time":
        far = numpy.where(numpy.isnan(fields[:, 0]) & numpy.isfinite(clock), clock, numpy.nan)
        turns = {"day": far / 24}
    else:
        days = days_of(fields, day_first)
        days[~(numpy.isnan(clock) | (clock < 24))] = numpy.datetime64("NaT")
        far = ((days - START) / DAY + (hours - numpy.nan_to_num(fields[:, 5])) / 24) / YEAR
        years = days.astype("M8[Y]")
        turns = {
            "year": (days - years) / ((years + 1).astype("M8[D]") - years.astype("M8[D]")),
            "week": ((days - START) / DAY + 5) % 7 / 7,  # 2000 began on a Saturday
            "day": numpy.where(numpy.isnan(far), numpy.nan, hours / 24),
        }
    waves = [wave(2 * numpy.pi * turns[cycle]) for cycle in CYCLES[kind] for wave in (numpy.sin, numpy.cos)]
    return [far, *map(numpy.nan_to_num, waves)]
