"""Files of arrays, tables, pictures and text, against what NumPy, pandas, Pillow and plain Python wrote into them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file

from engine.data.batches import make_batches
from engine.data.prepare import prepare
from engine.data.sources import SOURCES, pictures
from engine.errors import RecipeError
from engine.recipe import Loading

AS_IT_IS = Loading(validation=0.0, standardize=False)


def refused(field: str, words: str, name: str, *arguments, **keywords) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        SOURCES[name](*arguments, **keywords)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "\n" not in str(caught.value)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


# .npy, .npz, .safetensors


@pytest.fixture
def arrays(here) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    values = {
        "x": random.normal(size=(10, 3)),
        "y": np.array([4, 7, 9, 4, 4, 7, 9, 9, 7, 4]),
        "held_x": random.normal(size=(4, 3)),
        "held_y": np.array([9, 7, 7, 4]),
        "numbers": random.normal(size=10),
        "pixels": random.integers(0, 256, (10, 1, 4, 4), dtype=np.uint8),
    }
    np.savez("data.npz", **values)
    save_file(values, "data.safetensors")
    for name, value in values.items():
        np.save(f"{name}.npy", value)
    return values


def load(kind: str, *names: str):
    """Inputs and targets, and those to validate on, by the names of the arrays."""
    keys = dict(zip(("inputs", "targets", "validation_inputs", "validation_targets"), names, strict=False))
    if kind == "npy":
        return SOURCES["npy"](**{key: f"{name}.npy" for key, name in keys.items()})
    return SOURCES[kind](f"data.{kind}", **keys)


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_arrays_are_read_whole(kind, arrays):
    samples = load(kind, "x", "y")
    np.testing.assert_array_equal(samples.inputs, arrays["x"])
    assert samples.task == "classification" and samples.classes == ("4", "7", "9") and samples.validation is None
    assert [samples.classes[number] for number in samples.targets] == [str(value) for value in arrays["y"]]
    assert load(kind, "x", "numbers").task == "regression"
    pixels = prepare(load(kind, "pixels", "y"), AS_IT_IS, kind).train[0]
    assert pixels.dtype == torch.float32 and pixels.sum().item() == pytest.approx(arrays["pixels"].sum() / 255)


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_arrays_bring_their_own_validation_part(kind, arrays):
    prepared = prepare(load(kind, "x", "y", "held_x", "held_y"), Loading(), kind)
    assert len(prepared.train[0]) == 10 and prepared.validation[1].tolist() == [2, 1, 1, 0]
    mean, deviation = arrays["x"].mean(0), arrays["x"].std(0)
    np.testing.assert_allclose(prepared.validation[0], (arrays["held_x"] - mean) / deviation, rtol=1e-5, atol=1e-6)
    with pytest.raises(RecipeError, match=r"data.fold = 2 is for data that are split here"):
        prepare(load(kind, "x", "y", "held_x", "held_y"), Loading(fold=2), kind)
    with pytest.raises(RecipeError, match=r"data.validation_targets is missing"):
        load(kind, "x", "y", "held_x")


def test_mistakes_with_arrays_are_one_sentence_and_nothing_is_unpickled(here, arrays):
    np.save("trap.npy", np.array([Trap()], dtype=object))
    refused("data.targets", "never unpickled", "npy", "x.npy", "trap.npy")
    refused("data.inputs", "'xx.npy' does not exist; the nearest is 'x.npy'", "npy", "xx.npy", "y.npy")
    refused("data.inputs", "not an .npy file", "npy", "data.npz", "y.npy")
    refused("data.inputs", "not an .npy file", "npy", "data.safetensors", "y.npy")
    (here / "torn.npy").write_bytes((here / "x.npy").read_bytes()[:50])
    (here / "empty.npy").write_bytes(b"")
    refused("data.inputs", "not an .npy file", "npy", "torn.npy", "y.npy")
    refused("data.inputs", "not an .npy file", "npy", "empty.npy", "y.npy")
    refused("data.targets", "'Y' is not in data.safetensors, which holds .*; the nearest is 'y'", "safetensors",
            "data.safetensors", targets="Y")  # fmt: skip
    refused("data.path", "not a whole .safetensors file", "safetensors", "data.npz")
    (here / "torn.safetensors").write_bytes((here / "data.safetensors").read_bytes()[:-9])
    refused("data.path", "not a whole .safetensors file", "safetensors", "torn.safetensors")
    refused("data.path", "is a directory, not a file", "safetensors", str(here))


# Tables


@pytest.fixture
def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": [22, 38, None, 35, 54, 2],
            "fare": random.normal(size=6),
            "sex": ["m", "f", "f", "m", None, "m"],
            "alone": [False, True, True, False, True, True],
            "kind": pd.Categorical(["a", "b", "a", "a", "b", "b"]),
            "survived": ["no", "yes", "yes", None, "no", "yes"],
        }
    )


def test_parquet_is_read_as_the_same_csv_is(here, table):
    pytest.importorskip("pyarrow")
    table.to_csv("t.csv", index=False)
    table.to_parquet("t.parquet")
    one, other = SOURCES["csv"]("t.csv", "survived"), SOURCES["parquet"]("t.parquet", "survived")
    np.testing.assert_array_equal(one.inputs, other.inputs)
    assert one.targets.tolist() == other.targets.tolist() == [0, 1, 1, 0, 1]
    assert one.features == other.features == (
        "age", "fare", "sex = f", "sex = m", "sex is missing", "alone", "kind = a", "kind = b"
    )  # fmt: skip
    assert one.notes == other.notes and one.classes == other.classes == ("no", "yes")
    chosen = SOURCES["parquet"]("t.parquet", "fare", columns=["age"])
    assert chosen.features == ("age",) and chosen.task == "regression"


def test_parquet_with_types_that_only_it_has(here):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {"x": pd.array([1, None, 3], "Int64"), "b": pd.array([True, None, False], "boolean"), "y": [0.5, 1.5, 2]}
    )
    frame.to_parquet("t.parquet")
    samples = SOURCES["parquet"]("t.parquet", "y")
    np.testing.assert_array_equal(samples.inputs, [[1, 1], [np.nan, np.nan], [3, 0]])
    frame.assign(l=[[1], [2], [3]]).to_parquet("lists.parquet")
    refused("data.columns", "column 'l' holds values of type ndarray", "parquet", "lists.parquet", "y")


def test_parquet_mistakes_are_one_sentence(here, table, monkeypatch):
    pytest.importorskip("pyarrow")
    table.to_csv("t.csv", index=False)
    table.to_parquet("t.parquet")
    refused("data.path", "can't be read as a table", "parquet", "t.csv", "survived")
    refused("data.target", "no column 'survivd'; the nearest is 'survived'", "parquet", "t.parquet", "survivd")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(
        "data.name", "needs the package 'pyarrow', which is not installed: pip install pyarrow", "parquet", "t.parquet", "x"
    )


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_to_validate_on(here, table, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    table["sex"] = ["m", "f", "f", "m", "f", "m"]
    held = table.iloc[[1, 5]].assign(sex="x", extra=1)
    for frame, name in ((table, "t"), (held, "held")):
        frame.to_csv(f"{name}.csv", index=False) if kind == "csv" else frame.to_parquet(f"{name}.parquet")
    samples = SOURCES[kind](f"t.{kind}", "survived", columns=["age", "sex"], validation_path=f"held.{kind}")
    assert samples.features == ("age", "sex = f", "sex = m", "sex = x")
    np.testing.assert_array_equal(samples.validation[0], [[38, 0, 0, 1], [2, 0, 0, 1]])
    assert samples.validation[1].tolist() == [1, 1] and len(samples.inputs) == len(samples.targets) == 5
    prepared = prepare(samples, Loading(standardize=False), kind)
    assert prepared.train[0][:, 0].tolist() == [22, 38, 30, 54, 2]  # the median of 22, 38, 54, 2: of the training part
    refused("data.validation_path", "'hold", kind, f"t.{kind}", "survived", validation_path=f"hold.{kind}")
    refused("data.validation_path", "the validation data has no column 'extra'", kind, f"held.{kind}", "extra",
            validation_path=f"t.{kind}")  # fmt: skip


# Pictures


@pytest.fixture
def folder(here):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")

    def save(path: str, pixels: np.ndarray) -> None:
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels).save(here / path)

    return save


def pixels(number: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_a_folder_of_pictures_by_class(folder, here):
    for number, path in enumerate(("p/dog/b.png", "p/dog/a.bmp", "p/cat/deep/er/c.PNG", "p/cat/d.png", "p/.cache/x/e.png")):
        folder(path, pixels(number))
    (here / "p/cat/readme.txt").write_text("not a picture")
    samples = SOURCES["images"]("p", size=8)
    assert samples.classes == ("cat", "dog") and samples.targets.tolist() == [0, 0, 1, 1]
    assert samples.inputs.dtype == np.uint8 and samples.validation is None
    expected = [pixels(number).transpose(2, 0, 1) for number in (3, 2, 1, 0)]
    np.testing.assert_array_equal(samples.inputs, expected)
    prepared = prepare(samples, AS_IT_IS, "images")
    assert prepared.input_shape == (3, 8, 8) and prepared.output_size == 2
    assert prepared.train[0].min() >= 0 and prepared.train[0].max() <= 1


def test_pictures_are_cut_to_their_middle_scaled_and_greyed(folder):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 8:22] = (200, 100, 50)  # beyond the middle square, because scaling looks at neighbours
    folder("p/a/wide.png", wide)
    folder("p/b/tall.png", wide.transpose(1, 0, 2))
    folder("p/b/grey.png", np.full((7, 7), 99, np.uint8))
    inputs = SOURCES["images"]("p", size=5).inputs
    assert (inputs[0] == np.array([200, 100, 50])[:, None, None]).all() and (inputs[2] == inputs[0]).all()
    assert inputs.shape == (3, 3, 5, 5) and (inputs[1] == 99).all()
    grey = SOURCES["images"]("p", size=5, grey=True).inputs
    assert grey.shape == (3, 1, 5, 5) and (grey[1] == 99).all()
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)  # ITU-R 601, as Pillow documents for "L"
    assert (abs(grey[0].astype(int) - luma) <= 1).all()


def test_pictures_with_train_and_val_folders(folder):
    for number, path in enumerate(("p/train/a/0.png", "p/train/b/1.png", "p/val/b/2.png")):
        folder(path, pixels(number))
    samples = SOURCES["images"]("p", size=8)
    assert samples.classes == ("a", "b") and samples.targets.tolist() == [0, 1]
    assert samples.validation[1].tolist() == [1]
    np.testing.assert_array_equal(samples.validation[0][0], pixels(2).transpose(2, 0, 1))
    folder("p/val/c/3.png", pixels(3))
    refused("data.path", "'p/val/c' is a class that 'p/train' does not have", "images", "p")


@pytest.mark.parametrize("workers", [0, 2])
def test_many_pictures_are_read_as_they_are_needed(folder, monkeypatch, workers):
    for number in range(12):
        folder(f"p/{'ab'[number % 2]}/{number:02}.png", pixels(number))
    whole = prepare(SOURCES["images"]("p", size=8), AS_IT_IS, "images")
    monkeypatch.setattr(pictures, "LIMIT", 12 * 8 * 8 * 3 * 4 - 1)
    lazy = prepare(SOURCES["images"]("p", size=8), AS_IT_IS, "images")
    assert (lazy.classes, lazy.task, lazy.input_shape, lazy.output_size) == (("a", "b"), "classification", (3, 8, 8), 2)
    assert not isinstance(lazy.train, tuple)
    options = {"batch_size": 5, "seed": 1, "shuffle": True, "augment": ["flip", "shift"]}
    for (x, y), (u, v) in zip(
        make_batches(whole.train, **options).epoch(2),
        make_batches(lazy.train, workers=workers, **options).epoch(2),
        strict=True,
    ):
        assert torch.equal(x, u) and torch.equal(y, v)
    for number in range(2):
        folder(f"q/{['train', 'val'][number]}/a/0.png", pixels(number))
    monkeypatch.setattr(pictures, "LIMIT", 0)
    pair = prepare(SOURCES["images"]("q", size=8), AS_IT_IS, "images")
    assert len(pair.train) == len(pair.validation) == 1


def test_mistakes_with_pictures_are_one_sentence(folder, here, monkeypatch):
    folder("p/a/0.png", pixels(0))
    folder("p/b/1.png", pixels(0))
    refused("data.path", "'pp' does not exist; the nearest is 'p'", "images", "pp")
    refused("data.path", "is a file, not a directory", "images", "p/a/0.png")
    refused("data.path", "has no sub-folders", "images", "p/a")
    refused("data.size", "data.size = 0 is too small", "images", "p", size=0)
    (here / "p/b/1.png").write_bytes(b"\x89PNG broken")
    refused("data.path", "the picture 'p/b/1.png' can't be read", "images", "p")
    (here / "p/b/1.png").unlink()
    refused("data.path", "'p/b' holds no pictures", "images", "p")
    folder("q/val/a/0.png", pixels(0))
    refused("data.path", "a folder 'val' but none that is called 'train'", "images", "q")
    folder("p/b/1.png", pixels(0))
    monkeypatch.setitem(sys.modules, "PIL", None)
    refused("data.name", "needs the package 'pillow', which is not installed: pip install pillow", "images", "p")


# Text


LETTERS = "the quick brown fox jumps over the lazy dog\nπ and naïveté\n" * 4


def text(inputs: torch.Tensor, classes: tuple[str, ...]) -> list[str]:
    return ["".join(classes[number] for number in row) for row in inputs]


@pytest.mark.parametrize(("context", "stride"), [(8, None), (8, 3), (1, 1), (5, 9)])
def test_text_windows_are_those_cut_by_hand(here, context, stride):
    (here / "t.txt").write_text(LETTERS, encoding="utf-8")
    samples = SOURCES["text"]("t.txt", context=context, stride=stride, validation=0.25)
    assert samples.classes == tuple(sorted(set(LETTERS)))
    prepared = prepare(samples, Loading(standardize=True), "text")
    assert prepared.task == "text" and prepared.input_shape == (context,) and prepared.output_size == len(set(LETTERS))
    cut = len(LETTERS) - round(len(LETTERS) * 0.25)
    for part, letters, step in (("train", LETTERS[:cut], stride or context), ("validation", LETTERS[cut:], context)):
        inputs, targets = getattr(prepared, part)
        assert inputs.dtype == targets.dtype == torch.int64
        starts = [start for start in range(0, len(letters), step) if start + context + 1 <= len(letters)]
        assert text(inputs, prepared.classes) == [letters[start : start + context] for start in starts]
        assert text(targets, prepared.classes) == [letters[start + 1 : start + 1 + context] for start in starts]


def test_text_is_folded_in_stretches_that_no_window_leaves(here):
    letters = "".join(chr(0x4E00 + number) for number in range(103))  # each character once: its place is known
    (here / "t.txt").write_text(letters, encoding="utf-8")
    seen: list[str] = []
    for fold in (1, 2, 3, 4):
        samples = SOURCES["text"]("t.txt", context=4, stride=1, fold=fold, folds=4)
        prepared = prepare(samples, Loading(fold=fold, folds=4), "text")
        sets = []
        for inputs, targets in (prepared.train, prepared.validation):
            both = torch.cat([inputs, targets[:, -1:]], dim=1)
            assert (both.diff(dim=1) == 1).all()  # no window jumps over the part that was taken out
            sets.append(set(both.ravel().tolist()))
        assert not sets[0] & sets[1]
        seen += text(prepared.validation[0], prepared.classes)
    assert len(set(seen)) == len(seen) and len("".join(seen)) >= 103 - 4 * 4


def test_text_mistakes_are_one_sentence(here):
    (here / "t.txt").write_text(LETTERS, encoding="utf-8")
    refused(
        "data.context", "data.context = 999 is too long: of the 232 characters of t.txt training gets", "text", "t.txt", 999
    )
    refused("data.context", "validation gets no window", "text", "t.txt", 60)
    refused("data.context", "data.context = 0 is too small", "text", "t.txt", 0)
    refused("data.stride", "data.stride = 0 is too small", "text", "t.txt", stride=0)
    refused("data.fold", "data.fold = 9 is not one of the data.folds = 5", "text", "t.txt", fold=9)
    (here / "b.txt").write_bytes(b"\xff\xfe\x00")
    refused("data.path", "not a UTF-8 text", "text", "b.txt")
    (here / "long.txt").write_text("abcdefgh" * 20_000)
    refused("data.stride", r"data.stride = 1 makes .* 1.2 GiB; at least 2 keeps", "text", "long.txt", 640, stride=1)
    assert len(SOURCES["text"]("long.txt", 640, stride=2).inputs) > 60_000
    assert SOURCES["text"]("t.txt", validation=0.0).validation is None
