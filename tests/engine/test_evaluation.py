"""Evaluations, against scikit-learn on plain torch outputs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.metrics import classification_report, confusion_matrix, mean_absolute_error, r2_score
from torch import nn

from engine import Evaluation, Recipe, RecipeError, RunError, Trainer, evaluate, load_model, predict
from engine.cli import main
from engine.data.order import split
from engine.recipe import Loading

OWN = """
import torch
from torch.utils.data import Dataset

class Labels(Dataset):
    def __init__(self, count: int = 1):
        self.count = count

    def __len__(self):
        return 80

    def __getitem__(self, i):
        x = torch.randn(4, generator=torch.Generator().manual_seed(i))
        return x, (x[: self.count] > 0.3).float()

class Pairs(Dataset):
    def __len__(self):
        return 80

    def __getitem__(self, i):
        x = torch.randn(4, generator=torch.Generator().manual_seed(i))
        return {"left": x[:2], "right": x[2:]}, int(x.sum() > 0)

class Both(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, inputs):
        return self.layer(torch.cat([inputs["left"], inputs["right"]], 1))

def mean_cube(output, target):
    return (output - target).abs().pow(3).mean()
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    Path("my.py").write_text(OWN)


def trained(**changes: Any) -> Any:
    usual = {"data.name": "iris", "training.epochs": 2, "training.device": "cpu", "checkpoint.min_seconds": 0.0}
    return Trainer.from_recipe(Recipe().replace(**{**usual, **changes}), runs="runs").fit()


def by_hand(run: Any, x: Any, y: Any, step: Any = "last") -> tuple[Any, Any, Any]:
    """The validation part's targets and the model's outputs for it, and its places; inputs standardized by hand."""
    training, held = split(len(x), Loading())
    x = torch.as_tensor(x, dtype=torch.float64)
    x = (x - x[training].mean(0)) / x[training].std(0, unbiased=False)
    with torch.no_grad():
        return torch.as_tensor(y)[held], load_model(run, step)(x[held].float()), held


def test_classes_as_scikit_learn_counts_them() -> None:
    result = trained(**{"training.metrics": ["F1Score"], "optimizer.lr": 1e-4})
    found = evaluate(result.run, "last", device="cpu")
    targets, output, held = by_hand(result.run, *load_iris(return_X_y=True))
    predicted = output.argmax(1)
    assert found.confusion == confusion_matrix(targets, predicted, labels=range(3)).tolist()
    names = load_iris().target_names.tolist()
    expected = classification_report(targets, predicted, target_names=names, output_dict=True, zero_division=0)
    for row in found.report:
        theirs = expected[row["class"]]
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx(list(theirs.values()))
    assert found.averages["accuracy"] == pytest.approx(expected["accuracy"])
    for average in ("macro avg", "weighted avg"):
        precision, recall, f1, _ = expected[average].values()
        assert list(found.averages[average].values()) == pytest.approx([precision, recall, f1])
    losses = nn.CrossEntropyLoss(reduction="none")(output, targets)
    assert found.metrics["loss"] == pytest.approx(losses.mean().item())
    assert found.metrics["loss"] == result.history[-1]["val/loss"]  # what the run itself saw, to the last bit
    assert set(found.metrics) == {"loss", "accuracy", "F1Score"}
    order = losses.argsort(descending=True)[:20]
    assert [row["index"] for row in found.worst] == held[order].tolist()
    assert [row["loss"] for row in found.worst] == pytest.approx(losses[order].tolist())
    assert [row["target"] for row in found.worst] == [names[i] for i in targets[order]]
    assert [row["output"] for row in found.worst] == [names[i] for i in predicted[order]]


