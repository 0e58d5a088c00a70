"""The sections of a form, and every mistake in a recipe's values as one sentence."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from engine import catalog
from engine.errors import RecipeError
from tests.engine.test_catalog import by_key


def test_sections_follow_the_names() -> None:
    def groups(**values: object) -> dict[str, list[str]]:
        return {group.key: [field.key for field in group.fields] for group in catalog.sections(values)}

    found = groups(optimizer={"name": "SGD"}, data={"name": "csv"})
    assert list(found) == ["", "data", "model", "loss", "optimizer", "scheduler", "training", "checkpoint", "track"]
    assert found[""] == ["name", "seed"]
    assert found["optimizer"][:2] == ["lr", "momentum"]
    assert {"path", "target", "batch_size", "validation"} <= set(found["data"])
    assert found["scheduler"] == []
    assert groups(optimizer={"name": "SDG"})["optimizer"] == []
    assert groups(optimizer="SGD")["optimizer"] == []
    assert groups(model={"name": "nowhere.py:Net"})["model"] == []


def test_sections_offer_what_fits_the_data() -> None:
    def group(kind: str, **data: object) -> Any:
        return next(group for group in catalog.sections({"data": data}) if group.key == kind)

    loss = group("loss", name="digits")
    assert {"auto", "CrossEntropyLoss"} <= set(loss.names) and "MSELoss" not in loss.names
    assert loss.unfit["MSELoss"] == (
        "MSELoss is for regression and reconstruction and takes numbers or the inputs themselves; "
        "the targets of classification are class numbers"
    )
    assert "takes 3 inputs" in loss.unfit["TripletMarginLoss"]
    assert "MSELoss" in group("loss", name="diabetes").names
    unknown = group("loss", name="csv")
    assert {"MSELoss", "CrossEntropyLoss"} <= set(unknown.names) and "TripletMarginLoss" in unknown.unfit
    assert "CrossEntropyLoss" in group("loss", name="csv", task="regression").unfit
    assert group("model", name="digits").unfit["gpt"] == "gpt is for text, and the data are for classification"
    assert set(group("scheduler").unfit) == {"SequentialLR", "ChainedScheduler", "LambdaLR", "MultiplicativeLR"}
    assert not set(loss.names) & set(loss.unfit)


def test_class_weights_in_words() -> None:
    field = by_key(catalog.find("loss", "CrossEntropyLoss").fields)["weight"]
    assert field.words == ("none", "balanced") and field.optional
    assert by_key(catalog.find("loss", "BCEWithLogitsLoss").fields)["weight"].words == ()
    assert catalog.find("loss", "CrossEntropyLoss").build({"weight": "none"}).weight is None
    for weight in ("none", "balanced", [1, 2]):
        assert sentences(loss={"name": "CrossEntropyLoss", "weight": weight}) == {}
    assert list(sentences(loss={"name": "CrossEntropyLoss", "weight": "even"})) == ["loss.weight"]


def test_the_automatic_loss() -> None:
    auto = catalog.find("loss", "auto").build({})
    output, classes = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert auto(output, classes) == nn.CrossEntropyLoss()(output, classes)
    assert auto(output, torch.ones(4, 3)) == nn.MSELoss()(output, torch.ones(4, 3))
    found = [catalog.loss_for(task) for task in ("classification", "text", "regression", "reconstruction", None)]
    assert found == ["CrossEntropyLoss", "CrossEntropyLoss", "MSELoss", "MSELoss", "auto"]


def test_light_sections_leave_torch_alone() -> None:
    code = """
import sys
from engine.recipe import Recipe
from engine.catalog import sections
values = Recipe().to_dict(complete=False)
values["optimizer"] = {"name": "Adam", "lr": 0.1, "betas": [0.9, 0.99]}
groups = {group.key: group for group in sections(values, light=True)}
assert [(field.key, field.kind, field.item) for field in groups["optimizer"].fields] == [
    ("lr", "number", "any"), ("betas", "list", "number")]
assert groups["optimizer"].names == () and "digits" in groups["data"].names
assert groups["data"].find("batch_size").minimum == 1
heavy = {"torch", "numpy", "pandas", "sklearn"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def sentences(**values: object) -> dict[str, str]:
    return {problem.field: problem.message for problem in catalog.problems(values)}


def test_every_problem_is_found_at_once() -> None:
    found = sentences(
        nmae="x",
        seed=-1,
        data={"name": "digits", "batchsize": 3, "validation": 2},
        optimizer={"name": "Adam", "lr": "abc", "weight_dekay": 0.1},
        scheduler={"name": "StepLR"},
        training={"device": "gpu", "epochs": 2.5},
        checkpoint=3,
    )
    assert set(found) == {
        "nmae", "seed", "data.batchsize", "data.validation", "optimizer.lr", "optimizer.weight_dekay",
        "scheduler.step_size", "training.device", "training.epochs", "checkpoint",
    }  # fmt: skip
    assert found["nmae"].endswith("the nearest is 'name'")
    assert found["data.batchsize"] == "data.batchsize is no field of digits; the nearest is 'batch_size'"
    assert found["optimizer.weight_dekay"].endswith("the nearest is 'weight_decay'")
    assert found["training.device"].startswith("training.device is 'gpu'; it must be auto, cpu")
    assert all("\n" not in sentence for sentence in found.values())


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"optimizer": {"name": 3}}, "optimizer.name", "must be text"),
        ({"scheduler": {"step_size": 3}}, "scheduler.name", "is missing"),
        ({"optimizer": {"name": "Adam", "betas": [1.5, 0.9]}}, "optimizer.betas", "Invalid beta parameter"),
        ({"optimizer": {"name": "SGD", "nesterov": True}}, "optimizer.nesterov", "requires a momentum"),
        ({"scheduler": {"name": "OneCycleLR"}, "optimizer": {"name": "Adagrad"}}, "scheduler.name", "momentum"),
        ({"scheduler": {"name": "OneCycleLR", "pct_start": 3.0}}, "scheduler.pct_start", "pct_start"),
        ({"loss": {"name": "MSELoss"}}, "loss.name", "for regression"),
        ({"data": {"name": "diabetes"}, "loss": {"name": "CrossEntropyLoss"}}, "loss.name", "for classification"),
    ],
)
def test_problems_of_whole_sections(values: dict[str, Any], field: str, words: str) -> None:
    found = sentences(**values)
    assert list(found) == [field]
    assert words in found[field]


def test_what_is_right_is_left_alone() -> None:
    assert sentences() == {}
    assert sentences(data={"name": "diabetes"}, loss={"name": "MSELoss"}) == {}
    assert sentences(data={"name": "csv", "path": "x.csv", "target": "y"}, loss={"name": "BCEWithLogitsLoss"}) == {}
    assert sentences(scheduler={"name": "OneCycleLR", "max_lr": None}, training={"patience": None}) == {}


def test_an_unknown_kind() -> None:
    with pytest.raises(RecipeError, match="the nearest is 'optimizer'"):
        catalog.entries("optimiser")
