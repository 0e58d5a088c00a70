"""Sources against scikit-learn, the formulas, pandas and files written by hand."""

from __future__ import annotations

import dataclasses
import inspect
import random
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch

from engine.data.prepare import prepare
from engine.data.samples import Task
from engine.data.sources import SOURCES, csv_files
from engine.data.sources.csv_files import Format
from engine.errors import RecipeError
from engine.recipe import Loading

AS_IT_IS = Loading(validation=0.0, standardize=False)


def test_sources_load_nothing_heavy_before_they_are_called():
    code = "import sys, engine.data.sources; print([m for m in ('torch','numpy','pandas','sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_explains_itself(name):
    function = SOURCES[name]
    documentation = inspect.getdoc(function)
    assert documentation and documentation.splitlines()[0].endswith((".", ","))
    own = {field.name for field in dataclasses.fields(Loading)}  # these explain themselves in their own place
    for argument in set(inspect.signature(function).parameters) - own:
        assert f"\n    {argument}: " in documentation
    assert function.task in (*typing.get_args(Task), None)


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_bundled_data_are_scikit_learns(name):
    samples = SOURCES[name]()
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    np.testing.assert_array_equal(samples.inputs, bunch.data / 16 if name == "digits" else bunch.data)
    np.testing.assert_array_equal(samples.targets, bunch.target)
    assert len(samples.features) == bunch.data.shape[1]
    assert samples.task == SOURCES[name].task
    if samples.task == "classification":
        assert samples.classes == tuple(map(str, bunch.target_names))


def test_digits_as_images():
    flat, images = SOURCES["digits"](), SOURCES["digits"](images=True)
    assert images.inputs.shape == (1797, 1, 8, 8) and images.inputs.min() == 0 and images.inputs.max() == 1
    np.testing.assert_array_equal(images.inputs.reshape(1797, 64), flat.inputs)


@pytest.mark.parametrize("name", ["line", "sine", "moons", "spirals"])
def test_generated_data_depend_on_their_seed_alone(name):
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    first, again, other = SOURCES[name](), SOURCES[name](), SOURCES[name](seed=1)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    np.testing.assert_array_equal(first.targets, again.targets)
    assert not np.array_equal(first.inputs, other.inputs)
    assert len(SOURCES[name](samples=17).inputs) == 17
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_generated_data_follow_their_formulas():
    straight = SOURCES["line"](slope=-2.0, intercept=0.5, noise=0.0)
    np.testing.assert_allclose(straight.targets, -2 * straight.inputs[:, 0] + 0.5)
    noisy = SOURCES["line"](samples=5000, slope=0.0, intercept=0.0, noise=0.3)
    assert noisy.targets.std() == pytest.approx(0.3, rel=0.05)
    wave = SOURCES["sine"](noise=0.0, periods=1.0)
    np.testing.assert_allclose(wave.targets, np.sin(2 * np.pi * wave.inputs[:, 0]))
    moons = SOURCES["moons"](noise=0.0)
    centres = np.where(moons.targets[:, None] == 0, [0, 0], [1, 0.5])
    np.testing.assert_allclose(np.linalg.norm(moons.inputs - centres, axis=1), 1)
    spirals = SOURCES["spirals"](arms=4, noise=0.0)
    assert spirals.classes == ("arm 1", "arm 2", "arm 3", "arm 4") and np.bincount(spirals.targets).tolist() == [250] * 4
    radius = np.linalg.norm(spirals.inputs, axis=1)
    angle = 4 * radius + spirals.targets * np.pi / 2
    np.testing.assert_allclose(spirals.inputs, radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1), atol=1e-12)


def refused(field: str, words: str, name: str, *arguments, **keywords) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        SOURCES[name](*arguments, **keywords)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "\n" not in str(caught.value)


def test_impossible_sizes_are_refused():
    refused("data.samples", "data.samples = 0 is too small", "line", samples=0)
    refused("data.arms", "at least 2", "spirals", arms=1)
    refused("data.noise", "data.noise = -1", "moons", noise=-1)
    refused("data.samples", "at least 5", "spirals", arms=5, samples=4)


# CSV


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "table.csv") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


PASSENGERS = """age,fare,sex,alone,survived
22,7.25,male,false,no
38,71.3,female,true,yes
,8.05,female,true,yes
35,,male,false,
54,51.9,?,true,no
"""


