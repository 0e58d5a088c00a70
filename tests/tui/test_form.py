"""The form on the screen, by keyboard."""

from __future__ import annotations

from textual.widgets import Input, Static

from engine.errors import Problem
from tests.tui.conftest import ScriptedEngine, ready, until
from tui.app import Console
from tui.form.editors import Choice, Toggle
from tui.form.rows import OWN, Heading, Row
from tui.form.sketch import Sketch
from tui.screens.train import TrainScreen
from tui.widgets.recipe_pane import RecipePane


def banner(console: Console) -> str:
    return str(console.form.query_one("#banner", Static).render())


def hint(console: Console) -> str:
    return str(console.form.query_one("#hint", Static).render())


async def test_the_form_is_there_before_torch(console: Console, engine: ScriptedEngine):
    engine.torch.clear()
    async with console.run_test(size=(80, 24)) as pilot:
        await until(lambda: not console.form.query(Sketch))
        epochs = console.form.line("training.epochs")
        assert console.form.line("optimizer.name").query_one(Choice).value == "Adam"
        epochs.focus_editor()
        await pilot.press("home", "1")
        assert console.form.model.values["training"] == {"epochs": 120}
        engine.torch.set()
        await ready(console)
        assert epochs.has_focus_within and epochs.query_one(Input).value == "120", "what is typed is not disturbed"
        assert len(console.form.query(Row)) == len({row.key for row in console.form.query(Row)})
        assert [line.key for line in console.form.query(Row)][3] == "model.hidden"


async def test_start_before_torch_waits_for_it(console: Console, engine: ScriptedEngine):
    engine.torch.clear()
    async with console.run_test(size=(80, 24)) as pilot:
        await pilot.press("r")
        assert "as soon as torch" in str(console.form.query_one("#title", Static).render())
        assert not engine.started
        engine.torch.set()
        await until(lambda: isinstance(console.screen, TrainScreen) and engine.started)
        await until(lambda: console.screen.query(RecipePane))
        assert "as soon as torch" not in str(console.form.query_one("#title", Static).render()), "it has started"


