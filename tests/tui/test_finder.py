"""The learning-rate finder and the plain script in the console: processes that are scripted here, and once the real ones."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import textwrap
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from engine import Recipe
from engine.recipe_text import apply_settings
from tests.tui.conftest import ScriptedEngine, drawn, ready, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.door import Engine
from tui.finding import Finding
from tui.form.finder_pane import FinderPane
from tui.screens.script import ScriptScreen, repeating

POINTS = [{"lr": 10 ** (-6 + k / 10), "loss": 2.0 - k / 50, "smoothed": 2.0 - k / 50} for k in range(50)]
RESULT = {
    "ended": "the loss diverged at 0.3",
    "suggestions": [{"lr": 0.012, "rule": "steepest descent: there"}, {"lr": 0.03, "rule": "a tenth of the lowest"}],
    "problems": [],
}


def command(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


def tells(*lines: object, wait: str = "") -> list[str]:
    """A program that prints these lines, waiting for a file before the last."""
    return command(
        f"""
        import pathlib, sys, time
        lines = {[json.dumps(line) for line in lines]!r}
        print("noise of C code")
        for i, line in enumerate(lines):
            while {wait!r} and i == len(lines) - 1 and not pathlib.Path({wait!r}).exists():
                time.sleep(0.01)
            print(line, flush=True)
        """
    )


def pane(console: Console) -> FinderPane:
    return console.form.query_one(FinderPane)


async def test_the_curve_grows_and_one_key_takes_the_suggestion(console: Console, engine: ScriptedEngine, tmp_path: Path):
    go = tmp_path / "go"
    engine.find_command = tells(*POINTS, RESULT, wait=str(go))
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("L")
        await until(lambda: "at 0.07943 the loss is 1.020" in screen_text(console))  # while it works
        assert "Esc cancels" in screen_text(console) and not engine.started
        go.touch()
        await until(lambda: "steepest descent: there" in screen_text(console))
        text = screen_text(console)
        assert "0.012" in text and "the loss diverged at 0.3" in text and "★" in text and "1e-" in text
        await pilot.press("enter")
        line = console.form.line("optimizer.lr")
        await until(lambda: line.query_one(".editor", Input).value == "0.012" and not pane(console).display)
        await until(lambda: console.form.model.values.get("optimizer", {}).get("lr") == 0.012)


async def test_the_second_suggestion_and_a_small_screen(console: Console, engine: ScriptedEngine):
    engine.find_command = tells(*POINTS, RESULT)
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("L")
        await until(lambda: "a tenth of the lowest" in screen_text(console))
        fields = console.form.query_one("#fields")
        assert pane(console).region.y == fields.region.bottom and fields.region.height >= 3
        await pilot.press("2")
        await until(lambda: console.form.model.values.get("optimizer", {}).get("lr") == 0.03)


async def test_mistakes_go_to_their_fields_and_failures_are_told(console: Console, engine: ScriptedEngine):
    problem = {"field": "model.hidden", "message": "model.hidden does not fit"}
    engine.find_command = tells({"ended": "", "suggestions": [], "problems": [problem]})
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("L")
        line = console.form.line("model.hidden")
        await until(lambda: line.has_class("-wrong") and line.has_focus_within)
        assert not pane(console).display
        await pilot.press("escape")
        engine.find_command = command("1 / 0")
        await pilot.press("L")
        await until(lambda: "✗ ZeroDivisionError" in screen_text(console))
        engine.find_command = tells(POINTS[0], {"ended": "all rates were tried", "suggestions": [], "problems": []})
        await pilot.press("escape", "L")
        await until(lambda: "the loss did not fall at any rate" in screen_text(console))


async def test_escape_ends_its_process_and_a_dry_run_takes_its_place(console: Console, engine: ScriptedEngine):
    engine.find_command = command("import time; time.sleep(60)")
    engine.check = command("import time; time.sleep(60)")
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("L", "L")
        await until(lambda: pane(console).working)
        await pilot.press("escape")
        assert not pane(console).working and not pane(console).display
        await pilot.press("L")
        await until(lambda: pane(console).working)
        await pilot.press("P")
        await until(lambda: console.form.query_one("DryPane").display)
        assert not pane(console).working and not pane(console).display
        await pilot.press("L")
        await until(lambda: pane(console).working)
        assert not console.form.query_one("DryPane").display


async def test_the_real_test_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    test = Engine().find_lr({"training": {"device": "cpu"}})
    assert isinstance(test, Finding)
    while not (found := test.poll()).over:
        await asyncio.sleep(0.02)
    assert found.suggestions and 1e-4 < found.suggestions[0][0] < 0.3 and len(found.rates) == len(found.smoothed) > 50
    assert not list(tmp_path.iterdir())


# the script


async def test_the_script_is_shown_and_written_once(console: Console, engine: ScriptedEngine, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine.export_command = command("print('import torch  # the script')")
    async with console.run_test(size=(80, 24), notifications=True) as pilot:
        await ready(console)
        await pilot.press("Y")
        await until(lambda: "import torch  # the script" in screen_text(console))
        assert "epochal train" in screen_text(console)
        await pilot.press("w")
        await until((tmp_path / "digits-mlp.py").exists)
        assert (tmp_path / "digits-mlp.py").read_text() == "import torch  # the script\n"
        (tmp_path / "digits-mlp.py").write_text("mine")
        await pilot.press("w")
        await until(lambda: "is there already" in screen_text(console))
        assert (tmp_path / "digits-mlp.py").read_text() == "mine"
        await pilot.press("escape")
        await until(lambda: not isinstance(console.screen, ScriptScreen))


async def test_of_a_run_it_says_how_to_repeat_it_and_why_there_is_no_script(console: Console, engine: ScriptedEngine):
    engine.export_command = command("import sys; print('epochal: training.ema has no words', file=sys.stderr); sys.exit(2)")
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("r")
        await drawn(console)
        await pilot.press("Y")
        await until(lambda: "training.ema has no words" in screen_text(console))
        assert "epochal train" in str(console.screen.query_one(".command", Static).render())


def test_the_command_repeats_every_value():
    recipe = Recipe().replace(
        **{
            "name": "a b".replace(" ", "-"), "seed": 3, "model.hidden": [64, 32], "training.ema": 0.9, "data.shuffle": False,
            "scheduler": {"name": "chain", "chain": [{"name": "LinearLR", "length": 2}, {"name": "CosineAnnealingLR"}]},
            "optimizer.groups": [{"pattern": "*.bias", "lr": 1e-4}],
        }
    )  # fmt: skip
    words = shlex.split(repeating(recipe.to_dict(complete=False)))
    assert words[:2] == ["epochal", "train"] and set(words[2::2]) == {"--set"}
    assert Recipe.from_dict(apply_settings({}, words[3::2])) == recipe
