"""The table of keys, and what is made of it: bindings, footer, help, palette."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual.widgets import OptionList, Static

from tests.tui.conftest import SMALL, ScriptedEngine, ready, until
from tests.tui.scripted import screen_text
from tui import keys as table
from tui.app import Console
from tui.palette import KeyCommands
from tui.screens.base import Base
from tui.screens.form import FormScreen
from tui.screens.help import HelpScreen
from tui.screens.runs import RunsScreen
from tui.screens.train import TrainScreen


def test_no_key_that_a_terminal_keeps_for_itself():
    names = {name for key in table.KEYS for name in key.key.split(",")}
    assert not names & {"ctrl+b", "ctrl+s", "ctrl+q", *(f"f{n}" for n in range(1, 13))}


def test_ids_are_unique_and_no_screen_has_a_key_twice():
    assert len({key.id for key in table.KEYS}) == len(table.KEYS)
    for screen in ("form", "train", "runs", "queue"):
        names = [name for key in table.keys(screen, "app") for name in key.key.split(",")]
        assert len(names) == len(set(names)), screen


@pytest.mark.parametrize("screen", ["form", "train", "over", "runs", "queue"])
@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_footer_fits_and_has_help_and_quit(screen: str, width: int):
    pairs = table.footer(screen, width)
    assert sum(len(key) + len(word) + 3 for key, word in pairs) <= width
    assert pairs[-2:] == [("?", "help"), ("q", "quit")]


@pytest.mark.parametrize("screen", [FormScreen, TrainScreen, RunsScreen])
def test_every_action_exists(screen: type[Base]):
    for key in table.keys(screen.NAME, "app"):
        namespace, _, name = key.action.partition("(")[0].rpartition(".")
        assert hasattr(Console if namespace == "app" else screen, f"action_{name}"), key.id


def test_every_key_that_a_person_may_press_is_explained():
    shown = " ".join(key.shown for key in table.KEYS if key.help).split()
    for key in table.KEYS:
        assert key.help or key.shown in shown or key.action.startswith("pane"), key.id


def test_the_way_to_a_new_run_is_in_the_narrowest_footer():
    for screen in ("over", "runs", "queue"):
        assert ("n", "new run") in table.footer(screen, 80), screen


async def test_in_a_text_field_the_footer_has_no_key_that_would_be_typed(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await ready(console)
        assert "r start" in screen_text(console)
        console.form.line("training.epochs").focus_editor()
        await pilot.pause()
        footer = screen_text(console).rstrip().splitlines()[-1]
        assert "Ctrl-R start" in footer and "Esc leave the field" in footer and "? help" not in footer
        await pilot.press("escape")
        await until(lambda: "? help" in screen_text(console).rstrip().splitlines()[-1])


async def test_a_new_run_begins_outside_of_the_text_field_that_was_left(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await ready(console)
        console.form.line("training.epochs").focus_editor()
        await pilot.press("ctrl+r")
        await until(lambda: isinstance(console.screen, TrainScreen))
        await pilot.press("n", "a")
        assert isinstance(console.screen, RunsScreen)


async def test_lines_of_the_help_are_continued_under_their_beginning(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("question_mark")
        lines = screen_text(console).splitlines()
        at = next(i for i, line in enumerate(lines) if "Add to the queue" in line)
        begins = lines[at].index("as it is now")
        continued = lines[at + 1].replace("│", " ")
        assert continued[:begins].isspace() and continued[begins:].startswith("comes")


async def test_help_lists_the_keys_of_the_screen_first(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("question_mark")
        assert isinstance(console.screen, HelpScreen)
        parts = [str(part.render()) for part in console.screen.query(".keys").results(Static)]
        assert parts[0].startswith("The form") and "Filter fields" in parts[0]
        titles = {part.splitlines()[0] for part in parts}
        assert "The queue" in titles and not titles & {"The over", "The empty"}, "those are footers"
        await pilot.resize_terminal(60, 24)
        await until(lambda: max(map(cell_len, str(console.screen.query(".keys").first(Static).render()).splitlines())) <= 50)
        await pilot.press("escape")
        assert console.screen is console.form


def first_offer(console: Console) -> str:
    """What Enter takes: of what was typed before, other things were offered."""
    offered = console.screen.query_one(OptionList)
    return str(offered.get_option_at_index(0).prompt) if offered.option_count and offered.highlighted == 0 else ""


def test_the_palette_calls_what_has_several_keys_by_what_the_first_does():
    named = {key.id: (key.shown, key.action) for key in table.KEYS}
    assert all(len(named[id][0].split()) > 1 for id in table.ALONE)
    assert ("(1)" in named["larger"][1]) and named["larger"][0].startswith("}")


async def test_the_palette_has_the_actions_of_the_screen(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await ready(console)
        labels = [label for label, _, _ in KeyCommands(console.screen)._commands()]
        assert "Start training (r)" in labels and not any("Pause" in label for label in labels)
        await pilot.press("ctrl+p")
        assert console.screen is not console.form
        await pilot.press("escape", "colon")
        await pilot.press(*"start train")
        await until(lambda: "Start training" in first_offer(console))
        await pilot.press("enter")
        await until(lambda: engine.started)
