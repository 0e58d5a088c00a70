"""Several values in a field: a sweep; and the rail that says what the choice means."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.widgets import Static

from engine.run.queue import Job, Part, Queue
from tests.tui.conftest import ScriptedEngine, ready, until
from tui.app import Console
from tui.background import Begun
from tui.form import rail
from tui.form.model import FormModel
from tui.form.rail import Rail
from tui.screens.queue import QueueScreen

FACTS = {"parameters": 9610, "memory": 150_000, "step": 0.0005, "epochs": 20, "steps_per_epoch": 45, "steps": 900}


@pytest.fixture
def swept(engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, tuple[str, ...]]]:
    """What was begun as a sweep; it is the first job of a real queue."""
    begun: list[tuple[Any, tuple[str, ...]]] = []
    monkeypatch.setattr(ScriptedEngine, "root", tmp_path / "runs")

    def start(values, *axes):
        begun.append((values, axes))
        (job,) = Queue(tmp_path / "runs").add([Job(name="digits-mlp", axes=axes, direct=True, parts=(Part(label="lr=1"),))])
        return SimpleNamespace(poll=lambda: Begun(path=Path("runs/x"), job=job.id))

    monkeypatch.setattr(engine, "start_sweep", start)
    return begun


def shown(console: Console, which: str) -> str:
    return str(console.form.query_one(which, Static).render())


@pytest.mark.parametrize(
    ("text", "first", "runs"),
    [("1e-4, 3e-4", 1e-4, 2), ("1e-4..1e-1 x 16", 1e-4, 16), ("0.5,1e-3..1e-1x3", 0.5, 4)],
)
def test_the_first_value_stands_for_the_sweep(engine: ScriptedEngine, text: str, first: float, runs: int):
    model = FormModel({}, engine.sections)
    model.light = False
    model.refresh()
    lr = model.group("optimizer").find("lr")
    assert lr is not None and model.write("optimizer", lr, text) == ""
    assert model.values["optimizer"]["lr"] == first and model.text("optimizer", lr) == text
    assert [len(axis.values) for axis in model.axes] == [runs] and model.differs("optimizer", lr)
    model.write("optimizer", lr, "0.2")
    assert model.axes == () and model.values["optimizer"]["lr"] == 0.2


@pytest.mark.parametrize(
    ("text", "says"),
    [("1e-4,fast", "lr is 'fast'"), ("1e-4,,1", "empty value"), ("0.1..1", "whole numbers"), ("-1,1", "lr is -1")],
)
def test_a_mistake_among_several_values_stands_at_the_field(engine: ScriptedEngine, text: str, says: str):
    model = FormModel({}, engine.sections)
    model.light = False
    model.refresh()
    lr = model.group("optimizer").find("lr")
    assert lr is not None and says in model.write("optimizer", lr, text)
    assert list(model.problems()) == ["optimizer.lr"]
    model.pick("optimizer", "SGD")
    assert model.several == {}


async def test_enter_starts_the_sweep_and_shows_it(console: Console, swept):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("optimizer.lr").focus_editor()
        await pilot.press(*"1e-4,3e-4", "tab")
        console.form.line("seed").focus_editor()
        await pilot.press(*"0..7")
        assert "a sweep of 16 runs" in shown(console, "#title") and "Enter starts the sweep of 16" in shown(console, "#hint")
        assert "16 runs" in shown(console, "Rail")
        await pilot.press("enter")
        await until(lambda: isinstance(console.screen, QueueScreen) and "lr=1" in str(console.screen._drawn))
        values, axes = swept[0]
        assert axes == ("optimizer.lr=1e-4,3e-4", "seed=0..7") and values["optimizer"]["lr"] == 1e-4


async def test_a_sweep_with_a_mistake_does_not_start(console: Console, swept):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        line = console.form.line("training.epochs")
        line.focus_editor()
        await pilot.press(*"0,5", "escape", "r")
        await pilot.pause()
        assert line.has_class("-wrong") and "must be" in line.error and not swept


async def test_what_is_refused_on_the_way_is_told(console: Console, engine: ScriptedEngine, monkeypatch):
    refused = Begun(failure="lr=1e-3 and lr=0.001 are the same recipe")
    monkeypatch.setattr(engine, "start_sweep", lambda values, *axes: SimpleNamespace(poll=lambda: refused))
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("optimizer.lr").focus_editor()
        await pilot.press(*"1e-3,0.001", "enter")
        await until(lambda: "the same recipe" in shown(console, "#banner"))


# the rail


@pytest.fixture
def measured(engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dry runs answer with facts; each appends a line with its options to the file."""
    log = tmp_path / "measured"
    sweep = "{'sweep': [(16, '')]} if any('--sweep' in a for a in sys.argv) else {}"
    answer = f"dict(rows=[], warnings=[], problems=[], facts={{**{FACTS!r}, **({sweep})}})"
    asked = f"open({str(log)!r}, 'a').write(' '.join(sys.argv[2:]) + '\\n')"
    program = f"import json, sys; {asked}; print(json.dumps({answer}, indent=2))"
    engine.check = [sys.executable, "-c", program]
    engine.measures = True
    monkeypatch.setattr(rail, "QUIET_SECONDS", 0.05)
    return log


