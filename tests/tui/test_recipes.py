"""Recipes to begin with: saved by name, loaded, deleted; and those of earlier runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList, Static

from engine import EpochalError, Recipe, RecipeError
from engine.saved_recipes import SavedRecipes, in_which
from tests.tui.conftest import ScriptedEngine, ready, run_summary, until
from tui.app import Console
from tui.screens.ask import AskText, Confirm
from tui.screens.recipes import RecipesScreen


@pytest.fixture(autouse=True)
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EPOCHAL_CONFIG", str(tmp_path))
    return tmp_path / "recipes"


def options(console: Console) -> list[str]:
    """What is offered before the examples."""
    shown = [str(option.prompt) for option in console.screen.query_one(OptionList).options]
    return shown[: next(at for at, prompt in enumerate(shown) if prompt.startswith("examples"))]


def test_what_is_kept_is_a_recipe_file(where: Path):
    kept, values = SavedRecipes(), Recipe().replace(**{"optimizer.lr": 0.01, "model.hidden": [64, 32]}).to_dict(complete=False)
    assert kept.names() == []
    kept.save("my best", values)
    kept.save("Another", {"training": {"epochs": 3}})
    assert kept.names() == ["Another", "my best"]
    assert Recipe.from_dict(kept.load("my best")) == Recipe.load(where / "my best.toml").replace(name=values["name"])
    assert in_which(kept.load("my best")) == {"optimizer.lr": 0.01, "model.hidden": [64, 32]}
    with pytest.raises(RecipeError, match="no recipe is kept as 'my bst'; the nearest is 'my best'"):
        kept.load("my bst")
    kept.delete("my best")
    assert kept.names() == ["Another"]


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "x" * 51, "end."])
def test_a_name_that_no_file_may_have(name: str, where: Path):
    with pytest.raises(EpochalError, match="can't be a recipe's name"):
        SavedRecipes().save(name, {})
    assert not where.exists()


async def test_saved_from_the_form_and_loaded_again(console: Console, where: Path):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("training.epochs").focus_editor()
        await pilot.press("7", "escape", "w")
        await until(lambda: isinstance(console.screen, AskText))
        assert console.screen.query_one(Input).value == "digits-mlp"
        await pilot.press("ctrl+u", *"mine", "enter")
        await until((where / "mine.toml").exists)
        assert tomllib.loads((where / "mine.toml").read_text())["training"] == {"epochs": 7}
        assert "mine" in str(console.form.query_one("#title", Static).render())
        console.form.line("training.epochs").focus_editor()
        await pilot.press("9", "escape", "o")
        await until(lambda: isinstance(console.screen, RecipesScreen))
        assert options(console)[1:] == ["  mine  epochs 7", "no run has been trained yet"]
        await pilot.press("enter")
        await until(lambda: console.form.model.values.get("training") == {"epochs": 7})
        assert console.form.line("training.epochs").query_one(Input).value == "7"


async def test_another_of_the_same_name_is_asked_for(console: Console, where: Path):
    SavedRecipes().save("mine", {"training": {"epochs": 1}})
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("w")
        await until(lambda: isinstance(console.screen, AskText))
        await pilot.press("ctrl+u", *"mine", "enter")
        await until(lambda: isinstance(console.screen, Confirm))
        await pilot.press("n")
        await pilot.pause()
        assert SavedRecipes().load("mine") == {"training": {"epochs": 1}}


async def test_recipes_of_earlier_runs_each_once(console: Console, engine: ScriptedEngine):
    engine.runs_there = [
        run_summary("b-new", "finished", started=3.0, differs={"optimizer.lr": 0.1}),
        run_summary("a-old", "finished", started=1.0, differs={"optimizer.lr": 0.1}),
        run_summary("plain", "failed", started=2.0),
    ]
    SavedRecipes().save("mine", {"optimizer": {"name": "SGD"}})
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("o")
        await until(lambda: isinstance(console.screen, RecipesScreen))
        assert options(console)[1:2] == ["  mine  SGD"]
        assert options(console)[3:] == ["  b-new  lr 0.1", "  plain  the default recipe"]
        await pilot.press("down", "D")
        assert "goes with its run" in str(console.screen.query_one(".error", Static).render())
        await pilot.press("enter")
        await until(lambda: console.form.model.values.get("training") == {"epochs": 2})
        assert "as in b-new" in str(console.form.query_one("#title", Static).render())
        await pilot.press("o")
        await until(lambda: isinstance(console.screen, RecipesScreen))
        await pilot.press("D", "y")
        await until(lambda: SavedRecipes().names() == [] and isinstance(console.screen, RecipesScreen))
        await until(lambda: "none is saved" in options(console)[0])


async def test_an_example_fills_the_form_its_files_where_they_are(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("o")
        await until(lambda: isinstance(console.screen, RecipesScreen))
        choices = console.screen.query_one(OptionList)
        choices.highlighted = choices.get_option_index("example text")
        await pilot.press("D")
        assert "examples stay" in str(console.screen.query_one(".error", Static).render())
        await pilot.press("enter")
        await until(lambda: console.form.model.values["name"] == "text")
        assert "example text" in str(console.form.query_one("#title", Static).render())
        assert Path(console.form.model.values["data"]["path"]).is_file()


async def test_the_example_of_a_sweep_has_its_several_values(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("o")
        await until(lambda: isinstance(console.screen, RecipesScreen))
        choices = console.screen.query_one(OptionList)
        choices.highlighted = choices.get_option_index("example sweep")
        await pilot.press("enter")
        await until(lambda: console.form.model.values["name"] == "sweep")
        assert console.form.line("optimizer.lr").query_one(Input).value == "1e-3..1x7"
        assert [len(axis.values) for axis in console.form.model.axes] == [7, 2]


def test_fields_with_several_values_are_kept_and_the_file_stays_a_recipe(where: Path):
    kept, values = SavedRecipes(), Recipe().replace(**{"optimizer.lr": 1e-4}).to_dict(complete=False)
    kept.save("rates", values, {"optimizer.lr": "1e-4, 3e-4", "seed": "0..3"})
    assert kept.several("rates") == {"optimizer.lr": "1e-4, 3e-4", "seed": "0..3"}
    assert Recipe.load(where / "rates.toml").replace(name=values["name"]) == Recipe.from_dict(kept.load("rates"))
    kept.save("one", values)
    assert kept.several("one") == {}


async def test_a_sweep_is_saved_from_the_form_and_loaded_again(console: Console, where: Path):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("optimizer.lr").focus_editor()
        await pilot.press(*"1e-4,3e-4", "escape", "w")
        await until(lambda: isinstance(console.screen, AskText))
        await pilot.press("ctrl+u", *"rates", "enter")
        await until((where / "rates.toml").exists)
        console.form.line("optimizer.lr").focus_editor()
        await pilot.press("1", "escape", "o")
        await until(lambda: isinstance(console.screen, RecipesScreen))
        assert "lr 1e-4,3e-4" in " ".join(options(console))
        await pilot.press("enter")
        await until(lambda: console.form.model.several == {"optimizer.lr": "1e-4,3e-4"})
