"""What lasts from one run, or one look at it, to the next."""

from __future__ import annotations

from textual.widgets import Input, Static

from engine.events import Message, Validated
from tests.tui.conftest import SMALL, WIDE, ScriptedEngine, ready, until
from tests.tui.scripted import screen_text
from tests.tui.test_app import training
from tui.app import Console
from tui.form.rows import Row
from tui.screens.queue import QueueScreen
from tui.screens.runs import RunsScreen
from tui.screens.train import TrainScreen
from tui.widgets.chart import Chart
from tui.widgets.output import OutputPane


async def test_a_new_run_begins_with_the_recipe_of_the_one_that_ended(console: Console, with_runs: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await ready(console)
        await pilot.press("a", "enter")
        await until(lambda: isinstance(console.screen, TrainScreen) and console.screen.has_class("-ended"))
        await pilot.press("n")
        await until(lambda: console.form.query(Row) and console.form.line("training.epochs").query_one(Input).value == "2")
        await until(lambda: "20261122-140312-digits-mlp" in str(console.form.query_one("#title", Static).render()))
        await pilot.press("r")
        await until(lambda: with_runs.started and console.training)
        assert with_runs.started[0]["training"] == {"epochs": 2}


async def test_a_form_that_was_changed_meanwhile_keeps_its_changes(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await training(console, pilot)
        await pilot.press("n")
        console.form.line("training.epochs").focus_editor()
        await pilot.press("7", "escape", "t", "s")
        await until(lambda: not console.training)
        await pilot.press("n")
        assert console.form.model.values["training"] == {"epochs": 7}


async def test_what_was_chosen_for_the_chart_stays(console: Console):
    async with console.run_test(size=SMALL) as pilot:
        chart = (await training(console, pilot)).query_one(Chart)
        await pilot.press("0", "m", "y", "n", "t")
        await until(lambda: isinstance(console.screen, TrainScreen) and console.screen.query_one(Chart) is not chart)
        again = console.screen.query_one(Chart)
        assert again.smoothing == 0 and again.view.metric == "lr" and again.view.log == {"lr": True}


async def test_a_warning_is_told_once_and_kept(console: Console, engine: ScriptedEngine):
    engine.events = [Message(text="the model ends in [softmax]", level="warning"), Message(text="by the way")]
    async with console.run_test(size=WIDE) as pilot:
        await training(console, pilot)

        def told() -> list[str]:
            return [notification.message for notification in console._notifications]

        await until(lambda: told() == ["the model ends in [softmax]"])
        await pilot.press("n", "t")
        pane = console.screen.query_one(OutputPane)
        await until(lambda: any("warning: the model ends in [softmax]" in pane.render_line(y).text for y in range(3)))
        await until(lambda: any("info: by the way" in pane.render_line(y).text for y in range(3)))
        assert len(told()) == 1


async def test_the_best_validation_in_the_middle_of_an_epoch_is_marked(console: Console, engine: ScriptedEngine):
    engine.events = [
        Validated(epoch=1, step=5, metrics={"val/loss": 0.5}, best=True),
        Validated(epoch=1, step=9, metrics={"val/loss": 0.4}),  # asked for by the person
    ]
    async with console.run_test(size=WIDE) as pilot:
        screen = await training(console, pilot)
        await until(lambda: "best 0.5000 at step 5" in screen_text(console))
        assert "best val loss 0.5000 at step 5 ★" in screen_text(console)
        chart = screen.query_one(Chart)
        rows = [chart.render_line(y).text for y in range(1, chart.size.height)]
        assert sum("★" in row for row in rows) == 1


async def test_escape_leads_back_through_the_pages(console: Console, with_runs: ScriptedEngine):
    async with console.run_test(size=WIDE) as pilot:
        await ready(console)
        await pilot.press("a", "enter")
        await until(lambda: isinstance(console.screen, TrainScreen))
        await pilot.press("Q")
        await until(lambda: isinstance(console.screen, QueueScreen))
        await pilot.press("escape")
        assert isinstance(console.screen, TrainScreen)
        await pilot.press("escape")
        assert isinstance(console.screen, RunsScreen)
        await pilot.press("Q", "a")
        assert [type(screen).__name__ for screen in console.screen_stack[1:]] == ["RunsScreen"], "no page is open twice"
        await pilot.press("escape")
        assert console.screen is console.form
