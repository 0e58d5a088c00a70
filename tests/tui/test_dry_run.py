"""The dry run: in a process that is scripted here, and once in the real one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from textual.widgets import Static

from tests.tui.conftest import ScriptedEngine, ready, until
from tui.app import Console
from tui.door import Engine
from tui.dry_run import DryRun, Found
from tui.form.dry_pane import DryPane

ROWS = [["data", "80 samples"], ["loss", "CrossEntropyLoss, 2.3 on the first batch"]]


def answer(**found: Any) -> str:
    """A program that answers as `engine check --json` does."""
    status = 2 if found.get("problems") else 0
    whole = {"rows": [], "warnings": [], "problems": [], **found}
    return f"import sys\nprint('noise'); print({json.dumps(whole, indent=2)!r})\nsys.exit({status})"


def command(program: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(program)]


def pane(console: Console) -> DryPane:
    return console.form.query_one(DryPane)


def shown(console: Console) -> str:
    return "\n".join(str(part.render()) for part in pane(console).query(Static))


async def outcome(run: DryRun) -> Found:
    while (found := run.poll()) is None:
        await asyncio.sleep(0.01)
    return found


def alive(process: int) -> bool:
    """Whether it works; one that ended and was not asked for its status does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# the process


async def test_the_process_gets_the_recipe_this_directory_and_the_imports_of_here(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "engine.py").write_text("raise SystemExit('the wrong engine')")
    program = """
        import json, os, sys, tomllib
        recipe, wanted = sys.argv[1:]
        values = tomllib.load(open(recipe, "rb"))
        rows = [["cwd", os.getcwd()], ["epochs", str(values["training"]["epochs"])], ["wanted", wanted]]
        import engine.errors
        print(json.dumps({"rows": rows, "warnings": [], "problems": []}, indent=2))
    """
    found = await outcome(DryRun([sys.executable, "-P", "-c", textwrap.dedent(program)], {"training": {"epochs": 7}}))
    assert found.rows == (("cwd", str(tmp_path)), ("epochs", "7"), ("wanted", "--json")), found.printed


async def test_a_process_that_fails_is_told_by_its_last_words():
    found = await outcome(DryRun(command("print('hello'); 1 / 0"), {}))
    assert found.failure == "ZeroDivisionError: division by zero" and "Traceback" in found.printed
    found = await outcome(DryRun(command("import os; os.kill(os.getpid(), 9)"), {}))
    assert "SIGKILL" in found.failure and "memory" in found.failure
    found = await outcome(DryRun(command("print('no object')"), {}))
    assert found.failure == "it printed nothing" and found.printed == "no object"


async def test_cancelling_ends_the_process_and_its_children(tmp_path: Path):
    program = f"""
        import os, pathlib, subprocess, time
        child = subprocess.Popen(["sleep", "60"])
        pathlib.Path({str(tmp_path / "made")!r}).write_text(f"{{os.getpid()}} {{child.pid}} ")
        time.sleep(60)
    """
    run = DryRun(command(program), {})
    written = tmp_path / "made"
    await until(lambda: written.exists() and written.read_text().endswith(" "))
    run.cancel()
    for process in map(int, written.read_text().split()):
        await until(lambda process=process: not alive(process))


# the form


async def test_rows_and_warnings_beside_the_form(console: Console, engine: ScriptedEngine):
    engine.check = command(answer(rows=ROWS, warnings=["the model ends in a softmax"]))
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("P")
        await until(lambda: "80 samples" in shown(console) and "! the model ends in a softmax" in shown(console))
        await pilot.pause()
        fields = console.form.query_one("#fields")
        assert pane(console).region.x == fields.region.right and pane(console).region.y == fields.region.y
        assert not engine.started, "nothing was trained here"
        await pilot.press("escape")
        assert not pane(console).display
        await pilot.press("P")
        await until(lambda: "80 samples" in shown(console))
        await pilot.press("r")
        await until(lambda: engine.started)


async def test_small_it_is_below_the_fields_and_scrolls(console: Console, engine: ScriptedEngine):
    engine.check = command(answer(rows=[[f"row {i}", "value"] for i in range(30)]))
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("P")
        await until(lambda: "row 29" in shown(console))
        await pilot.pause()
        fields = console.form.query_one("#fields")
        assert pane(console).region.y == fields.region.bottom and fields.region.height >= 5
        await pilot.press("end")
        await until(lambda: pane(console).scroll_y > 0)


