"""The console's screens, on a scripted engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from textual.widgets import Input, Static

from engine.errors import Problem
from tests.tui import scripted
from tests.tui.conftest import SMALL, WIDE, ScriptedEngine, cells, drawn, ready, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.screens.base import KeyLine
from tui.screens.quit import AskEpochs, QuitScreen
from tui.screens.runs import RunsScreen
from tui.screens.train import TrainScreen
from tui.widgets.chart import Chart
from tui.widgets.device import DevicePane
from tui.widgets.epochs import EpochLog
from tui.widgets.output import OutputPane
from tui.widgets.recipe_pane import RecipePane
from tui.widgets.summary import Summary


async def training(console: Console, pilot) -> TrainScreen:
    """Start the default recipe and wait until it runs."""
    await ready(console)
    await pilot.press("r")
    return await drawn(console)


def shown(screen: TrainScreen) -> set[type]:
    """The panes that are on the screen."""
    kinds = (Chart, RecipePane, EpochLog, DevicePane, OutputPane, Summary)
    return {kind for kind in kinds if screen.query_one(kind).region.area and screen.query_one(kind).is_on_screen}


# a run


async def test_a_run_from_start_to_summary(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        assert shown(screen) == {Chart, RecipePane, EpochLog, DevicePane, OutputPane}
        engine.finish.set()
        await until(lambda: Summary in shown(screen))
        assert shown(screen) == {Chart, RecipePane, EpochLog, DevicePane, OutputPane, Summary}, "the screen stays open"
        assert console.session.exit_status == 0


async def test_space_pauses_and_goes_on(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("space")
        await until(lambda: console.session.history.state == "paused")
        await pilot.press("space")
        await until(lambda: console.session.history.state == "running")


async def test_s_stops(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        screen = await training(console, pilot)
        await pilot.press("s")
        await until(lambda: console.session.history.state == "stopped" and not console.training)
        await until(lambda: screen.has_class("-ended"))
        await pilot.press("space")
        assert not console.session.control.paused, "a run that is over is not paused"


async def test_c_and_v_ask_for_a_checkpoint_and_a_validation(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("c", "v")
        await until(lambda: console.session.history.checkpoints and "val/loss" in console.session.history.series)


async def test_the_chart_obeys_its_keys(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        chart = (await training(console, pilot)).query_one(Chart)
        before = chart.smoothing
        await pilot.press("plus")
        assert chart.smoothing > before
        await pilot.press("0")
        assert chart.smoothing == 0
        metric = chart.metric
        await pilot.press("m")
        assert chart.metric != metric
        await pilot.press("M")
        assert chart.metric == metric


async def test_small_screens_show_one_pane_at_a_time(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        screen = await training(console, pilot)
        assert shown(screen) == {Chart, EpochLog}, "the chart and the last epochs share a page"
        for key, pane in {"2": RecipePane, "3": EpochLog, "4": DevicePane, "5": OutputPane}.items():
            await pilot.press(key)
            await pilot.pause()
            assert shown(screen) == {pane} and screen.query_one(pane).has_focus
        await pilot.press("6", "1")
        await pilot.pause()
        assert shown(screen) == {Chart, EpochLog}


async def test_wide_screens_give_a_pane_the_keyboard(console: Console):
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        await pilot.press("3")
        assert screen.query_one(EpochLog).has_focus and len(shown(screen)) == 5


async def test_a_resized_terminal_changes_the_layout(console: Console):
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        await pilot.resize_terminal(*SMALL)
        await until(lambda: shown(screen) == {Chart, EpochLog})
        await pilot.resize_terminal(60, 11)  # a part of a small terminal
        await until(lambda: shown(screen) == {Chart} and not screen.query_one("#tabs").region.area)
        await pilot.press("3")
        await until(lambda: shown(screen) == {EpochLog})
        await pilot.press("1")
        await pilot.resize_terminal(60, 9)
        await until(lambda: screen.query_one("#tiny").region.area and not shown(screen))
        await until(lambda: "running" in str(screen.query_one("#tiny", Static).render()))
        await pilot.resize_terminal(*WIDE)
        await until(lambda: len(shown(screen)) == 5)


async def test_what_is_covered_takes_a_new_size_when_it_is_seen(console: Console):
    def fits() -> bool:
        return console.form.has_class("-small") and console.form.query_one(KeyLine).region == (0, 23, 80, 1)

    async with console.run_test(size=WIDE) as pilot:
        await training(console, pilot)
        await pilot.resize_terminal(*SMALL)
        await pilot.press("n")
        await until(fits)
        await pilot.resize_terminal(*WIDE)
        await until(lambda: not fits())
        await pilot.press("question_mark")
        await pilot.resize_terminal(*SMALL)
        await until(fits)  # under a dialog


async def test_nothing_is_drawn_when_nothing_is_new(console: Console, monkeypatch):
    shows = []
    show = TrainScreen._show
    monkeypatch.setattr(TrainScreen, "_show", lambda self, history: (shows.append(history.version), show(self, history)))
    async with console.run_test(size=SMALL) as pilot:
        screen = await training(console, pilot)

        def nothing_new() -> bool:
            before = len(shows)
            screen.poll()
            return len(shows) == before

        await until(nothing_new)
        before = len(shows)
        await pilot.press("v")
        await until(lambda: len(shows) > before)


async def test_what_is_drawn_late_is_the_run_as_it_is_by_then(console: Console, monkeypatch):
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        told = []
        monkeypatch.setattr(TrainScreen, "_show", lambda self, history: told.append(history))
        screen.action_pane(3)
        console.session.history = now = scripted.running_history()
        await until(lambda: told)
        await pilot.pause()
        assert all(history is now for history in told)


async def test_what_training_prints_is_shown(console: Console):
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        console.output.feed("hello from the model\n")
        pane = screen.query_one(OutputPane)
        await until(lambda: any("hello from the model" in pane.render_line(y).text for y in range(3)))


async def test_code_that_fails_shows_its_traceback(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        engine.failure = ZeroDivisionError("in my loss")
        await until(lambda: not console.training)
        assert console.session.history.state == "failed" and console.session.exit_status == 1
        assert "ZeroDivisionError: in my loss" in console.session.failure
        pane = screen.query_one(OutputPane)
        await until(lambda: any("ZeroDivisionError" in pane.render_line(y).text for y in range(pane.size.height)))


async def test_the_form_waits_while_a_run_trains(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("n")
        assert console.screen is console.form and console.training
        await pilot.press("r")
        assert console.screen is console.form and len(engine.started) == 1
        await pilot.press("t")
        assert isinstance(console.screen, TrainScreen)


async def test_a_second_run_after_the_first(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("s")
        await until(lambda: not console.training)
        await pilot.press("n", "r")
        await until(lambda: len(engine.started) == 2 and console.training)


# leaving


async def test_q_without_training_leaves_at_once(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("q")
    assert console.return_value == "quit"


@pytest.mark.parametrize(("key", "answer"), [("d", "detach"), ("k", "kill")])
async def test_q_asks_while_training(console: Console, key: str, answer: str):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("q")
        assert isinstance(console.screen, QuitScreen)
        await pilot.press("escape", "ctrl+q")
        assert isinstance(console.screen, QuitScreen)
        await pilot.press("escape")
        assert isinstance(console.screen, TrainScreen) and console.training
        await pilot.press("ctrl+c", key)
    assert console.return_value == answer and console.training


async def test_stop_and_save_leaves_when_it_is_saved(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("q", "s")
        await until(lambda: console.return_value == "quit")
    assert console.session.history.state == "stopped" and not console.training


async def test_arrows_choose_in_the_question(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("q", "down", "enter")
        await until(lambda: console.return_value == "detach")


# runs


async def test_the_list_of_runs(console: Console, with_runs: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("a")
        assert isinstance(console.screen, RunsScreen)
        assert cells(console)[0] == ["✓", "20261122-140312-digits-mlp", "2/2", "0.4000", ""]
        assert "finished" in str(console.screen.query_one("#about", Static).render())
        await pilot.resize_terminal(*WIDE)
        assert cells(console)[0][:5] == ["✓", "20261122-140312-digits-mlp", "finished", "2/2", "val loss 0.4000 at 2"]
        assert cells(console)[1][2:5] == ["died", "0", "–"]
        with_runs.runs_there = with_runs.runs_there[1:]
        await pilot.press("u")
        await until(lambda: len(cells(console)) == 1)


async def test_a_run_is_looked_at(console: Console, with_runs: ScriptedEngine):
    async with console.run_test(size=WIDE) as pilot:
        await pilot.press("a", "enter")
        await until(lambda: isinstance(console.screen, TrainScreen) and Summary in shown(console.screen))
        await pilot.press("s", "a")
        assert isinstance(console.screen, RunsScreen)


async def test_a_run_that_died_is_resumed(console: Console, with_runs: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("a", "down", "r")
        await until(lambda: with_runs.resumed)
        assert with_runs.resumed == [(Path("runs/20261121-140312-iris"), None)]
        await until(lambda: isinstance(console.screen, TrainScreen) and console.training)


async def test_a_finished_run_asks_for_epochs(console: Console, with_runs: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("a", "r")
        assert isinstance(console.screen, AskEpochs)
        console.screen.query_one(Input).value = "1"
        await pilot.press("enter")
        assert "above 2" in str(console.screen.query_one(".error", Static).render())
        console.screen.query_one(Input).value = "9"
        await pilot.press("enter")
        await until(lambda: with_runs.resumed == [(Path("runs/20261122-140312-digits-mlp"), 9)])


async def test_an_empty_list_says_how_to_begin(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("a")
        assert "n opens the form" in str(console.screen.query_one("#empty", Static).render())


async def test_a_run_that_is_looked_at_is_resumed_there(console: Console, with_runs: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("a", "enter")
        await drawn(console)
        assert "r resume" in screen_text(console)
        await pilot.press("r", *["backspace"] * 2, "9", "enter")
        await until(lambda: with_runs.resumed == [(Path("runs/20261122-140312-digits-mlp"), 9)])
        await drawn(console)
        await pilot.press("r")
        assert len(with_runs.resumed) == 1, "it trains"


async def test_several_processes_are_resumed_in_the_background(console: Console, with_runs: ScriptedEngine, monkeypatch):
    begun: list[tuple[Path, int | None]] = []

    def resume(path: Path, epochs: int | None) -> SimpleNamespace:
        begun.append((path, epochs))
        return SimpleNamespace(poll=lambda: SimpleNamespace(path=path, failure=""))

    recipe = {"name": "iris", "training": {"epochs": 2, "processes": 4}}
    monkeypatch.setattr(with_runs, "recipe_of", lambda path: recipe)
    monkeypatch.setattr(with_runs, "resume_in_background", resume, raising=False)
    async with console.run_test(size=WIDE) as pilot:
        await pilot.press("a", "down", "r")
        await until(lambda: begun == [(Path("runs/20261121-140312-iris"), None)])
        await until(lambda: isinstance(console.screen, TrainScreen) and bool(console.screen.query(KeyLine)))
        await pilot.pause()
        assert not with_runs.resumed


async def test_a_resume_that_is_refused_says_why(console: Console, with_runs: ScriptedEngine, monkeypatch):
    from engine.errors import CheckpointError

    def refuse(path, epochs, control):
        raise CheckpointError("no whole checkpoint")

    monkeypatch.setattr(with_runs, "resume", refuse)
    async with console.run_test(size=SMALL) as pilot:
        await pilot.press("a", "down", "r")
        await until(lambda: console.session and console.session.problems == (Problem("", "no whole checkpoint"),))
        await until(lambda: console.screen is console.form)
        await until(lambda: "no whole checkpoint" in str(console.form.query_one("#banner", Static).render()))


# looks


async def test_no_color(engine: ScriptedEngine, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(engine, {})
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        engine.finish.set()
        await until(lambda: Summary in shown(screen))
        await pilot.press("q")


@pytest.mark.parametrize("size", [SMALL, WIDE])
async def test_the_keys_are_on_the_screen(console: Console, size: tuple[int, int]):
    async with console.run_test(size=size):
        line = console.screen.query_one(KeyLine)
        await until(lambda: "r start" in line.render_line(0).text and line.region.y == size[1] - 1)
