"""What the list of runs shows of the one under the cursor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.widgets import DataTable

from engine.errors import RunError
from engine.events import EpochEnded, RunEnded
from tests.tui import scripted
from tests.tui.conftest import SMALL, WIDE, ScriptedEngine, ScriptedFollower, run_summary, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.screens.preview import Preview, main_points

NAMES = [f"202611{day}-140312-run" for day in range(10, 30)]


def ended(epoch: int, val: float) -> EpochEnded:
    metrics = {"train/loss": 1.0, "val/loss": val, "val/accuracy": 1 - val}
    return EpochEnded(epoch=epoch, step=390 * epoch, metrics=metrics, lr=1e-3, seconds=1.0, best=True)


@pytest.fixture
def many(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> ScriptedEngine:
    """Runs that reached 0.01, 0.02 and so on."""
    monkeypatch.setattr("tui.screens.preview.SECONDS", 0.02)
    best = {"epoch": 1, "val/loss": 0.1, "val/accuracy": 0.9}
    engine.runs_there = [run_summary(name, "finished", best=best) for name in NAMES]
    for n, name in enumerate(NAMES, 1):
        over = RunEnded(state="finished", reason="all done", epoch=1, step=390, seconds=1.0, best={})
        engine.followers[name] = ScriptedFollower(scripted.started(2), ended(1, n / 100), over)
    return engine


@pytest.fixture
def read(many: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were read."""
    names: list[str] = []
    follower = many.follower
    monkeypatch.setattr(many, "follower", lambda path: (names.append(path.name), follower(path))[1])
    return names


async def test_the_run_under_the_cursor_is_drawn(console: Console, many: ScriptedEngine):
    async with console.run_test(size=WIDE) as pilot:
        await pilot.press("a")
        await until(lambda: "best 0.0100 at epoch 1" in screen_text(console))
        assert "Chart ── loss · " in screen_text(console) and "val/accuracy     0.9900" in screen_text(console)
        await pilot.press("down", "down")
        await until(lambda: "best 0.0300 at epoch 1" in screen_text(console))
        await pilot.press("m")
        await until(lambda: "Chart ── accuracy · " in screen_text(console))
        await pilot.press("slash", *"nothing")
        await until(lambda: not console.screen.query_one(Preview).display)


async def test_only_where_the_cursor_rests_a_run_is_read(console: Console, read: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tui.screens.preview.REST", 1e6)
    async with console.run_test(size=WIDE) as pilot:
        await pilot.press("a", *["down"] * 18)
        assert not read
        monkeypatch.setattr("tui.screens.preview.REST", 0.01)
        await pilot.press("down")
        await until(lambda: "best 0.2000 at epoch 1" in screen_text(console))
        assert read == NAMES[-1:]


async def test_a_run_at_work_is_followed_until_another_is_under_the_cursor(console: Console, many: ScriptedEngine):
    many.runs_there[0] = run_summary(NAMES[0], "running")
    live = many.followers[NAMES[0]] = ScriptedFollower(scripted.started(9), ended(1, 0.5), alive=True)
    async with console.run_test(size=WIDE) as pilot:
        await pilot.press("a")
        await until(lambda: "best 0.5000 at epoch 1" in screen_text(console))
        live.events.append(ended(2, 0.25))
        await until(lambda: "best 0.2500 at epoch 2" in screen_text(console))
        await pilot.press("g")
        live.events.append(ended(3, 0.125))
        await until(lambda: len(live.history.epochs) == 3)
        await pilot.press("escape")
        await until(lambda: "best 0.1250 at epoch 3" in screen_text(console))
        await pilot.press("down")
        await until(lambda: "best 0.0200 at epoch 1" in screen_text(console))
        live.events.append(ended(4, 0.0625))
        await pilot.press("up")
        await until(lambda: "best 0.0625 at epoch 4" in screen_text(console))


async def test_what_can_not_be_read_is_said(console: Console, many: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    def gone(path: Path) -> Any:
        raise RunError("it is gone")

    many.runs_there[0] = run_summary(NAMES[0], "failed", reason="the loss is nan at step 4")
    monkeypatch.setattr(many, "recipe_of", gone)
    async with console.run_test(size=WIDE) as pilot:
        await pilot.press("a")
        await until(lambda: "its recipe can't be read: it is gone" in screen_text(console))
        assert "best 0.0100 at epoch 1" in screen_text(console), "its curves are whole"
        assert screen_text(console).count("the loss is nan at step 4") == 2, "in the preview, and below it"
        monkeypatch.setattr(many, "follower", gone)
        await pilot.press("down")
        await until(lambda: " it can't be read: it is gone" in screen_text(console))


async def test_it_is_there_where_there_is_room_and_wanted(console: Console, many: ScriptedEngine, read: list[str]):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("a", "p", "p")
        preview, table = console.screen.query_one(Preview), console.screen.query_one(DataTable)
        assert not preview.display and table.size.height > 15 and not read
        assert any("no room for it" in notice.message for notice in console._notifications)
        await pilot.resize_terminal(*WIDE)
        await until(lambda: "best 0.0100 at epoch 1" in screen_text(console))
        assert table.size.height >= 15 and preview.size.height >= 10
        await pilot.press("p")
        assert not preview.display and table.size.height > 20
        await pilot.press("p", *["down"] * 19)
        await pilot.resize_terminal(*SMALL)
        await until(lambda: not preview.display and NAMES[19] in screen_text(console))
        await pilot.resize_terminal(80, 12)
        await until(lambda: table.size.height < 9 and NAMES[19] in screen_text(console))
        await pilot.resize_terminal(*WIDE)
        await pilot.press("slash", *"1110")
        await pilot.resize_terminal(*SMALL)
        await until(lambda: preview.display and "best 0.0100 at epoch 1" in screen_text(console))


def test_a_recipe_in_its_main_points():
    recipe = {
        "name": "x", "seed": 3, "data": {"name": "digits", "batch_size": 32, "validation": 0.2}, "model": {"name": "cnn"},
        "optimizer": {"name": "SGD", "lr": 0.1, "betas": [0.9, 0.99]}, "training": {"epochs": 2, "device": "cpu"},
    }  # fmt: skip
    assert main_points(recipe, {"optimizer.betas", "seed"}) == {
        "seed": 3, "data": {"name": "digits", "batch_size": 32}, "model": {"name": "cnn"},
        "optimizer": {"name": "SGD", "lr": 0.1, "betas": [0.9, 0.99]}, "training": {"epochs": 2},
    }  # fmt: skip
