"""What the console keeps: panes and their sizes, the view of the charts, for good; zoom and cursor as long as it is open."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from engine.preferences import Preferences
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, drawn, ready, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.screens.train import TrainScreen
from tui.widgets.chart import Chart
from tui.widgets.device import DevicePane
from tui.widgets.epochs import EpochLog
from tui.widgets.output import OutputPane
from tui.widgets.recipe_pane import RecipePane

WIDE, SMALL = (120, 40), (80, 24)


@pytest.fixture
def training(engine: ScriptedEngine) -> ScriptedEngine:
    """An engine whose run has a curve."""
    engine.events = scripted.running_history_events(7)
    return engine


def opened(engine: ScriptedEngine, path: Path) -> Console:
    return Console(engine, {"name": "digits-mlp"}, preferences=Preferences(path))


def told(console: Console) -> str:
    """All notices so far."""
    return "\n".join(note.message for note in console._notifications)


async def run(console: Console, pilot: Any) -> TrainScreen:
    await ready(console)
    await pilot.press("r")
    return await drawn(console)


async def test_panes_and_view_are_as_they_were_left(training: ScriptedEngine, tmp_path: Path):
    path = tmp_path / "settings.toml"
    first = opened(training, path)
    async with first.run_test(size=WIDE) as pilot:
        screen = await run(first, pilot)
        width = screen.query_one(Chart).region.width
        await pilot.press("2", "right_curly_bracket", "right_curly_bracket")
        assert screen.query_one(Chart).region.width == width - 8
        height = screen.query_one(EpochLog).region.height
        await pilot.press("3", "left_curly_bracket")
        assert screen.query_one(EpochLog).region.height == height - 2
        await pilot.press("4", "H", "5", "H")
        assert not screen.query_one(DevicePane).is_on_screen and not screen.query_one(OutputPane).is_on_screen
        await pilot.press("m", "plus", "O", "x")
        left = first.view
        await pilot.press("H")
        assert "2 to 5 chooses a pane" in told(first)
    first.keeper.finish()
    layout = {"hidden": ["device", "output"], "right": 44, "epochs": 9}
    await until(lambda: path.exists() and tomllib.loads(path.read_text()).get("layout") == layout)
    training.finish.set()
    again = opened(training, path)
    async with again.run_test(size=WIDE) as pilot:
        screen = await run(again, pilot)
        assert again.view == left, (again.view, left)
        assert again.view.metric == "accuracy" and again.view.clip
        assert screen.query_one(Chart).region.width == width - 8
        assert not screen.query_one(DevicePane).is_on_screen
        await pilot.press("4")
        assert screen.query_one(DevicePane).is_on_screen and screen.focused is screen.query_one(DevicePane)
        await pilot.press("R")
        assert screen.query_one(OutputPane).is_on_screen and screen.query_one(Chart).region.width == width


async def test_a_column_without_panes_gives_its_room_to_the_chart(training: ScriptedEngine, tmp_path: Path):
    console = opened(training, tmp_path / "settings.toml")
    async with console.run_test(size=WIDE) as pilot:
        screen = await run(console, pilot)
        await pilot.press("2", "H", "4", "H")
        assert screen.query_one(Chart).region.width == WIDE[0]
        height = screen.query_one(Chart).region.height
        await pilot.press("3", "H")
        assert screen.query_one(Chart).region.height == height + 11
        training.finish.set()
        await until(lambda: screen.has_class("-ended") and "6 Summary" in screen_text(console))


async def test_few_rows_are_the_charts_and_the_recipes_first(training: ScriptedEngine):
    console = Console(training, {"name": "digits-mlp"})
    async with console.run_test(size=(100, 30)) as pilot:
        screen = await run(console, pilot)
        assert screen.query_one(Chart).size.height >= 9 and screen.query_one(RecipePane).size.height >= 4
        await pilot.press("5", "right_curly_bracket")
        assert screen.query_one(OutputPane).region.height == 6, "what the person chooses holds"


async def test_hidden_panes_are_tabs_on_a_small_screen(training: ScriptedEngine, tmp_path: Path):
    (tmp_path / "settings.toml").write_text('[layout]\nhidden = ["recipe", "device", "output", "epochs"]\nright = 70\n')
    console = opened(training, tmp_path / "settings.toml")
    async with console.run_test(size=SMALL) as pilot:
        screen = await run(console, pilot)
        assert screen.query_one(EpochLog).is_on_screen
        for key, pane in (("2", RecipePane), ("4", DevicePane), ("5", OutputPane)):
            await pilot.press(key)
            assert screen.query_one(pane).is_on_screen and screen.query_one(pane).region.width == SMALL[0]
        await pilot.press("H")
        assert "the panes are tabs" in told(console)


async def test_zoom_and_cursor_are_there_when_one_comes_back(training: ScriptedEngine):
    console = Console(training, {"name": "digits-mlp"})
    async with console.run_test(size=WIDE) as pilot:
        screen = await run(console, pilot)
        await pilot.press("left", "left", "z", "z")
        chart = screen.query_one(Chart)
        before = chart.window, chart.cursor
        assert None not in before
        await pilot.press("n", "t")
        assert isinstance(console.screen, TrainScreen) and console.screen is not screen
        await until(lambda: "cursor" in screen_text(console))
        again = console.screen.query_one(Chart)
        assert (again.window, again.cursor) == before


async def test_a_damaged_file_and_a_disk_that_takes_nothing_are_said_on_the_screen(engine: ScriptedEngine, tmp_path: Path):
    (tmp_path / "settings.toml").write_text("theme = = 3")
    console = opened(engine, tmp_path / "settings.toml")
    async with console.run_test(size=WIDE):
        await until(lambda: "settings.toml is damaged, so the defaults hold" in told(console))
    blocked = opened(engine, tmp_path / "settings.toml" / "x")
    async with blocked.run_test(size=WIDE):
        blocked.view.clip = True
        await until(lambda: "the settings can't be written" in told(blocked))
