"""Dates and times in tables, against the standard library's datetime and pandas."""

from __future__ import annotations

import datetime
import math
import random
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch

from engine import Recipe, RecipeError, Trainer, evaluate, load_model, predict
from engine.data import dates
from engine.data.columns import Column
from engine.data.prepare import prepare
from engine.data.sources import SOURCES
from engine.recipe import Loading

STYLES = (
    "%Y-%m-%d", "%Y/%m/%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%d.%m.%Y", "%d.%m.%y %H:%M:%S",
    "%d/%m/%Y %I:%M %p", "%d-%b-%Y", "%d %B %Y, %H:%M", "%b %d, %Y", "%B %d %Y %I:%M:%S %p", "%Y-%m-%dT%H:%M:%S%z",
)  # fmt: skip


def by_hand(moment: datetime.datetime) -> list[float]:
    """Years, and sine and cosine of the year, the week and the day."""
    start = datetime.datetime(2000, 1, 1, tzinfo=None if moment.tzinfo is None else datetime.UTC)
    year = datetime.date(moment.year + 1, 1, 1) - datetime.date(moment.year, 1, 1)
    clock = moment.hour + moment.minute / 60 + (moment.second + moment.microsecond / 1e6) / 3600
    turns = (moment.timetuple().tm_yday - 1) / year.days, moment.weekday() / 7, clock / 24
    waves = [wave(2 * math.pi * turn) for turn in turns for wave in (math.sin, math.cos)]
    return [(moment - start) / datetime.timedelta(days=365.2425), *waves]


def moments(count: int, **keywords: Any) -> list[datetime.datetime]:
    drawn = random.Random(0)
    first = datetime.datetime(1970, 1, 1, **keywords)
    return [first + datetime.timedelta(microseconds=drawn.randrange(98 * 365 * 24 * 3600 * 10**6)) for _ in range(count)]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)

    def write(values: Any, name: str = "table.csv", **others: Any) -> str:
        pandas.DataFrame({"when": values, "y": numpy.linspace(0, 1, len(values)), **others}).to_csv(name, index=False)
        return name

    return write


def refused(words: str, *arguments: Any, **keywords: Any) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        SOURCES["csv"](*arguments, **keywords)
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize("style", STYLES)
def test_what_datetime_writes_is_read_as_what_it_was(file: Any, style: str) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)) if "%z" in style else None
    texts = [moment.strftime(style) for moment in moments(200, tzinfo=zone)]
    samples = SOURCES["csv"](file(texts), "y")
    expected = [by_hand(datetime.datetime.strptime(text, style)) for text in texts]
    count = 7 if "M" in style else 5
    numpy.testing.assert_allclose(samples.inputs, numpy.array(expected)[:, :count], atol=1e-9)
    names = ["years", "sin year", "cos year", "sin week", "cos week", "sin day", "cos day"][:count]
    assert samples.features == tuple(f"when ({name})" for name in names)


def test_times_alone_are_hours_and_may_be_longer_than_a_day(file: Any) -> None:
    samples = SOURCES["csv"](file(["9:05", "23:59:30", "12:15 am", "36:30"]), "y")
    hours = [9 + 5 / 60, 24 - 0.5 / 60, 0.25, 36.5]
    expected = [[hour, math.sin(hour * math.pi / 12), math.cos(hour * math.pi / 12)] for hour in hours]
    numpy.testing.assert_allclose(samples.inputs, expected, atol=1e-9)
    assert samples.features == ("when (hours)", "when (sin day)", "when (cos day)")


