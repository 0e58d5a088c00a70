"""Predictions, against scikit-learn's preprocessing and the model called by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from engine import EpochalError, Recipe, RecipeError, Trainer, evaluate, load_model, predict
from engine.cli import main
from engine.data.order import split
from engine.data.sources import pictures
from engine.recipe import Loading

CSV = {"data.name": "csv", "data.path": "train.csv", "data.target": "kind"}


def trained(**changes: Any) -> Any:
    usual = {"training.epochs": 2, "training.device": "cpu", "checkpoint.min_seconds": 0.0}
    return Trainer.from_recipe(Recipe().replace(**{**usual, **changes}), runs="runs").fit()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pandas.DataFrame:
    """A table with a number, one that is missing here and there, a yes-or-no, a text and a target; written as train.csv."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    random = numpy.random.default_rng(0)
    size = random.normal(50, 20, 90)
    made = pandas.DataFrame(
        {
            "size": size,
            "age": numpy.where(random.random(90) < 0.2, numpy.nan, random.integers(1, 9, 90)),
            "old": random.random(90) < 0.5,
            "colour": random.choice(["red", "green", "blue"], 90),
            "kind": numpy.where(size > 50, "large", "small"),
            "price": size * 3 + random.normal(0, 1, 90),
        }
    )
    made.to_csv("train.csv", index=False)
    return made


def by_hand(table: pandas.DataFrame, rows: pandas.DataFrame) -> torch.Tensor:
    """scikit-learn's preprocessing of `rows`, fitted on the training part of `table`; the columns in the engine's order."""
    held = split(len(table), Loading())[0].numpy()
    numbers = make_union(SimpleImputer(strategy="median"), MissingIndicator(features="all"))
    steps = make_column_transformer(
        ("passthrough", ["size"]),
        (numbers, ["age"]),
        (OneHotEncoder(categories=[[False, True]], drop="first"), ["old"]),
        (OneHotEncoder(categories=[["blue", "green", "red"]], handle_unknown="ignore"), ["colour"]),
        sparse_threshold=0,
    )
    pipeline = make_pipeline(steps, StandardScaler())
    pipeline.fit(table.iloc[held])
    values = pipeline.transform(rows)
    return torch.tensor(numpy.concatenate([values[:, [0, 1, *range(3, 7)]], values[:, [2]]], 1), dtype=torch.float32)


def test_a_table_is_preprocessed_as_the_training_was_and_its_columns_go_by_name(table: pandas.DataFrame) -> None:
    result = trained(**CSV, **{"data.columns": ["size", "age", "old", "colour"]})
    Path("train.csv").unlink()  # not needed any more
    rows = table.sample(30, random_state=1)[["colour", "price", "old", "age", "size"]]  # another order, one more, no target
    rows.to_csv("new.csv", index=False)
    model = load_model(result.run)
    with torch.no_grad():
        expected = model(by_hand(table, rows))
    found = predict(result.run, "new.csv", device="cpu")
    assert torch.allclose(torch.from_numpy(found.outputs), expected, rtol=1e-5, atol=1e-5)
    assert found.labels == tuple(numpy.array(["large", "small"])[expected.argmax(1).numpy()])
    assert numpy.allclose(found.probabilities, expected.softmax(1), atol=1e-5)
    again = predict(result.run, rows, device="cpu", batch_size=7)  # the frame itself
    assert again.labels == found.labels and numpy.allclose(again.outputs, found.outputs, atol=1e-6)


def test_values_come_in_the_units_of_the_target(table: pandas.DataFrame) -> None:
    changes = {"data.columns": ["size"], "data.target": "price", "data.standardize_target": True, "loss.name": "MSELoss"}
    result = trained(**{**CSV, **changes, "training.epochs": 15, "optimizer.lr": 0.02})
    found = predict(result.run, table, device="cpu")
    assert found.labels is None and found.values is not None
    assert numpy.abs(found.values[:, 0] - table["price"]).mean() < 0.2 * table["price"].std()
    assert found.table().columns.tolist() == ["value"]


