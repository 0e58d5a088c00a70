"""`epochal show`: what a run's directory tells, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import Recipe, Trainer
from engine.cli import main
from engine.events import from_dict
from engine.run import load_history


def test_phases_layers_and_verdict_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer.from_recipe(Recipe().replace(**{"training.epochs": 2}), runs=tmp_path)
    trainer.fit()
    assert trainer.run is not None
    assert main(["show", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    sample = load_history(trainer.run).samples[-1]
    for said in (
        trainer.run.name,
        "finished",
        "epoch 2 of 2",
        "the gradients of all weights",
        f"at step {sample.step}",
        "layers.3",
        f"{sample.gradient[1]:.1e}".replace("e-0", "e-"),
    ):
        assert said in text, said

    assert main(["show", trainer.run.name, "--json", "--runs", str(tmp_path)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["path"] == str(trainer.run.path) and values["state"] == "finished" and values["epoch"] == 2
    assert from_dict(values["sampled"]) == sample


def test_a_run_without_samples_has_no_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Trainer.from_recipe(Recipe().replace(**{"training.epochs": 1, "training.health": False}), runs=tmp_path).fit()
    assert main(["show", "last", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "epoch 1 of 1" in text and "layer" not in text and "phase" not in text