def test_types_of_parquet_are_dates_too(file: Any) -> None:
    pytest.importorskip("pyarrow")
    stamps = pandas.Series(pandas.to_datetime(["2024-02-29 10:30", None, "2025-06-01 23:00"]))
    there = stamps.dropna()
    kinds = {"stamp": stamps, "zoned": stamps.dt.tz_localize("Europe/Berlin"), "day": stamps.dt.date, "clock": stamps.dt.time}
    for name, values in kinds.items():
        pandas.DataFrame({"when": values, "y": [0.5, 1.5, 2.5]}).to_parquet("t.parquet")
        found = SOURCES["parquet"]("t.parquet", "y").inputs[[0, 2]]
        if name == "clock":
            numpy.testing.assert_allclose(found[:, 0], [10.5, 23])
            continue
        wanted = kinds["zoned"].dropna() if name == "zoned" else there.dt.normalize() if name == "day" else there
        expected = numpy.array([by_hand(moment.to_pydatetime()) for moment in wanted])
        numpy.testing.assert_allclose(found, expected[:, : found.shape[1]], atol=1e-9)
        assert found.shape[1] == (5 if name == "day" else 7)


def test_a_missing_date_is_the_median_in_no_direction_and_an_input_says_so(file: Any) -> None:
    path = file(["2024-01-01", "", "2026-01-01", "2025-01-01", "?"])
    prepared = prepare(SOURCES["csv"](path, "y"), Loading(validation=0.0, standardize=False), "csv")
    assert isinstance(prepared.train, tuple) and prepared.features[-1] == "when (years) is missing"
    rows = prepared.train[0].numpy()
    assert rows[:, -1].tolist() == [0, 1, 0, 0, 1]
    assert rows[1].tolist() == rows[4].tolist() == [rows[3, 0], 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("texts", "told", "month"),
    [
        (["03/04/2025", "13/04/2025"], None, 4), (["03/04/2025", "03/13/2025"], None, 3), (["03.04.2025"] * 2, None, 4),
        (["3-4-25"] * 2, True, 4), (["3-4-25"] * 2, False, 3), (["03.04.2025"] * 2, False, 3), (["2025-04-03"] * 2, True, 4),
        (["03.04.2025", "04/04/2025"], None, 4), (["03.04.2025", "04.13.2025"], None, 3),
    ],
)  # fmt: skip
def test_which_number_is_the_day_is_decided_over_the_whole_column(file: Any, texts: list[str], told: bool, month: int) -> None:
    path = file(texts)
    (column,) = SOURCES["csv"](path, "y", day_first=told).columns
    day = datetime.datetime(2025, month, 7 - month)
    numpy.testing.assert_allclose(column.inputs(pandas.Series(texts))[0][0], by_hand(day)[0])
    again = Column.from_dict(column.as_dict())
    assert again == column
    numpy.testing.assert_array_equal(
        again.inputs(pandas.Series(["03/04/2025"]))[0], column.inputs(pandas.Series(["03/04/2025"]))[0]
    )


def test_mistakes_are_one_sentence(file: Any) -> None:
    unclear = file(["03/04/2025", "05/06/2025"])
    refused("'03/04/2025' and the like, of which either number may be the day: data.day_first = true or false", unclear, "y")
    with pytest.raises(RecipeError) as caught:
        SOURCES["csv"](unclear, "y")
    assert caught.value.problems[0].field == "data.day_first"
    refused("'01/31/2025' in row 2, which is no date with the day first", file(["31/01/2025", "01/31/2025"]), "y")
    refused("'31/01/2025' in row 1, which is no date with the month", file(["31/01/2025"] * 2), "y", day_first=False)
    refused("'01/20/2024' in row 2, which is no date with the day first", file(["05.01.2024", "01/20/2024"]), "y")
    refused("'1 Jan 2024 CET' in row 1, which is no date", file(["1 Jan 2024 CET"] * 2), "y")
    for text in ("2025-02-30", "0000-00-00", "2025-01-01 24:30", "2025-01-01 25:61", "2025-01-01 noon", "9:30"):
        refused(rf"'{text}' in row 2, which is no date: empty it", file(["2025-01-31", text]), "y")
    refused("'9:75' in row 2, which is no time of day", file(["9:30", "9:75"]), "y")
    days = [f"2025-{month}-{day}" for month in range(1, 11) for day in range(1, 20)]
    refused(
        "190 different texts.*: if they are dates, leave 'soon' in row 2 and the like empty, or",
        file([days[0], "soon", *days[1:-1]]),
        "y",
    )
    (note,) = SOURCES["csv"](file([*days[:9], "soon"]), "y").notes
    assert note.endswith("10 categories: if they are dates, leave 'soon' in row 10 and the like empty")
    Path("target.csv").write_text("x,due\n" + "".join(f"{number},{day}\n" for number, day in enumerate(days)))
    refused("data.target = 'due' holds dates or times .'2025-1-1'., which are neither numbers nor classes", "target.csv", "due")
    assert SOURCES["csv"](file(["Jan", "May 5"]), "y").features == ("when = Jan", "when = May 5")


