"""The first start of who never trained a model."""

from __future__ import annotations

import pytest

from engine.preferences import Preferences
from tests.tui.conftest import ScriptedEngine, ready, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.screens.train import TrainScreen
from tui.screens.welcome import CARDS, EXPERIMENTS, TourScreen, WelcomeScreen


@pytest.mark.parametrize("values", [values for _, _, values in EXPERIMENTS])
def test_the_experiments_can_be_trained(values: dict):
    from engine.catalog import problems

    assert not problems(values)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_one_key_trains_and_the_tour_comes_once(engine: ScriptedEngine, size: tuple[int, int]):
    console = Console(engine, {"name": "digits-mlp"}, welcome=True, preferences=Preferences())
    async with console.run_test(size=size) as pilot:
        await until(lambda: isinstance(console.screen, WelcomeScreen) and "3  Follow a wave" in screen_text(console))
        await pilot.press("1")
        await until(lambda: isinstance(console.screen, TourScreen) and engine.started)
        assert engine.started[0]["name"] == EXPERIMENTS[0][2]["name"]
        for number, (_, title, _) in enumerate(CARDS, 1):
            await until(lambda n=number, t=title: f"{t} ({n} of {len(CARDS)})" in screen_text(console))
            assert ("Let it end" in screen_text(console)) == (number == len(CARDS))
            await pilot.press("enter")
        assert isinstance(console.screen, TrainScreen)
        assert not console.preferences["guide.tour"] and not console.preferences["guide.welcome"]
        await pilot.press("i")
        await until(lambda: isinstance(console.screen, TourScreen))
        await pilot.press("escape")
        engine.finish.set()
        await until(lambda: console.screen.has_class("-ended"))
        await pilot.press("i", *["enter"] * (len(CARDS) - 1))
        await until(lambda: "What next" in screen_text(console))
        assert "Let it end" not in screen_text(console), "it has"


async def test_it_is_left_for_the_form_and_comes_back_by_key(engine: ScriptedEngine):
    console = Console(engine, {"name": "digits-mlp"}, welcome=True)
    async with console.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(console.screen, WelcomeScreen))
        await pilot.press("escape")
        await until(lambda: console.screen is console.form)
        await ready(console)
        assert not engine.started
        await pilot.press("i")
        await until(lambda: isinstance(console.screen, WelcomeScreen))
