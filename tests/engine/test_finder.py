"""The learning-rate finder: the range test on a problem whose answer is known, and on real recipes."""

from __future__ import annotations

import json
import math

import pytest
import torch

from engine import Recipe
from engine.cli import main
from engine.errors import RecipeError
from engine.finder import STEEPEST, TENTH, Point, find_lr, suggest


def curve(losses: list[float]) -> list[Point]:
    """Smoothed losses at ten rates a decade, from 1e-5 on."""
    return [Point(10 ** (-5 + k / 10), loss, loss) for k, loss in enumerate(losses)]


def test_the_rules_on_a_curve_written_by_hand() -> None:
    # Flat to 1e-3, falls most around 1e-2, lowest at 1e-1, rises from there.
    losses = [2.0 - 1.5 / (1 + math.exp(-3 * (k - 30) / 3)) + max(0.0, k - 40) ** 2 for k in range(45)]
    found = {item.rule: item.lr for item in suggest(curve(losses))}
    assert found[STEEPEST] == pytest.approx(1e-2, rel=0.3)
    assert found[TENTH] == pytest.approx(1e-2, rel=0.3)


@pytest.mark.parametrize(
    "losses", [[2.0] * 40, [2.0 + 0.1 * k for k in range(40)], [2.0, 1.0, 0.5], [1.0 + 0.01 * (-1) ** k for k in range(40)]]
)
def test_no_suggestion_where_nothing_falls(losses: list[float]) -> None:
    assert suggest(curve(losses)) == ()


def test_plain_gradient_descent_diverges_beyond_its_limit() -> None:
    """On linear least squares gradient descent is stable up to 2 / the largest eigenvalue of the Hessian."""
    recipe = Recipe.from_dict(
        {
            "data": {"name": "line", "samples": 64, "batch_size": 64, "validation": 0.0, "shuffle": False},
            "model": {"name": "linear"},
            "loss": {"name": "MSELoss"},
            "optimizer": {"name": "SGD", "lr": 1e-3},
            "training": {"device": "cpu"},
        }
    )
    before = torch.get_rng_state()
    seen: list[Point] = []
    found = find_lr(recipe, lowest=1e-3, highest=100.0, steps=100, each=seen.append)
    assert torch.equal(before, torch.get_rng_state())
    assert tuple(seen) == found.points
    # One standardized feature and a bias: the Hessian of the mean square is 2 I, so the limit is 1.
    assert found.ended.startswith("the loss diverged") and 1.0 < found.points[-1].lr < 30.0
    assert all(1e-3 < item.lr < 1.0 for item in found.suggestions) and found.suggestions
    rates = [point.lr for point in found.points]
    assert rates[0] == 1e-3 and rates[1] / rates[0] == pytest.approx(rates[-1] / rates[-2])


def test_the_suggestion_trains_better_than_a_tenth_and_tenfold_of_it() -> None:
    from engine import Trainer

    recipe = Recipe().replace(**{"training.device": "cpu", "training.epochs": 1})
    rate = find_lr(recipe).suggestions[0].lr
    losses = {}
    for factor in (0.02, 1, 50):
        tried = recipe.replace(**{"optimizer.lr": rate * factor})
        losses[factor] = Trainer.from_recipe(tried, runs=None).fit().history[-1]["val/loss"]
    assert losses[1] == min(losses.values())


def test_groups_keep_their_ratio_and_a_span_that_does_not_grow_is_a_sentence() -> None:
    recipe = Recipe().replace(**{"optimizer.groups": [{"pattern": "*.bias", "lr": 1e-4}], "training.device": "cpu"})
    assert find_lr(recipe, steps=20).points
    with pytest.raises(RecipeError, match="rates must grow"):
        find_lr(recipe, lowest=1.0, highest=0.1)


def test_the_command_line(in_a_shell: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["find-lr", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "steepest descent" in text and "epochal train --set optimizer.lr=0.0" in text
    assert main(["find-lr", "--device", "cpu", "--steps", "30", "--json"]) == 0
    *points, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert set(points[0]) == {"lr", "loss", "smoothed"} and result["suggestions"][0]["rule"] == STEEPEST
    assert main(["find-lr", "--set", "optimizer.lr=fast", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["problems"][0]["field"] == "optimizer.lr"
    assert main(["find-lr", "--from", "1", "--to", "0.1"]) == 2
    assert "rates must grow" in capsys.readouterr().err


def test_the_command_names_the_field_that_decides_the_rate(in_a_shell: object, capsys: pytest.CaptureFixture[str]) -> None:
    scheduler = ["--set", "scheduler.name=OneCycleLR", "--set", "scheduler.max_lr=0.01"]
    assert main(["find-lr", "--data", "iris", "--steps", "40", *scheduler]) == 0
    assert "--set scheduler.max_lr=" in capsys.readouterr().out.splitlines()[-1]


def test_export_from_the_command_line(in_a_shell: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "1", "--device", "cpu", "--quiet", "--runs", "runs"]) == 0
    capsys.readouterr()
    assert main(["export", "last", "--script"]) == 0
    text = capsys.readouterr().out
    compile(text, "script", "exec")
    assert main(["export", "last", "--script", "-o", "plain.py"]) == 0
    assert main(["export", "last", "--script", "-o", "plain.py"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", "last"]) == 2 and "--format" in capsys.readouterr().err