async def test_its_mistakes_go_to_their_fields(console: Console, engine: ScriptedEngine):
    problems = [{"field": "model.hidden", "message": "model.hidden does not fit"}, {"field": "", "message": "and more"}]
    engine.check = command(answer(problems=problems))
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("P")
        line = console.form.line("model.hidden")
        await until(lambda: line.has_class("-wrong") and line.has_focus_within)
        assert not pane(console).display
        await until(lambda: "and more" in str(console.form.query_one("#banner", Static).render()))


async def test_a_field_that_is_wrong_by_itself_needs_no_process(console: Console, engine: ScriptedEngine):
    engine.check = ["there-is-no-such-program"]
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        line = console.form.line("optimizer.lr")
        line.focus_editor()
        await pilot.press(*"fast", "escape", "P")
        assert line.has_class("-wrong") and not pane(console).display


async def test_a_traceback_is_shown_and_what_is_edited_later_outdates_it(console: Console, engine: ScriptedEngine):
    engine.check = command("def forward(): 1 / 0\nforward()")
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("P")
        await until(lambda: "✗ ZeroDivisionError" in shown(console) and "Traceback" in shown(console))
        assert "failed" in str(pane(console).border_title)
        console.form.line("training.epochs").focus_editor()
        await pilot.press("3")
        assert "before the last change" in str(pane(console).border_subtitle)
        await pilot.press("escape")
        assert pane(console).display, "the first Esc leaves the field"
        await pilot.press("escape")
        assert not pane(console).display


async def test_escape_cancels_and_leaving_the_console_does(console: Console, engine: ScriptedEngine, tmp_path: Path):
    seen = tmp_path / "pid"
    engine.check = command(
        f"import os, pathlib, time; pathlib.Path({str(seen)!r}).write_text(f'{{os.getpid()}} '); time.sleep(60)"
    )
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("P", "P")
        await until(lambda: seen.exists() and seen.read_text().endswith(" "))
        first = int(seen.read_text())
        await until(lambda: re.search(r"Dry run · \d+ s", str(pane(console).border_title)))
        assert "cancels" in str(pane(console).border_subtitle)
        await pilot.press("escape")
        assert not pane(console).display
        await until(lambda: not alive(first))
        seen.unlink()
        await pilot.press("P")
        await until(lambda: seen.exists() and seen.read_text().endswith(" "))
    await until(lambda: not alive(int(seen.read_text())))


async def test_a_training_beside_it_is_not_touched(console: Console, engine: ScriptedEngine, monkeypatch):
    """Not even the check of the values, which loads the person's code, is made in this process."""
    engine.check = command(answer(rows=ROWS))
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("r")
        await until(lambda: console.training)
        monkeypatch.setattr(engine, "problems", lambda values: 1 / 0)
        monkeypatch.setattr(engine, "complete", lambda values: 1 / 0)
        await pilot.press("n", "P")
        await until(lambda: "80 samples" in shown(console))
        assert console.training


# the real one


@pytest.mark.parametrize("recipe", ["good", "bad"])
async def test_the_real_dry_run(tmp_path: Path, monkeypatch, recipe: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self, input_shape, output_size):\n"
        "        print('made')\n        super().__init__(nn.Linear(input_shape[0], output_size), nn.Softmax(1))\n"
    )
    values = {"model": {"name": "net.py:Net" if recipe == "good" else "cnn"}}
    states = lambda: (torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist(), random.getstate())  # noqa: E731
    before = states()
    found = await outcome(Engine().dry_run(values))
    assert states() == before and not os.path.lexists("runs")
    assert not found.failure, found.printed
    if recipe == "bad":
        assert found.rows == () and [problem.field for problem in found.problems] == ["model.name"]
        return
    rows = dict(found.rows)
    assert rows["model"].startswith("Net, 650 parameters") and "2.3026 by chance" in rows["loss"]
    assert rows["batch"] == "inputs float32 (32, 64), targets int64 (32,)" and rows["own code"] == "model net.py:Net"
    assert {"gradient norm", "memory", "step", "steps"} <= set(rows)
    assert any("softmax" in sentence for sentence in found.warnings) and "made" in found.printed