async def test_the_rail_measures_what_is_typed(console: Console, measured: Path):
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await until(lambda: "9,610" in shown(console, "Rail"))
        beside = console.form.query_one(Rail)
        assert beside.region.x == console.form.query_one("#fields").region.right
        text = shown(console, "Rail")
        assert all(words in text for words in ("45 an epoch", "0.143 MiB", "0.5 ms", "22.5 ms", "0.45s", "measured"))
        console.form.line("seed").focus_editor()
        await pilot.press(*"0..15")
        await until(lambda: "16, each step as one" in " ".join(shown(console, "Rail").split()))
        assert "at most 0:07" in shown(console, "Rail")
        assert measured.read_text().splitlines()[-1] == "--json --sweep=seed=0..15"
        count = len(measured.read_text().splitlines())
        console.form.line("name").focus_editor()
        await pilot.press("x")
        await pilot.pause(0.2)
        assert len(measured.read_text().splitlines()) == count, "a name costs nothing"
        await pilot.press("escape", "P")
        await until(lambda: not beside.region.width)
        await pilot.press("escape")
        await until(lambda: beside.region.width)


async def test_small_it_is_one_line(console: Console, measured: Path):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        await until(lambda: "9,610 parameters · 0.143 MiB · 45 steps, 22.5 ms an epoch" in shown(console, "Rail"))
        assert console.form.query_one(Rail).region.height == 1


async def test_what_covers_the_form_ends_the_measuring_and_it_begins_again(
    console: Console, engine: ScriptedEngine, measured: Path
):
    answering, engine.check = engine.check, [sys.executable, "-c", "import time; time.sleep(600)"]
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        beside = console.form.query_one(Rail)
        await until(lambda: beside._run is not None)
        process = beside._run._process
        await pilot.press("question_mark")
        await until(lambda: process.poll() is not None)
        engine.check = answering
        await pilot.press("escape")
        await until(lambda: "9,610" in shown(console, "Rail"))


async def test_nothing_is_measured_beside_a_training_or_with_a_mistake(
    console: Console, engine: ScriptedEngine, measured: Path
):
    engine.measures = False
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await until(lambda: "P measures it: this engine is scripted" in shown(console, "Rail"))
        engine.measures = True
        console.form.line("optimizer.lr").focus_editor()
        await pilot.press(*"fast")
        await until(lambda: "mistakes" in shown(console, "Rail"))
        assert not measured.exists()


def test_the_answer_is_the_one_of_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from engine.cli import main

    monkeypatch.chdir(tmp_path)
    settings = ["--set", "data.name=iris", "--device", "cpu"]
    assert main(["check", "--json", *settings, "--sweep=seed=0..7", "--sweep=optimizer=Adam,RMSprop"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    groups = [(size, bool(why)) for size, why in facts["sweep"]]
    assert groups == [(8, False), (8, True)] and facts["steps"] == facts["steps_per_epoch"] * facts["epochs"]
    assert facts["parameters"] == 4 * 128 + 128 + 128 * 3 + 3 and facts["memory"] >= 4 * 4 * facts["parameters"]