async def test_typing_marks_a_field_and_says_what_is_wrong_on_leaving_it(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        lr = console.form.line("optimizer.lr")
        lr.focus_editor()
        await pilot.pause()
        assert not lr.marked.startswith("•")
        assert "optimizer.lr" in str(console.form.query_one("#hint", Static).render())
        assert "default 0.001" in str(console.form.query_one("#hint", Static).render())
        await pilot.press("q", "u", "i", "c", "k")
        assert lr.marked.startswith("•") and not lr.has_class("-wrong"), "no scolding while it is typed"
        await pilot.press("tab")
        assert lr.has_class("-wrong") and lr.note.startswith("✗ must be a number")
        assert "optimizer.lr is 'quick'" in lr.error
        await pilot.press("shift+tab", "1", "e", "-", "2", "enter")
        assert not lr.has_class("-wrong") and console.form.model.values["optimizer"]["lr"] == 0.01


async def test_letters_are_text_in_a_field_and_keys_outside(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("name").focus_editor()
        await pilot.press("end", "r", "q", "n")
        assert console.form.model.values["name"] == "digits-mlprqn" and not engine.started
        await pilot.press("escape", "r")
        await until(lambda: engine.started)
        assert engine.started[0]["name"] == "digits-mlprqn"


async def test_ctrl_r_starts_from_inside_a_field(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("training.epochs").focus_editor()
        await pilot.press("3", "ctrl+r")
        await until(lambda: engine.started)
        assert engine.started[0]["training"] == {"epochs": 3}


async def test_another_optimizer_swaps_its_fields(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        heading = console.form.line("optimizer.name")
        heading.focus_editor()
        await pilot.press("enter", "s", "g", "d", "enter")  # the choices open, letters search
        await until(lambda: console.form.model.name("optimizer") == "SGD")
        await until(lambda: [row.key for row in console.form.query(Row) if row.section == "optimizer"] == [
            "optimizer.lr", "optimizer.momentum",
        ])  # fmt: skip
        await pilot.pause()
        assert heading.marked.startswith("•")


async def test_ones_own_code_is_named_in_a_text_field(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        heading = console.form.line("model.name")
        heading.query_one(Choice).value = OWN
        own = heading.query_one(".own", Input)
        await until(lambda: own.has_focus)
        await pilot.press(*"net.py:Net", "tab")
        await until(lambda: console.form.model.name("model") == "net.py:Net")


async def test_start_with_a_mistake_goes_to_it_and_does_not_start(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("scheduler.name").query_one(Choice).value = "StepLR"
        await until(lambda: console.form.model.name("scheduler") == "StepLR")
        await pilot.press("escape", "r")
        line = console.form.line("scheduler.step_size")
        await until(lambda: line.has_focus_within)
        assert line.has_class("-wrong") and "missing" in line.error
        assert not engine.started
        await pilot.press("5", "ctrl+r")
        await until(lambda: engine.started)
        assert engine.started[0]["scheduler"] == {"name": "StepLR", "step_size": 5}


async def test_what_assembling_refuses_comes_back_to_its_field(console: Console, engine: ScriptedEngine):
    engine.refusal = [Problem("model.hidden", "model.hidden does not fit"), Problem("", "and something else")]
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("r")
        line = console.form.line("model.hidden")
        await until(lambda: line.has_class("-wrong"))
        assert console.screen is console.form and line.has_focus_within
        assert "model.hidden does not fit" in line.note and "and something else" in banner(console)


async def test_own_code_that_fails_while_it_is_checked_is_a_sentence(console: Console, engine: ScriptedEngine, monkeypatch):
    def fail(values):
        raise ImportError("no module named net")

    monkeypatch.setattr(engine, "problems", fail)
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("r")
        assert "ImportError: no module named net" in banner(console) and not engine.started
        assert "Traceback" in console.output.since(0)


async def test_a_broken_torch_is_told(console: Console, engine: ScriptedEngine, monkeypatch):
    def fail():
        raise OSError("libtorch is damaged")

    monkeypatch.setattr(engine, "load", fail)
    async with console.run_test(size=(80, 24)):
        await until(lambda: "libtorch is damaged" in banner(console))


async def test_of_a_mistake_the_line_shows_what_it_does_not_show_already(console: Console):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        line = console.form.line("name")
        line.show_error("data.path = 'empty file.csv' can't be read as a table: the file is empty")
        assert line.note == "✗ can't be read as a table: the file is empty"


async def test_the_filter_leaves_matching_rows(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("slash", *"learning", "enter")
        shown = [row.key for row in console.form.query(Row) if row.region.height]
        assert shown == ["optimizer.lr"] and console.form.line("optimizer.lr").has_focus_within
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert all(row.display for row in console.form.query(Row))


async def test_the_filter_says_when_nothing_matches(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("slash")
        place = console.form.query_one("#filter").region
        await pilot.press(*"zzz")
        assert "'zzz'" in banner(console)
        assert console.form.query_one("#filter").region == place, "what is typed stays where it is"


async def test_enter_in_the_filter_goes_to_a_group_that_matches(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("slash", *"optimizer.n", "enter")
        assert console.form.line("optimizer.name").has_focus_within


async def test_arrows_and_brackets_go_through_the_form(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("down")
        assert console.form.line("name").has_focus_within
        await pilot.press("down", "down")
        assert console.form.line("data.name").has_focus_within, "an arrow goes on, it opens no choices"
        await pilot.press("right_square_bracket")
        assert console.form.line("model.name").has_focus_within
        await pilot.press("left_square_bracket", "up")
        assert console.form.line("seed").has_focus_within
        await pilot.press("pagedown")
        assert console.form.line("data.name").has_focus_within, "out of a text, which would take a bracket"
        assert console.form.model.values.get("seed", 0) == 0


async def test_yes_and_no_and_back_to_the_default(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        line = console.form.line("optimizer.amsgrad")
        line.focus_editor()
        await pilot.press("space")
        assert console.form.model.values["optimizer"]["amsgrad"] is True
        assert "yes" in str(line.query_one(Toggle).render()) and line.marked.startswith("•")
        await pilot.press("backspace")
        await pilot.pause()
        assert "amsgrad" not in console.form.model.values["optimizer"] and "no" in str(line.query_one(Toggle).render())


async def test_a_file_with_mistakes_opens_and_shows_them(engine: ScriptedEngine):
    values = {"optimizer": {"name": "Adam", "lrr": 1, "lr": "fast"}, "training": {"precision": "fp8"}}
    console = Console(engine, values, source="mine.toml")
    async with console.run_test(size=(120, 40)):
        await ready(console)
        await until(lambda: console.form.line("optimizer.lrr").has_class("-wrong"))
        assert console.form.line("optimizer.lr").has_class("-wrong")
        assert console.form.line("training.precision").query_one(Input).value == "fp8"
        assert "mine.toml" in str(console.form.query_one("#title", Static).render())


async def test_every_heading_but_those_of_plans_has_a_name(console: Console):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        named = {heading.group.key for heading in console.form.query(Heading) if heading.query(Choice)}
        assert named == {"data", "model", "loss", "optimizer", "scheduler"}


async def test_a_name_that_does_not_fit_says_why_instead_of_being_taken(console: Console, engine: ScriptedEngine):
    engine.unfit = {"loss": {"MSELoss": "MSELoss is for regression, and the data are for classification"}}
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        heading = console.form.line("loss.name")
        heading.focus_editor()
        await pilot.press("enter", *"mse")
        await until(lambda: "MSELoss is for regression" in hint(console))
        await pilot.press("enter")
        await until(lambda: "MSELoss is for regression" in heading.error)
        assert console.form.model.name("loss") == "CrossEntropyLoss" == heading.query_one(Choice).value
        assert heading.has_class("-wrong") and "✗ MSELoss" in hint(console)
        prompts = [label for label, _ in heading.query_one(Choice).choices]
        assert [str(prompt) for prompt in prompts] == ["CrossEntropyLoss", "MSELoss ✗", OWN] and prompts[1].style == "dim"
        await pilot.press("tab")
        await until(lambda: not heading.has_class("-wrong"))


async def test_what_fits_follows_the_data(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)):
        await ready(console)
        engine.unfit = {"loss": {"CrossEntropyLoss": "CrossEntropyLoss is for classification"}}
        console.form.line("data.name").query_one(Choice).value = "csv"

        def prompts() -> list[str]:
            return [str(label) for label, _ in console.form.line("loss.name").query_one(Choice).choices]

        await until(lambda: prompts() == ["MSELoss", "CrossEntropyLoss ✗", OWN])
        assert console.form.line("loss.name").query_one(Choice).value == "CrossEntropyLoss", "what was chosen stays"


async def test_the_help_of_a_name_says_what_it_is(console: Console, engine: ScriptedEngine):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("optimizer.name").focus_editor()
        await until(lambda: "Adam: what Adam is" in hint(console) and "optimizer.name" in hint(console))
        await pilot.press("enter", *"sgd")
        await until(lambda: "SGD: what SGD is" in hint(console))
        await pilot.press("escape")
        await until(lambda: "Adam: what Adam is" in hint(console))