def test_numbers_in_the_units_of_the_data() -> None:
    result = trained(**{"data.name": "diabetes", "data.standardize_target": True, "loss.name": "MSELoss"})
    found = evaluate(result.run, "last", device="cpu", worst=5)
    x, y = load_diabetes(return_X_y=True)
    targets, output, held = by_hand(result.run, x, y)
    training = split(len(x), Loading())[0]
    values = output[:, 0].double().numpy() * y[training].std() + y[training].mean()
    errors = values - targets.numpy()
    (summary,) = found.residuals
    assert summary["mean"] == pytest.approx(errors.mean(), rel=1e-5)
    assert summary["mae"] == pytest.approx(mean_absolute_error(targets, values), rel=1e-5)
    assert summary["rmse"] == pytest.approx(math.sqrt((errors**2).mean()), rel=1e-5)
    quartiles = numpy.quantile(errors, [0, 0.25, 0.5, 0.75, 1])
    assert [summary[name] for name in ("min", "25%", "median", "75%", "max")] == pytest.approx(quartiles, rel=1e-4)
    assert found.metrics["r2"] == pytest.approx(r2_score(targets, values), rel=1e-5)
    worst = numpy.abs(errors).argsort()[::-1][:5]
    assert [row["index"] for row in found.worst] == held[worst.copy()].tolist()
    assert [row["target"] for row in found.worst] == pytest.approx(targets[worst.copy()].tolist(), rel=1e-4)
    assert [row["output"] for row in found.worst] == pytest.approx(values[worst], rel=1e-4)
    assert found.confusion is None and found.report == ()


@pytest.mark.parametrize("count", [1, 3])
def test_labels_that_are_there_or_not(count: int) -> None:
    changes = {"data.name": "my.py:Labels", "data.count": count, "loss.name": "BCEWithLogitsLoss", "training.epochs": 6}
    result = trained(**changes)
    found = evaluate(result.run, "last", device="cpu")
    held = split(80, Loading())[1]
    rows = [torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in held.tolist()]
    x = torch.stack(rows)
    there = (x[:, :count] > 0.3).int()
    with torch.no_grad():
        predicted = (load_model(result.run, "last")(x) > 0).int()
    if count == 1:
        assert found.confusion == confusion_matrix(there, predicted).tolist()
        there, predicted = there[:, 0], predicted[:, 0]
    expected = classification_report(there, predicted, output_dict=True, zero_division=0)
    theirs = [expected[str(i)] for i in range(2 if count == 1 else count)]
    assert [row["f1"] for row in found.report] == pytest.approx([row["f1-score"] for row in theirs])
    assert [row["support"] for row in found.report] == [row["support"] for row in theirs]
    assert found.averages["weighted avg"]["precision"] == pytest.approx(expected["weighted avg"]["precision"])


def test_a_loss_of_ones_own_has_worst_cases_too() -> None:
    result = trained(**{"data.name": "diabetes", "loss.name": "my.py:mean_cube", "data.standardize_target": True})
    found = evaluate(result.run, device="cpu", worst=3)
    losses = [row["loss"] for row in found.worst]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(max(losses)) and losses[0] > found.metrics["loss"]


def test_inputs_of_several_tensors() -> None:
    result = trained(**{"data.name": "my.py:Pairs", "model.name": "my.py:Both"})
    found = evaluate(result.run, "last", device="cpu")
    assert found.metrics["loss"] == result.history[-1]["val/loss"]
    x = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(80)])
    held = split(80, Loading())[1]
    with torch.no_grad():
        output = load_model(result.run, "last")({"left": x[:, :2], "right": x[:, 2:]})
    predicted, targets = output.argmax(1), (x.sum(1) > 0).long()
    assert found.confusion == confusion_matrix(targets[held], predicted[held]).tolist()
    assert evaluate(result.run, "last", data="my.py:Pairs", device="cpu").samples == 80
    batch = {"left": x[:, :2], "right": x[:, 2:]}
    assert predict(result.run, batch, "last", device="cpu", batch_size=7).labels == tuple(map(str, predicted.tolist()))


def test_class_weights_and_text() -> None:
    result = trained(**{"loss.weight": "balanced"})
    assert evaluate(result.run, "last", device="cpu").metrics["loss"] == result.history[-1]["val/loss"]
    Path("text.txt").write_text("abcd" * 60)
    gpt = {"model.name": "gpt", "model.layers": 1, "model.dim": 16, "model.heads": 2}
    result = trained(**{"data.name": "text", "data.path": "text.txt", "data.context": 8, **gpt})
    found = evaluate(result.run, "last", device="cpu", worst=1)
    assert found.metrics["loss"] == result.history[-1]["val/loss"]
    assert found.classes == ("a", "b", "c", "d") and sum(map(sum, found.confusion or [])) == found.samples * 8
    assert len(found.worst[0]["target"]) == 8
    assert evaluate(result.run, data="text.txt", device="cpu").samples == 29


