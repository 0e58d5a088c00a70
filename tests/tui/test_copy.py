"""The palette and the help have every key; what is copied comes to the terminal; what is drawn is text and nothing else."""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest

from engine.errors import RecipeError
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, drawn, ready, run_summary, until
from tests.tui.scripted import screen_text
from tui import keys as table
from tui.app import Console
from tui.clipboard import LIMIT, osc52
from tui.screens.copy import CopyScreen
from tui.screens.edit import EditScreen
from tui.screens.help import HelpScreen
from tui.screens.runs import RunsScreen

SCREENS = sorted({name for key in table.KEYS for name in key.screens} - {"app", "over"})
EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\x9b31m [red]bold[/red] \u202egnp\n d"


@pytest.mark.parametrize("screen", SCREENS)
def test_every_key_has_its_palette_entry_and_each_action_one(screen: str):
    bound = {binding.action for binding in table.bindings(screen, "app")} - {"app.command_palette"}
    offered = [key.action for key in table.actions(screen, "app")]
    assert set(offered) == bound and len(offered) == len(bound)
    assert all(key.label for key in table.actions(screen, "app"))


async def test_the_help_has_every_key_that_says_what_it_does(console: Console):
    async with console.run_test(size=(120, 40)) as pilot:
        await pilot.press("question_mark")
        assert isinstance(console.screen, HelpScreen)
        text = "\n".join(str(part.render()) for part in console.screen.query(".keys"))  # type: ignore[attr-defined]
        for key in table.KEYS:
            assert not key.help or f"{key.shown:>8}  {key.label}" in text


def copied(codes: str) -> str:
    return b64decode(re.findall(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", codes)[0]).decode()


def test_osc_52_through_tmux_and_screen():
    assert osc52("é\n", {}) == "\x1b]52;c;w6kK\x07"
    direct, wrapped = osc52("é\n", {"TMUX": "x"}).split("\x1bPtmux;")
    assert direct == osc52("é\n", {}) and wrapped == "\x1b\x1b]52;c;w6kK\x07\x1b\\"
    pieces = osc52("x" * 5000, {"STY": "x"}).split("\x1b\\")[:-1]
    assert all(piece.startswith("\x1bP") and len(piece) <= 702 for piece in pieces)
    assert copied("".join(piece[2:] for piece in pieces)) == "x" * 5000
    assert osc52("x" * LIMIT, {}) == ""


@pytest.fixture
def written(console: Console, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to the terminal past the screen."""
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    codes: list[str] = []
    monkeypatch.setattr(console, "_to_terminal", codes.append)
    return codes


async def trains(console: Console, pilot: Any) -> None:
    await ready(console)
    await pilot.press("r")
    await drawn(console)


async def test_cursor_values_command_and_error_are_copied(engine: ScriptedEngine, console: Console, written: list[str]):
    engine.events = scripted.running_history_events(7)
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("escape", "k")
        await until(lambda: isinstance(console.screen, CopyScreen))
        await pilot.press("enter")
        assert copied(written[-1]).startswith("epochal train")
        await trains(console, pilot)
        await pilot.press("left", "k")
        await until(lambda: isinstance(console.screen, CopyScreen))
        assert "cursor step" in screen_text(console) and "error" not in screen_text(console)
        await pilot.press("enter")
        assert re.match(r" *cursor step [\d,]+ +train 0\.\d+ mean of 10 steps", copied(written[-1]))
        engine.failure = RuntimeError("no way")
        await until(lambda: console.session is not None and not console.session.alive)
        await pilot.press("escape", "k", "enter")
        assert "RuntimeError: no way" in copied(written[-1])
        console.copy_to_clipboard("x" * LIMIT)
        await until(lambda: any("too long" in note.message for note in console._notifications))


async def test_paths_of_marked_runs_are_copied(with_runs: ScriptedEngine, console: Console, written: list[str]):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("a")
        await until(lambda: isinstance(console.screen, RunsScreen))
        await pilot.press("space", "space", "k", "enter")
        assert copied(written[-1]).split() == [str(run.path) for run in with_runs.runs_there]


async def test_nothing_that_is_drawn_is_obeyed(engine: ScriptedEngine, console: Console):
    run = run_summary(EVIL.replace("\n", " "), "failed", reason=EVIL, tag=EVIL, differs={"name": EVIL})
    engine.runs_there = [run]
    begin = replace(scripted.started(20), name=EVIL)
    events = scripted.running_history_events(3)
    engine.events = [begin, *events, scripted.ended(scripted.history_of(begin, *events), "failed", EVIL)]

    async def is_text() -> None:
        await until(lambda: "[red]bold[/red]" in screen_text(console) and "a]0;ownedb[2Jc" in screen_text(console))
        assert [line for line in screen_text(console).split("\n") if not line.isprintable()] == []

    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("r")
        await drawn(console)
        await is_text()
        await pilot.press("a")
        await until(lambda: isinstance(console.screen, RunsScreen))
        await is_text()
        for key in ("g", "w", "D", "k"):
            await pilot.press(key)
            await until(lambda: not isinstance(console.screen, RunsScreen))
            await is_text()
            await pilot.press("escape")
        engine.finish.set()


async def test_a_factor_beyond_all_numbers_is_refused_at_once(engine: ScriptedEngine, console: Console):
    from textual.widgets import Input, Static

    async with console.run_test(size=(80, 24)) as pilot:
        engine.events = scripted.running_history_events(3)
        await trains(console, pilot)
        await pilot.press("e")
        await until(lambda: isinstance(console.screen, EditScreen))
        console.screen.query_one(Input).value = "lr=x1e300"
        await pilot.press("enter")
        said = str(console.screen.query_one(".error", Static).render())
        assert "is not allowed: a number from 0 to 3.40282e+38" in said
        assert console.session is not None and console.session.control.take_changes() == ()


def test_what_is_too_large_is_refused_where_it_is_made():
    from engine.changes import parse_change

    with pytest.raises(RecipeError, match="from 1 to 1e"):
        parse_change("epochs=x1e300").of(20)
    assert parse_change("lr=x2").of(0.5) == 1.0
