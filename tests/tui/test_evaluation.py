"""The page of a run's evaluation."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.inference.evaluation import FILE, Evaluation
from engine.run import strict_json
from tests.tui.conftest import ScriptedEngine, ready, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.screens.evaluation import EvaluationScreen
from tui.widgets.matrix import Matrix


def evaluation(count: int = 3, **changes: Any) -> Evaluation:
    """Of a model that takes each class for the next one now and then."""
    names = tuple(f"kind{i}" for i in range(count))
    confusion = [[7 if i == j else 3 if j == i + 1 else 0 for j in range(count)] for i in range(count)]
    row = {"precision": 0.7, "recall": 0.75, "f1": 0.7242, "support": 10}
    averages = {"macro avg": {"precision": 0.7, "recall": 0.75, "f1": 0.7242}, "weighted avg": {**row}, "accuracy": 0.75}
    usual = {
        "run": "some-run", "step": 135, "data": "the validation part of digits", "samples": 30, "task": "classification",
        "metrics": {"loss": 0.3422, "accuracy": 0.75}, "classes": names, "confusion": confusion,
        "report": tuple({"class": name, **row} for name in names), "averages": averages,
        "worst": ({"index": 17, "target": "kind0", "output": "kind1", "loss": 3.25},), "made": 1.8e9,
    }  # fmt: skip
    return Evaluation(**{**usual, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "20261122-140312-digits-mlp"
    path.mkdir()
    return path


def keep(run: Path, found: Evaluation) -> None:
    (run / FILE).write_bytes(strict_json.encode(found.as_dict()))


def console_of(monkeypatch: pytest.MonkeyPatch, script: str = "") -> Console:
    """A console whose evaluations are this script in a process."""
    engine = ScriptedEngine()
    monkeypatch.setattr(engine, "evaluate_command", (sys.executable, "-c", script))
    return Console(engine, {})


async def test_the_kept_one_is_shown_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(run, evaluation())
    console = console_of(monkeypatch)
    async with console.run_test(size=(120, 40)):
        await ready(console)
        console.push_screen(EvaluationScreen(run))
        said = ("kind2", "loss 0.3422", "accuracy 0.75", "step 135", "macro avg", "0.7242", "17", "3.25")
        await until(lambda: all(words in screen_text(console) for words in said))
        rows = [line for line in screen_text(console).splitlines() if "kind0" in line and " 7 " in line]
        assert rows and rows[0].index(" 7") < rows[0].index(" 3")


async def test_it_is_evaluated_with_progress_and_a_mistake_is_its_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = strict_json.encode(evaluation().as_dict()).decode()
    wait = run / "go"
    lines = ["import pathlib, sys, time", f"print({json.dumps(json.dumps({'done': 12, 'samples': 48}))}, flush=True)"]
    lines += [f"while not pathlib.Path({str(wait)!r}).exists(): time.sleep(0.01)"]
    lines += ["assert sys.argv[2:] == ['--json', '--progress'], sys.argv", f"print({json.dumps(found)})"]
    console = console_of(monkeypatch, "\n".join(lines))
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.push_screen(EvaluationScreen(run))
        await until(lambda: "12 of 48 samples" in screen_text(console))
        assert [str(console.screen.query_one(f"#{id}").border_title) for id in ("classes", "worst")] == ["2 Classes", "3 Worst"]
        wait.touch()
        await until(lambda: "kind2" in screen_text(console))
        monkeypatch.setattr(
            console.engine,
            "evaluate_command",
            (sys.executable, "-c", "import sys; print('epochal: it has no checkpoint yet', file=sys.stderr); sys.exit(2)"),
        )
        await pilot.press("r")
        await until(lambda: "it has no checkpoint yet" in screen_text(console))


async def test_many_classes_scroll_and_names_stay(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(run, evaluation(40))
    console = console_of(monkeypatch)
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.push_screen(EvaluationScreen(run))
        await until(lambda: "kind3" in screen_text(console))
        matrix = console.screen.query_one(Matrix)
        assert "kind39" not in screen_text(console)
        await pilot.press("end", *["right"] * 45)
        await until(lambda: matrix.scroll_offset.x == matrix.max_scroll_x > 0 and "kind39" in screen_text(console))
        text = screen_text(console)
        last = next(line for line in text.splitlines() if line.startswith("│ kind39"))
        assert last.rstrip(" │▁▂▃▄▅▆▇█▊▏").endswith("7")
        heads = next(line for line in text.splitlines() if "kind38" in line)
        assert "kind37" in heads and "kind39" in heads


async def test_numbers_have_errors_and_no_matrix(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    residuals = (
        {"mean": 0.5, "std": 2.0, "mae": 1.5, "rmse": 2.1, "min": -3.0, "25%": -1.0, "median": 0.4, "75%": 1.0, "max": 4.0},
    )
    changes = {"classes": (), "confusion": None, "report": (), "averages": {}, "residuals": residuals, "task": "regression"}
    keep(run, evaluation(**changes, worst=({"index": 3, "target": 1.25, "output": 9.5, "loss": 68.0},)))
    console = console_of(monkeypatch)
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.push_screen(EvaluationScreen(run))
        await until(lambda: "rmse" in screen_text(console))
        assert "Confusion" not in screen_text(console)
        await pilot.press("3")
        await until(lambda: "9.5" in screen_text(console) and "68" in screen_text(console))
        await pilot.press("escape")
        await until(lambda: not isinstance(console.screen, EvaluationScreen))


async def test_without_colour_the_right_ones_are_told_by_their_place_and_weight(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(run, evaluation())
    console = console_of(monkeypatch)
    async with console.run_test(size=(120, 40)):
        await ready(console)
        console.push_screen(EvaluationScreen(run))
        await until(lambda: "kind2" in screen_text(console))
        matrix = console.screen.query_one(Matrix)
        right = matrix.get_component_rich_style("matrix--right4")
        wrong = matrix.get_component_rich_style("matrix--wrong3")
        assert right.bold and wrong.bold and right.bgcolor != wrong.bgcolor