def test_csv_columns_are_typed(file):
    samples = SOURCES["csv"](file(PASSENGERS), "survived")
    assert samples.features == ("age", "fare", "sex = female", "sex = male", "sex is missing", "alone")
    expected = [
        [22, 7.25, 0, 1, 0, 0],
        [38, 71.3, 1, 0, 0, 1],
        [np.nan, 8.05, 1, 0, 0, 1],
        [54, 51.9, 0, 0, 1, 1],
    ]
    np.testing.assert_array_equal(samples.inputs, expected)
    assert samples.targets.tolist() == [0, 1, 1, 0] and samples.classes == ("no", "yes")
    assert samples.notes == ("1 of 5 rows have no 'survived' and were left out",)


def test_csv_words_among_numbers_are_told(file):
    rows = [f"{'none' if row == 2 else row},{row if row % 2 else 'x'},{row % 2}" for row in range(9)]
    samples = SOURCES["csv"](file("\n".join(["age,mixed,left", *rows])), "left")
    (note,) = samples.notes
    assert note.startswith("column 'age' holds '0' and the like, 9 categories: if they are numbers, leave 'none' in row 3 and")


def test_csv_what_is_likely_meant_otherwise_is_told(file):
    """Ids, units, spellings, rows that are there twice, in their order or constant; each in one sentence, and nothing else."""
    rows = range(100)
    plain = {"x": [row * 0.37 for row in rows], "y": [row % 13 / 8 for row in rows]}

    def told(table) -> tuple[str, ...]:
        return prepare(SOURCES["csv"](file(pd.DataFrame(table).to_csv(index=False)), "y"), Loading(), "csv").notes

    assert told(plain) == ()
    for name, values, words in (
        ("id", [10**17 + row * 3 for row in rows], "'id' holds a different whole number in each row: if these are ids, leave"),
        ("name", [f"{row} Elm St" for row in rows], "'name' holds a different text in each row, as names do: leave it"),
        ("day", [20240101 + row % 28 for row in rows], "'day' holds 20240101 and the like, which count as numbers: if they"),
        ("off", [f"{row % 9} %" for row in rows], "'0 %' and the like, 9 categories: if they are numbers, write them"),
        ("price", [f"${row % 9}.50" for row in rows], "'$0.50' and the like, 9 categories: if they are numbers, write"),
        ("weight", [f"{row % 9}kg" for row in rows], "if they are numbers, write them without 'kg'"),
        ("sex", ["Male", "male ", "f", "f"] * 25, "'sex' holds 'Male' and 'male ', which are two categories: are they one?"),
        ("same", [1] * 100, "the same value in every row, which tells nothing: same"),
        ("y", ["yes", "Yes", "no", "no"] * 25, "'y' is 'Yes' or 'yes', which are two classes: are they one?"),
        ("y", [f"{row % 9},5" for row in rows], "'y' is '0,5' and the like, 9 classes: if they are numbers, data.decimal"),
        ("y", [1.5] * 100, "'y' is 1.5 in every row: there is nothing to learn"),
        ("y", [f"{row % 9} 000" for row in rows], "9 classes: if they are numbers, data.thousands = \" \" reads"),
        ("when", sorted(f"2024-01-{row % 28 + 1:02}" for row in rows), "the rows are in the order of 'when', and those"),
    ):  # fmt: skip
        (note,) = told({**plain, name: values})
        assert words in note
    assert "column 'copy' alone tells 'y' in every row" in told({**plain, "y": ["a", "b"] * 50, "copy": [3, 8] * 50})[0]
    for harmless in (["A1", "B2"] * 50, ["1st", "2nd"] * 50, ["18-25", "26-40"] * 50, ["S", "XL"] * 50):
        assert told({**plain, "code": harmless}) == ()


def test_csv_rows_that_are_validated_on_and_trained_on_are_counted(file):
    rows = range(100)
    table = pd.DataFrame({"x": [row * 0.37 for row in rows], "kind": ["a", "b"] * 50, "y": [row % 13 / 8 for row in rows]})
    path = file(table.iloc[[*rows, *range(25)]].to_csv(index=False))
    prepared = prepare(SOURCES["csv"](path, "y"), Loading(), "csv")
    training, held = (part[0].tolist() for part in (prepared.train, prepared.validation))
    both = sum(row in training for row in held)
    assert both and prepared.notes == (f"{both} of the 25 rows that are validated on are trained on too",)
    other = file(table.iloc[40:60].to_csv(index=False), "held.csv")
    notes = prepare(SOURCES["csv"](path, "y", validation_path=other), Loading(), "csv").notes
    assert notes == ("20 of the 20 rows that are validated on are trained on too",)
    assert prepare(SOURCES["csv"](path, "y"), Loading(validation=0.0), "csv").notes == ()
    coarse = file(table[["kind"]].assign(y=[0.5, 1.5] * 50).to_csv(index=False), "coarse.csv")
    assert prepare(SOURCES["csv"](coarse, "y"), Loading(), "csv").notes == ()  # such rows are alike by nature