def test_other_data_by_file_and_by_name() -> None:
    iris = load_iris(as_frame=True)
    table = iris.data.assign(kind=iris.target_names[iris.target])
    table.to_csv("train.csv", index=False)
    result = trained(**{"data.name": "csv", "data.path": "train.csv", "data.target": "kind"})
    rows = table.sample(40, random_state=0).reset_index(drop=True)
    rows.loc[3, "kind"] = None
    rows.to_csv("test.csv", index=False)
    rows.to_parquet("test.parquet")
    found = evaluate(result.run, data="test.csv", device="cpu")
    assert found.samples == 39 and found.notes == ("1 of 40 rows have no 'kind' and were left out",)
    held = rows.drop(index=3)
    training = table.iloc[split(150, Loading())[0].numpy()].drop(columns="kind")
    x = (held.drop(columns="kind") - training.mean()) / training.std(ddof=0)
    with torch.no_grad():
        output = load_model(result.run)(torch.tensor(x.to_numpy(), dtype=torch.float32))
    names = numpy.array(["setosa", "versicolor", "virginica"])
    assert found.confusion == confusion_matrix(held["kind"], names[output.argmax(1)], labels=names).tolist()
    losses = nn.CrossEntropyLoss(reduction="none")(
        output, torch.tensor(held["kind"].map({n: i for i, n in enumerate(names)}).to_numpy())
    )
    assert [row["index"] for row in found.worst] == held.index[losses.argsort(descending=True)[:20].numpy()].tolist()
    assert evaluate(result.run, data="test.parquet", device="cpu").confusion == found.confusion
    numpy.savez("test.npz", x=held.drop(columns="kind").to_numpy(), y=held["kind"].to_numpy(str))
    assert evaluate(result.run, data="test.npz", device="cpu").confusion == found.confusion
    assert evaluate(result.run, data="iris", device="cpu").samples == 150


def test_what_does_not_fit_is_one_sentence(capsys: Any) -> None:
    result = trained()
    for data, sentence in (
        ("wine", "an input has shape (13,), and those of the training had (4,)"),
        ("digit", "is neither a file nor a data set of the catalog; the nearest is 'digits'"),
        ("none.csv", "'none.csv' does not exist"),
        ("csv", "csv needs path, target"),
        ("my.py:Labels", "is a torch data set, and the run's inputs were preprocessed"),
    ):
        assert main(["evaluate", "last", "--data", data]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
    numpy.savez("test.npz", x=numpy.zeros((3, 4)), y=numpy.array(["rose", "setosa", "setosa"]))
    with pytest.raises(RecipeError, match="has the class 'rose', which the training had not; it had setosa"):
        evaluate(result.run, data="test.npz")
    whole = trained(**{"data.validation": 0.0})
    with pytest.raises(RecipeError, match="iris has no validation part in this recipe"):
        evaluate(whole.run)


def test_it_is_kept_in_the_run_and_printed(capsys: Any) -> None:
    result = trained()
    assert main(["evaluate", result.run.name, "--json", "--worst", "2", "--device", "cpu"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = Evaluation.kept(result.run.path)
    assert kept is not None and kept.as_dict()["confusion"] == printed["confusion"] and len(kept.worst) == 2
    assert main(["evaluate", result.run.name, "--checkpoint", "last", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "versicolor" in text and "macro avg" in text and "loss" in text
    again = Evaluation.kept(result.run.path)
    assert again is not None and len(again.worst) == 20
    (result.run.path / "evaluation.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        Evaluation.kept(result.run.path)


def test_many_classes_and_one_that_never_occurs() -> None:
    x = numpy.random.default_rng(0).normal(size=(60, 3))
    y = numpy.arange(60) % 30
    numpy.savez("many.npz", x=x, y=y)
    result = trained(**{"data.name": "npz", "data.path": "many.npz"})
    numpy.savez("few.npz", x=x[y < 20], y=y[y < 20])
    found = evaluate(result.run, data="few.npz", device="cpu")
    training = split(60, Loading())[0]
    scaled = (x[y < 20] - x[training].mean(0)) / x[training].std(0)
    with torch.no_grad():
        predicted = load_model(result.run)(torch.tensor(scaled, dtype=torch.float32)).argmax(1)
    names = [int(name) for name in found.classes]
    predicted = numpy.array(names)[predicted]
    assert found.confusion == confusion_matrix(y[y < 20], predicted, labels=names).tolist()
    expected = classification_report(y[y < 20], predicted, output_dict=True, zero_division=0)
    assert found.averages["macro avg"]["f1"] == pytest.approx(expected["macro avg"]["f1-score"])
