"""What a person gives the Python face by mistake is one sentence: the wrong type, the wrong order, what has no number in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from engine import (
    EpochalError,
    EpochEnded,
    Recipe,
    Run,
    Sweep,
    Trainer,
    evaluate,
    export_model,
    load_model,
    predict,
)
from engine.sweep import expand

STRANGE = [None, -1, 3.5, ["x"], {"a": 1}, np.zeros(3), pd.DataFrame({"a": [1, 2]}), torch.zeros(2), object(), b"x", True]


def said(words: str, call: Callable[[], Any]) -> None:
    with pytest.raises(EpochalError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", STRANGE, ids=lambda value: type(value).__name__)
def test_what_is_no_path_is_named_where_one_is_wanted(here, given):
    for call in (
        lambda: Recipe.load(given),
        lambda: Trainer.from_recipe(given),
        lambda: Trainer.resume(given),
        lambda: Trainer.fork(given),
        lambda: Run.create(given, name="mine"),
        lambda: Run.resume(given, 3),
        lambda: load_model(given),
        lambda: evaluate(given),
        lambda: predict(given, [[1.0]]),
        lambda: export_model("last", given),
    ):
        said("it must be a path", call)
    assert not any(here.iterdir())


def test_a_loop_of_ones_own_is_told_what_a_run_logs(here):
    with Run.create("runs", name="mine") as run:
        for values in [
            *(value for value in STRANGE if not isinstance(value, dict | pd.DataFrame)),
            "loss",
            {1: 2.0},
            {None: 1.0},
        ]:
            said("a run logs numbers by name", lambda values=values: run.log(1, values))
        for value in (None, "3", [1], np.zeros(3), torch.zeros(2), {"b": 1.0}, 1j, 10**400, torch.zeros((), device="meta")):
            said("'loss' is .*: a run logs numbers", lambda value=value: run.log(1, {"loss": value}))
        for step in (None, -1, 3.5, "3", [1], float("nan"), {"loss": 1.0}):
            said("whole steps of 0 or more", lambda step=step: run.log(step, {"loss": 1.0}))
        for epoch in (-1, -0.5, float("nan")):
            said("epochs are counted from 1", lambda epoch=epoch: run.log(1, {"loss": 1.0}, epoch=epoch))
        said("a class of events", lambda: run.on("EpochEnded", print))
        said("a function of the event", lambda: run.on(EpochEnded, None))
        run.log(np.int64(2), {"loss": torch.tensor(2.0)}, epoch=torch.tensor(1))
    assert "could not be kept" not in run.journal.path.read_text()
    assert Run.open(run).path == run.path


def test_what_a_run_can_not_be_made_with_is_named(here):
    for key, values in {
        "name": [value for value in STRANGE if value is not None],
        "monitor": STRANGE,
        "mode": [*STRANGE, "smallest"],
        "track": STRANGE[1:],
    }.items():
        for value in values:
            said(rf"^{key} is ", lambda key=key, value=value: Run.create("runs", **({"name": "mine"} | {key: value})))


def test_what_objects_of_ones_own_can_not_be_is_named():
    net = nn.Linear(2, 1)
    given = {
        "model": net,
        "loss": nn.functional.mse_loss,
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.1),
        "train": (torch.zeros(4, 2), torch.zeros(4, 1)),
    }
    for key, words, values in (
        ("loss", "loss is <class", [nn.MSELoss]),
        ("scheduler", "scheduler is .*; it must be a scheduler", [*STRANGE[1:], torch.optim.lr_scheduler.StepLR, "StepLR"]),
        ("seed", "seed is .*; it must be a whole number", [None, -1, 3.5, "x", np.zeros(3)]),
        ("batch_size", "batch_size is .*; it must be a whole number", [None, 0, 3.5, True]),
        ("train", "train and validation take", [None, 3, object()]),
        ("validation", "train and validation take", [3, object()]),
        ("precision", "training.precision is .*; it must be one of float32", [np.zeros(3), torch.bfloat16]),
        ("run_dir", "run_dir is .*; it must be a path", STRANGE[1:]),
    ):
        for value in values:
            said(words, lambda key=key, value=value: Trainer(**(given | {key: value}), epochs=1))


def test_recipes_and_sweeps_of_what_they_are_not_made_of():
    said("model is .*; it must be a Component", lambda: Recipe(model={"name": "mlp"}).check())
    said("optimizer is \"Adam\"|optimizer is 'Adam'", lambda: Recipe(optimizer="Adam").check())
    for given in STRANGE:
        said("a sweep is made of members", lambda given=given: Sweep(given))
        if not isinstance(given, dict):
            said("takes a recipe's values", lambda given=given: expand(given, []))
        said("a list of texts", lambda given=given: expand({}, given if not isinstance(given, list) else [3]))