def test_csv_missing_numbers_become_the_training_median(file):
    random_ = np.random.default_rng(0)
    table = pd.DataFrame({"a": random_.normal(size=60), "b": random_.normal(size=60), "y": random_.normal(size=60)})
    table.loc[random_.permutation(60)[:15], "a"] = np.nan
    samples = SOURCES["csv"](file(table.to_csv(index=False)), "y")
    prepared = prepare(samples, Loading(standardize=False, split_seed=3), "csv")
    assert prepared.features == ("a", "b", "a is missing") and prepared.input_shape == (3,)

    x, y = prepared.train
    rows = [int(np.argmin(np.abs(table["y"] - value))) for value in y[:, 0].tolist()]
    training = table.iloc[rows]
    filled = training["a"].fillna(training["a"].median())
    np.testing.assert_allclose(x[:, 0].numpy(), filled, rtol=1e-6)
    np.testing.assert_array_equal(x[:, 2].numpy(), training["a"].isna())
    held, _ = prepared.validation
    gaps = held[:, 2] == 1
    assert gaps.any() and torch.allclose(held[gaps, 0], torch.tensor(training["a"].median(), dtype=torch.float32))
    assert prepared.normalization["median"] == pytest.approx([training["a"].median(), training["b"].median()])
    assert prepared.normalization["missing"] == [0]


