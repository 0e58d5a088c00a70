"""Keys that come faster than they are handled: each goes where it would have gone had the person waited."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from textual import events
from textual.keys import _character_to_key
from textual.widgets import Input

from tests.tui.conftest import ScriptedEngine, ready, until
from tui.app import Console
from tui.form.rows import Group
from tui.screens.edit import EditScreen
from tui.screens.train import TrainScreen


def type_at_once(console: Console, *keys: str) -> None:
    """As a terminal delivers what was typed while the console was busy."""
    for key in keys:
        console.post_message(events.Key(_character_to_key(key) if len(key) == 1 else key, key if len(key) == 1 else None))


async def test_what_is_typed_into_the_first_frame_goes_to_the_fields(console: Console, engine: ScriptedEngine):
    engine.torch.clear()
    async with console.run_test(size=(80, 24)):
        type_at_once(console, "tab", "down", "7", "3")
        await until(lambda: console.form.model.values.get("seed") == 73)
        assert console.form.model.values["name"] == "digits-mlp"


async def test_text_and_the_keys_between_reach_their_fields(console: Console):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        console.form.line("name").focus_editor()
        type_at_once(console, "a", "b", "tab", "4", "2", "escape")
        await until(lambda: console.form.focused is None)
        assert (console.form.model.values["name"], console.form.model.values["seed"]) == ("ab", 42)


async def test_letters_behind_the_key_that_opens_a_field_start_nothing(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        type_at_once(console, "/", "l", "r")
        await until(lambda: console.form.query_one("#filter", Input).value == "lr")
        assert not engine.started


async def test_text_behind_the_key_that_asks_for_it_is_the_answer(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("r")
        await until(lambda: isinstance(console.screen, TrainScreen) and console.session and console.session.history.started)
        type_at_once(console, "e", "q")
        await until(lambda: isinstance(console.screen, EditScreen) and "q" in console.screen.query_one(Input).value)


async def test_a_key_to_what_has_gone_does_not_hold_up_the_next(console: Console):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        line = console.form.line("name")
        line.focus_editor()
        editor = line.query_one(Input)
        console._follow()  # a key on its way
        await editor.remove()
        console.form.line("seed").focus_editor()
        type_at_once(console, "9")
        await asyncio.sleep(0)
        await until(lambda: console.form.model.values.get("seed") == 9)


async def test_a_group_that_is_shown_anew_does_not_take_the_keyboard_back(console: Console):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        group = next(group for group in console.form.query(Group) if group.group.key == "optimizer")
        console.form.line("optimizer.lr").focus_editor()
        fewer = replace(group.group, fields=group.group.fields[:1])  # as where torch knows other fields
        shown = asyncio.create_task(group.sync(fewer, keep=True))
        await asyncio.sleep(0)
        console.form.line("name").focus_editor()  # the person goes on meanwhile
        await shown
        assert console.form.line("name").has_focus_within
