"""The verdict on the training screen: its line, its explanation, and the change that it proposes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.widgets import Input

from engine.events import EpochEnded
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, drawn, ready, until
from tui.app import Console
from tui.screens.edit import EditScreen
from tui.screens.verdict import VerdictScreen
from tui.widgets.verdict import VerdictLine

TRAIN = [1.5, 1.0, 0.7, 0.5, 0.4, 0.33, 0.28, 0.25]
VAL = [1.5, 1.0, 0.7, 0.5, 0.52, 0.55, 0.56, 0.6]


def epochs(count: int) -> list[EpochEnded]:
    rows = list(zip(TRAIN, VAL, strict=True))[:count]
    return [
        EpochEnded(
            epoch=i, step=i * 390, metrics={"train/loss": train, "val/loss": val}, lr=1e-3, seconds=1.0, best=val == min(VAL)
        )
        for i, (train, val) in enumerate(rows, 1)
    ]


async def begun(console: Console, pilot) -> None:
    await ready(console)
    await pilot.press("r")
    await drawn(console)


async def test_it_is_one_line_and_leads_to_the_change(console: Console, engine: ScriptedEngine):
    engine.events = epochs(8)
    async with console.run_test(size=(120, 40)) as pilot:
        await begun(console, pilot)
        await until(lambda: "overfitting since epoch 4: val loss +20% from 0.5" in scripted.screen_text(console))
        await pilot.press("exclamation_mark")
        await until(lambda: isinstance(console.screen, VerdictScreen))
        assert "Proposed: patience=3" in scripted.screen_text(console)
        await pilot.press("enter")
        await until(lambda: isinstance(console.screen, EditScreen))
        assert console.screen.query_one(Input).value == "patience=3"
        await pilot.press("enter")
        await until(lambda: not isinstance(console.screen, EditScreen))
        assert console.session is not None
        assert [str(change) for change in console.session.control.take_changes()] == ["training.patience=3"]


async def test_enter_on_the_line_explains_it_too(console: Console, engine: ScriptedEngine):
    engine.events = epochs(3)
    async with console.run_test(size=(120, 40)) as pilot:
        await begun(console, pilot)
        line = console.screen.query_one(VerdictLine)
        await until(lambda: line.display)
        line.focus()
        await pilot.press("enter")
        await until(lambda: isinstance(console.screen, VerdictScreen))
        assert "still improving" in scripted.screen_text(console) and "Proposed" not in scripted.screen_text(console)
        await pilot.press("enter")
        await until(lambda: not isinstance(console.screen, VerdictScreen))


async def test_a_long_one_is_cut_and_the_key_that_explains_it_is_not(console: Console, engine: ScriptedEngine):
    engine.events = epochs(3)
    async with console.run_test(size=(80, 24)) as pilot:
        await begun(console, pilot)
        line = console.screen.query_one(VerdictLine)
        await until(lambda: line.display)
        line.verdict = replace(line.verdict, text="too long for the line " * 9)
        line.on_resize()
        await until(lambda: "…   ! explains" in scripted.screen_text(console))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_it_is_silent_and_takes_no_room_where_there_is_nothing_to_say(console: Console, size: tuple[int, int]):
    async with console.run_test(size=size, notifications=True) as pilot:
        await begun(console, pilot)
        assert not console.screen.query_one(VerdictLine).display
        await pilot.press("exclamation_mark")
        await until(lambda: "nothing to say" in scripted.screen_text(console))