@pytest.mark.parametrize(
    ("values", "asked", "task", "classes"),
    [
        (["a", "b", "a"], "auto", "classification", ("a", "b")),
        (["true", "false", "true"], "auto", "classification", ("False", "True")),
        (["true", "", "false", "true"], "auto", "classification", ("False", "True")),
        (["3", "10", "3"], "auto", "classification", ("3", "10")),
        (["3", "", "10", "3"], "auto", "classification", ("3", "10")),
        (["1.5", "2", "3"], "auto", "regression", ()),
        ([str(i) for i in range(21)], "auto", "regression", ()),
        ([str(i) for i in range(20)], "auto", "classification", tuple(str(i) for i in range(20))),
        (["3", "10", "3"], "regression", "regression", ()),
        (["0.5", "1.5", "0.5"], "classification", "classification", ("0.5", "1.5")),
    ],
)
def test_csv_target_decides_the_task(file, values, asked, task, classes):
    path = file("x,y\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values)))
    samples = SOURCES["csv"](path, "y", task=asked)
    assert (samples.task, samples.classes) == (task, classes)
    present = [value for value in values if value]
    if classes:
        assert [classes[number] for number in samples.targets] == [v.title() if v in ("true", "false") else v for v in present]
    else:
        assert samples.targets.tolist() == [float(value) for value in present]


def test_csv_takes_chosen_columns_and_delimiters_and_leaves_out_row_numbers(file):
    path = file("a;b;y\n1;2;3.5\n4;5;6.5\n")
    assert SOURCES["csv"](path, "y", columns=["b"], delimiter=";").inputs.tolist() == [[2], [5]]
    indexed = file(pd.DataFrame({"a": [1.0, 2.0], "y": [0.5, 1.5]}).to_csv(), "indexed.csv")
    assert SOURCES["csv"](indexed, "y").features == ("a",)
    empty = SOURCES["csv"](file("a,b,y\n1,,0.5\n2,,1.5\n", "empty.csv"), "y")
    assert empty.features == ("a",) and empty.notes == ("column 'b' is empty and was left out",)


@pytest.mark.parametrize(
    ("delimiter", "decimal", "thousands", "encoding", "price"),
    [(";", ",", ".", "utf-8-sig", "1.234,5"), ("\t", ".", ",", "cp1252", "1,234.5"), (",", ".", "", "utf-16", "1234.5")],
)
def test_csv_files_of_the_world_are_read_as_the_plain_one_is(file, tmp_path, delimiter, decimal, thousands, encoding, price):
    rows = ["Größe ,city,price,y", "1.5,Köln,1234.5,a", "2.5,Bonn,3.0,b", "?,Köln,4.0,a"]
    one = SOURCES["csv"](file("\n".join(rows)), "y")
    place = "\u0000"
    words = [
        row.replace(",", place).replace("1234.5", price) if i == 1 else row.replace(",", place) for i, row in enumerate(rows)
    ]
    words[1] = words[1].replace("1.5", "1" + decimal + "5")
    words[2:] = [row.replace(".", decimal) for row in words[2:]]
    (tmp_path / "world.csv").write_text("\n".join(words).replace(place, delimiter), encoding)
    written = {"delimiter": delimiter, "decimal": decimal, "thousands": thousands}
    encoding = "utf-8" if encoding == "utf-8-sig" else encoding  # the mark at the beginning is passed over
    other = SOURCES["csv"](str(tmp_path / "world.csv"), "y", encoding=encoding, **written)
    assert one.features == other.features == ("Größe", "city = Bonn", "city = Köln", "price")
    np.testing.assert_array_equal(one.inputs, other.inputs)
    assert one.targets.tolist() == other.targets.tolist() == [0, 1, 0]


def test_csv_numbers_in_another_notation_are_told_and_a_delimiter_at_each_end_moves_nothing(file):
    said = SOURCES["csv"](file('p,q,y\n"1,234.5","1,5",a\n"2,000","2",b\n'), "y").notes
    assert "'1,234.5' and the like, 2 categories: if they are numbers, data.thousands = \",\" reads" in said[0]
    assert "'1,5' and the like, 2 categories: if they are numbers, data.decimal = \",\" reads" in said[1] and len(said) == 2
    ended = SOURCES["csv"](file("a,b,y\n1,2,0.5,\n3,4,1.5,\n", "ended.csv"), "y")
    assert ended.inputs.tolist() == [[1, 2], [3, 4]] and ended.targets.tolist() == [0.5, 1.5]


def test_csv_mistakes_are_one_sentence(file, tmp_path, monkeypatch):
    path = file(PASSENGERS)
    refused("data.target", r"no column 'survivd'; the nearest is 'survived'; it has age, fare", "csv", path, "survivd")
    refused("data.columns", r"no column 'ages'; the nearest is 'age'", "csv", path, "survived", columns=["ages"])
    refused("data.columns", "the target 'survived' itself", "csv", path, "survived", columns=["age", "survived"])
    refused("data.task", "needs numbers.*'survived' holds 'no'", "csv", path, "survived", task="regression")
    refused("data.delimiter", "is the delimiter ';'", "csv", file("a;b\n1;2\n", "semicolon.csv"), "b")
    refused("data.delimiter", "single character", "csv", path, "age", delimiter=", ")
    refused("data.path", "'nowhere.csv' does not exist", "csv", "nowhere.csv", "y")
    monkeypatch.chdir(tmp_path)
    refused("data.path", "'tabel.csv' does not exist; the nearest is 'table.csv'", "csv", "tabel.csv", "y")
    refused("data.path", "is a directory", "csv", str(tmp_path), "y")
    refused("data.path", "is empty: a table has a line with the names of its columns", "csv", file("", "nothing.csv"), "y")
    refused("data.path", "has a header line and no rows below it", "csv", file("x,y\n", "header.csv"), "y")
    refused("data.path", "has a single row with a 'y'", "csv", file("x,y\n1,2\n", "single.csv"), "y")
    twice = file("a,b,a,y\n1,2,3,4\n", "twice.csv")
    refused("data.path", "names two columns 'a', the 1st and the 3rd: rename one", "csv", twice, "y")
    longer = file("a,y\n1,0\n1,2,0\n", "longer.csv")
    refused("data.path", "line 3 holds 3 values, and the first line names 2 columns", "csv", longer, "y")
    refused("data.path", "more values in a row than names in its first line", "csv", file("a,y\n1,2,3\n", "moved.csv"), "y")
    refused("data.path", "opens in line 3 is never closed", "csv", file('a,y\n1,2\n"3,4\n', "open.csv"), "y")
    refused("data.path", "is the delimiter ';'", "csv", file("a;y\n1,5;2\n1,5;2,5,1\n", "commas.csv"), "y")
    refused("data.target", "first line, 1, 2.5, holds no names of columns", "csv", file("1,2.5\n3,4\n", "bare.csv"), "y")
    refused("data.path", "first line, 1, 1, 0, holds no names of columns", "csv", file("1,1,0\n3,4,1\n", "bare2.csv"), "y")
    refused("data.path", "first line, 'Report of 2024'", "csv", file("Report of 2024\n\na,y\n1,2\n", "preamble.csv"), "y")
    refused("data.encoding", "'utf9' is no encoding of text; the nearest is 'utf-8'", "csv", path, "age", encoding="utf9")
    refused("data.decimal", "is data.delimiter too", "csv", path, "age", decimal=",")
    refused("data.thousands", "is data.decimal too", "csv", path, "age", thousands=".")
    refused("data.ignore", "no column 'ages'; the nearest is 'age'", "csv", path, "survived", ignore=["ages"])
    refused("data.ignore", "holds 'age', and data.columns too", "csv", path, "survived", columns=["age"], ignore=["age"])
    refused("data.path", "no row with a 'y'", "csv", file("x,y\n1,\n", "unlabelled.csv"), "y")
    refused("data.columns", "no column to predict 'y'", "csv", file("y\n1\n2\n", "alone.csv"), "y")
    names = "".join(f"name{i},{i % 2}\n" for i in range(101))
    refused("data.columns", "column 'who' holds 101 different texts", "csv", file("who,y\n" + names, "names.csv"), "y")
    refused("data.target", "101 different values in 101 rows", "csv", file("y,x\n" + names, "labels.csv"), "y")
    rows = "".join(f"name{i},code{i},{i},{i % 2}\n" for i in range(101))
    both = file("when,who,x,y\n" + rows, "both.csv")
    with pytest.raises(RecipeError, match="'when' holds 101 different texts(?s:.*)'who' holds 101 different"):  # both at once
        SOURCES["csv"](both, "y")
    assert SOURCES["csv"](both, "y", ignore=["when", "who"]).features == ("x",)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01,\n")
    refused("data.path", 'not text in UTF-8: data.encoding = "utf-16" may', "csv", "binary.csv", "y")
    infinite = SOURCES["csv"](file("x,y\n1,0.5\ninf,0.5\n2,0.1\n", "infinite.csv"), "y")
    with pytest.raises(RecipeError, match="inf as input in 'x', sample 1"):
        prepare(infinite, AS_IT_IS, "csv")


# NPZ


def test_npz_gives_its_arrays(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(10, 3)), np.arange(10) % 3
    np.savez(tmp_path / "data.npz", x=x, y=y, labels=np.array(["b", "a"] * 5), values=np.linspace(0, 1, 10))
    path = str(tmp_path / "data.npz")
    samples = SOURCES["npz"](path)
    np.testing.assert_array_equal(samples.inputs, x)
    assert samples.task == "classification" and samples.targets.tolist() == y.tolist() and samples.classes == ("0", "1", "2")
    assert SOURCES["npz"](path, targets="labels").classes == ("a", "b")
    assert SOURCES["npz"](path, targets="values").task == "regression"


def test_npz_mistakes_are_one_sentence_and_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(tmp_path / "data.npz", x=np.ones((2, 1)), y=np.array([Trap(), Trap()], dtype=object))
    path = str(tmp_path / "data.npz")
    refused("data.targets", "never unpickled", "npz", path)
    refused("data.inputs", "'X_train' is not in .*data.npz, which holds x, y", "npz", path, inputs="X_train")
    refused("data.targets", "the nearest is 'y'", "npz", path, targets="Y")
    refused("data.path", "does not exist", "npz", str(tmp_path / "other.npz"))
    np.save(tmp_path / "single.npy", np.ones(3))
    refused("data.path", "not an .npz archive", "npz", str(tmp_path / "single.npy"))


def test_a_table_is_read_in_pieces_as_if_it_were_read_at_once(file, monkeypatch):
    """Also where a piece alone would say that texts are numbers, and a mistake has the number of its line."""
    monkeypatch.setattr(csv_files, "ROWS", 4)
    rows = [
        f"{row},{row / 7},00{row},{row if row < 9 else ''},{'' if row < 5 else row % 2 == 0},{'?' if row < 9 else 'late'}"
        for row in range(11)
    ]
    path = file("\n".join(["whole,number,code,missing,truth,word", *rows, "1e3,2,x,3,True,no"]) + "\n")
    told = Format().options()
    found = csv_files.read_csv(Path(path), Format(), "data.path", "it")
    pd.testing.assert_frame_equal(found, pd.read_csv(path, **told))
    assert found["code"].tolist()[:2] == ["000", "001"]
    with Path(path).open("a") as opened:
        opened.write("1,2,3,4,5,6,7\n")
    refused("data.path", "line 14 holds 7 values", "csv", path, "whole")