def test_the_command_reads_files_and_pipes(table: pandas.DataFrame, monkeypatch: Any, capsys: Any) -> None:
    trained(**CSV, **{"data.columns": ["size", "colour"]})
    assert main(["predict", "last", "train.csv", "--probabilities", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    found = pandas.read_csv(io.StringIO(printed))
    assert found.columns.tolist() == ["label", "probability large", "probability small"] and len(found) == 90
    assert numpy.allclose(found.iloc[:, 1] + found.iloc[:, 2], 1)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("train.csv").read_bytes())))
    assert main(["predict", "last", "-", "--probabilities", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == printed
    table.to_parquet("new.parquet")
    assert main(["predict", "last", "new.parquet", "-o", "out.csv"]) == 0
    assert pandas.read_csv("out.csv")["label"].tolist() == found["label"].tolist()
    capsys.readouterr()
    assert main(["predict", "last", "new.parquet", "--out", "out.csv"]) == 2
    assert "out.csv is there already" in capsys.readouterr().err
    assert main(["predict", "last", "new.parquet", "--out", "out.csv", "--force", "--checkpoint", "last"]) == 0


def test_what_does_not_fit_is_one_sentence(table: pandas.DataFrame, capsys: Any) -> None:
    result = trained(**CSV, **{"data.columns": ["size", "age", "old", "colour"]})
    for frame, sentence in (
        (table.drop(columns=["size"]).rename(columns={"kind": "sise"}), "no column 'size'; the nearest is 'sise'; it has age"),
        (table[["kind"]], "no columns 'size', 'age', 'old', …; it has kind"),
        (table.assign(size="big"), "column 'size' holds 'big' in row 1, and it must be a number"),
        (table.assign(old="perhaps"), "column 'old' holds 'perhaps' in row 1, and it must be true or false"),
        (table.assign(size=numpy.inf), "the data hold inf as input in 'size'"),
    ):
        frame.to_csv("new.csv", index=False)
        assert main(["predict", result.run.name, "new.csv"]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    for path in ("none.csv", "train.xyz"):
        assert main(["predict", result.run.name, path]) == 2
    with pytest.raises(RecipeError, match=r"an input has shape \(2,\), and those of the training had \(6,\)"):
        predict(result.run, numpy.zeros((3, 2)))
    with pytest.raises(EpochalError, match="there is nothing to predict"):
        predict(result.run, table[:0])


def test_a_category_that_the_training_had_not_is_told_and_counts_as_none(table: pandas.DataFrame) -> None:
    result = trained(**CSV, **{"data.columns": ["size", "age", "old", "colour"]})
    rows = table.assign(colour="mauve")
    found = predict(result.run, rows, device="cpu")
    with torch.no_grad():
        expected = load_model(result.run)(by_hand(table, rows))
    assert torch.allclose(torch.from_numpy(found.outputs), expected, atol=1e-5)
    assert found.notes == ("column 'colour' holds 'mauve', which the training had not: it counts as none of the others",)


def test_arrays_from_files_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = trained()
    x = digits[0].double()
    held = split(len(x), Loading())[0]
    scaler = StandardScaler().fit(x[held])
    with torch.no_grad():
        expected = load_model(result.run)(torch.tensor(scaler.transform(x), dtype=torch.float32)).argmax(1)
    numpy.save("x.npy", x.numpy())
    numpy.savez("x.npz", pixels=x.numpy())
    names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    pandas.DataFrame(x.numpy(), columns=names).sample(frac=1, axis=1, random_state=0).to_csv("x.csv", index=False)
    for given in ("x.npy", "x.npz", "x.csv", x, x.tolist()):
        assert predict(result.run, given, device="cpu").labels == tuple(map(str, expected.tolist()))
    numpy.savez("two.npz", a=x.numpy(), b=x.numpy())
    with pytest.raises(RecipeError, match="has no array 'x'; it has a, b"):
        predict(result.run, "two.npz")


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    monkeypatch.chdir(tmp_path)
    random = numpy.random.default_rng(0)
    for kind, level in (("dark", 40), ("light", 200)):
        Path(f"train/{kind}").mkdir(parents=True)
        for i in range(12):
            pixels = random.integers(level - 30, level + 30, (9, 12, 3)).astype(numpy.uint8)
            image.fromarray(pixels).save(f"train/{kind}/{i:02}.png")
    result = trained(**{"data.name": "images", "data.path": "train", "data.size": 8, "model.name": "cnn", "training.epochs": 8})
    found = predict(result.run, "train", device="cpu")
    assert found.table()["file"].tolist()[0] == "dark/00.png"
    assert [label == Path(name).parent.name for label, name in zip(found.labels or (), found.names, strict=True)].count(
        True
    ) > 20
    assert predict(result.run, "train/light/03.png", device="cpu").labels == ("light",)
    counts = evaluate(result.run, data="train", device="cpu").confusion
    monkeypatch.setattr(pictures, "LIMIT", 0)  # read one by one, as many as there may be
    assert evaluate(result.run, data="train", device="cpu").confusion == counts
    streamed = trained(
        **{"data.name": "images", "data.path": "train", "data.size": 8, "model.name": "cnn", "data.standardize": False}
    )
    files = sorted(Path("train").rglob("*.png"))
    opened = {"open_one": pictures.open_file, "size": 8, "grey": False}
    x = torch.stack([sample[0] for sample in pictures.Pictures(files, [0] * 24, (), **opened)])  # type: ignore[arg-type]
    with torch.no_grad():
        expected = load_model(streamed.run)(x)
    assert numpy.allclose(predict(streamed.run, "train", device="cpu").outputs, expected, atol=1e-5)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert evaluate(streamed.run, data="train", device="cpu").samples == 24


def test_text_and_reconstruction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("abcd" * 60)
    gpt = {"model.name": "gpt", "model.layers": 1, "model.dim": 16, "model.heads": 2, "optimizer.lr": 0.03}
    result = trained(**{"data.name": "text", "data.path": "text.txt", "data.context": 8, **gpt, "training.epochs": 15})
    found = predict(result.run, "text.txt", device="cpu")
    assert found.labels is not None and len(found) == 29 and found.labels[0] == "bcdabcda"
    Path("other.txt").write_text("abcx" * 9)
    with pytest.raises(RecipeError, match="holds 'x', which is none of the 4 characters"):
        predict(result.run, "other.txt")

    loss = {"data.reconstruct": True, "model.name": "autoencoder", "loss.name": "MSELoss", "training.epochs": 30}
    result = trained(**{"data.name": "iris", **loss})
    from sklearn.datasets import load_iris

    flowers = load_iris().data
    rebuilt = predict(result.run, flowers, device="cpu")
    assert rebuilt.values is not None and rebuilt.values.shape == flowers.shape
    assert numpy.abs(rebuilt.values - flowers).mean() < flowers.std(0).mean()
    assert rebuilt.table().columns[0] == "sepal length (cm)"