def test_nothing_is_read_as_a_date_that_did_not_look_like_one() -> None:
    """What a run of an older version had as categories stays so."""
    drawn = random.Random(1)
    texts = []
    for moment in moments(4000):
        text = list(moment.strftime(drawn.choice(STYLES)) + drawn.choice(["", "Z", "+01:00"]))
        for _ in range(drawn.randint(0, 2)):
            place = drawn.randrange(len(text))
            text[place : place + drawn.randint(0, 2)] = drawn.choice(["", "1", " ", ":", "-", "T", ".", "a"])
        texts.append("".join(text))
    read = ~numpy.isnan(dates.fields_of(pandas.Series(texts))[:, [0, 4]]).all(axis=1)
    assert 1000 < read.sum() < 3500
    assert all(dates.LIKE.fullmatch(text) for text, known in zip(texts, read, strict=True) if known)
    old = {"name": "c", "kind": "category", "categories": ["a"], "missing": False}
    assert Column.from_dict(old) == Column("c", "category", ("a",))


def test_a_trained_model_takes_dates_however_they_are_written(file: Any) -> None:
    known = [moment.replace(microsecond=0) for moment in moments(60)]
    file([moment.strftime("%m/%d/%Y %H:%M:%S") for moment in known], kind=["a", "b"] * 30)
    changes = {"data.name": "csv", "data.path": "table.csv", "data.target": "y", "data.ignore": ["kind"], "training.epochs": 2}
    recipe = Recipe().replace(**changes, **{"training.device": "cpu", "loss.name": "MSELoss"})
    run = Trainer.from_recipe(recipe, runs="runs").fit().run
    held = prepare(SOURCES["csv"]("table.csv", "y", ignore=["kind"]), Loading(), "csv")
    assert isinstance(held.train, tuple)
    Path("table.csv").unlink()
    new = known[:20]
    found = predict(run, pandas.DataFrame({"when": new}), device="cpu")
    file([moment.strftime("%d %b %Y %I:%M:%S %p") for moment in new], "new.csv")
    assert predict(run, "new.csv", device="cpu").outputs.tolist() == found.outputs.tolist() and not found.notes
    normalization = held.normalization
    inputs = (numpy.array(list(map(by_hand, new))) - normalization["mean"]) / normalization["std"]
    expected = load_model(run)(torch.tensor(inputs, dtype=torch.float32))
    numpy.testing.assert_allclose(found.outputs, expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert evaluate(run, data="new.csv", device="cpu").metrics["loss"] >= 0
    later = predict(run, pandas.DataFrame({"when": ["2099-07-01", None]}), device="cpu")
    assert numpy.isfinite(later.outputs).all()
    (note,) = later.notes
    assert note.startswith("column 'when' holds 2099-07-01, and the training's dates are from 19")
    for text, words in (("soon", "no date"), ("31/12/2025", "no date with the month first")):
        with pytest.raises(RecipeError, match=f"column 'when' holds '{text}' in row 2, which is {words}"):
            predict(run, pandas.DataFrame({"when": ["2024-01-01", text]}), device="cpu")
