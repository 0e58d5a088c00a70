"""The live edit: what is typed reaches the run, of this process or another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from textual.widgets import Input, OptionList, Static

from engine.changes import parse_change
from engine.events import SettingChanged
from engine.history import History
from tests.tui.conftest import ScriptedEngine, drawn, ready, until
from tui.app import Console
from tui.followed import Remote
from tui.screens.edit import EditScreen, now


async def opened(console: Console, pilot) -> EditScreen:
    await ready(console)
    await pilot.press("r")
    await drawn(console)
    await pilot.press("e")
    await until(lambda: isinstance(console.screen, EditScreen))
    screen = console.screen
    assert isinstance(screen, EditScreen)
    return screen


async def test_what_is_typed_is_asked_for(engine: ScriptedEngine, console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        screen = await opened(console, pilot)
        screen.query_one(Input).value = "lr=x0.5  training.patience=none"
        await pilot.press("enter")
        await until(lambda: not isinstance(console.screen, EditScreen))
        assert console.session is not None
        assert console.session.control.take_changes() == (parse_change("lr=x0.5"), parse_change("patience=none"))


async def test_a_mistake_is_a_sentence_and_nothing_is_asked(engine: ScriptedEngine, console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        screen = await opened(console, pilot)
        screen.query_one(Input).value = "lr=x0.5 learning=3"
        await pilot.press("enter")
        assert "learning can't be changed" in str(screen.query_one(".error", Static).render())
        await pilot.press("escape")
        await until(lambda: not isinstance(console.screen, EditScreen))
        assert console.session is not None and console.session.control.take_changes() == ()


async def test_what_is_confirmed_after_the_end_is_not_promised(engine: ScriptedEngine, console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot)
        assert console.session is not None
        engine.finish.set()
        await until(lambda: console.session.history.ended is not None)
        await pilot.press("enter")
        await until(lambda: any("nothing was changed" in note.message for note in console._notifications))
        assert not console.session.control.take_changes()


async def test_a_field_of_the_list_comes_with_its_value(engine: ScriptedEngine, console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        screen = await opened(console, pilot)
        await pilot.press("down")
        await until(lambda: screen.query_one(OptionList).has_focus)
        screen.query_one(OptionList).highlighted = 4
        await pilot.press("enter")
        await until(lambda: screen.query_one(Input).has_focus)
        assert screen.query_one(Input).value.startswith("training.epochs=")


def test_the_present_value_is_the_last_change():
    history = History()
    values = {"optimizer": {"lr": 0.1, "weight_decay": 0.5}, "training": {"epochs": 3}}
    assert now(values, history)["optimizer.weight_decay"] == 0.5
    assert now(values, history)["training.patience"] is None
    history.apply(SettingChanged(step=4, field="training.patience", before=None, value=7))
    history.apply(SettingChanged(step=5, field="training.epochs", before=3, value=9))
    assert now(values, history)["training.patience"] == 7 and now(values, history)["training.epochs"] == 9


@pytest.mark.parametrize("text", ["optimizer.lr=x0.5", "training.clip_norm=none", "optimizer.weight_decay=0.01"])
def test_a_run_of_another_process_is_asked_in_writing(text: str):
    asked: list[dict[str, object]] = []
    remote = Remote(SimpleNamespace(tell=lambda ask, **values: asked.append({"ask": ask, **values})))
    change = parse_change(text)
    remote.change(change)
    assert asked == [{"ask": "set", "field": change.field, "value": change.value, "times": change.times}]
    assert str(change) == text
