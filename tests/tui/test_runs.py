"""The list of runs: arranged, kept in order, compared, forked."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import DataTable, Input, OptionList, Static

from engine.errors import Problem, RecipeError, RunError
from engine.events import EpochEnded
from tests.tui import scripted
from tests.tui.conftest import SMALL, WIDE, ScriptedEngine, ScriptedFollower, cells, ready, run_summary, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.others import Others
from tui.screens.ask import AskFork, Confirm
from tui.screens.differences import DifferencesScreen, rows
from tui.screens.form import FormScreen
from tui.screens.overlay import OverlayScreen
from tui.screens.runs import RunsScreen, settings
from tui.screens.table import fit_columns
from tui.screens.train import TrainScreen
from tui.widgets.chart import Chart
from tui.widgets.epochs import EpochLog
from tui.widgets.formats import cut, cut_middle

A, B, C = "20261122-140312-wide", "20261121-140312-iris", "20261120-140312-deep"


@pytest.fixture
def three(engine: ScriptedEngine) -> ScriptedEngine:
    engine.runs_there = [
        run_summary(A, "finished", best={"epoch": 2, "val/loss": 0.4, "val/accuracy": 0.8}, differs={"model.hidden": [512]}),
        run_summary(B, "stopped", best={"epoch": 1, "val/loss": 0.2, "val/accuracy": 0.7}, tag="keep", seconds=99.0),
        run_summary(C, "running", best={}, parent=A, parent_step=780, differs={"optimizer.name": "SGD"}),
    ]
    return engine


def ended(epoch: int, *, val: float) -> EpochEnded:
    metrics = {"train/loss": 1.0, "val/loss": val}
    return EpochEnded(epoch=epoch, step=390 * epoch, metrics=metrics, lr=1e-3, seconds=1.0, best=True)


class Reached:
    """What each run reached, as `engine.run.scores` tells it."""

    def best(self, path: Path, metric: str, *, smaller: bool) -> tuple[float, int] | None:
        values = {A: ((0.1, 1), (0.95, 7)), B: ((0.2, 2), (0.97, 5))}.get(path.name)
        return values and values[0 if smaller else 1]


def names(console: Console) -> list[str]:
    return [row[1] for row in cells(console)]


async def listed(console: Console, pilot) -> RunsScreen:
    await pilot.press("a")
    await pilot.pause()
    assert isinstance(console.screen, RunsScreen)
    return console.screen


async def test_a_plain_terminal_is_given_ascii_alone(three: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EPOCHAL_ASCII", "1")
    console = Console(three, {"name": "digits-mlp"})
    async with console.run_test(size=SMALL) as pilot:
        await ready(console)
        assert screen_text(console).isascii()
        await pilot.press("a")
        await until(lambda: "-deep" in screen_text(console))
        await pilot.press("question_mark")
        assert screen_text(console).isascii()
        await pilot.press("escape", "D")
        assert screen_text(console).isascii()


def test_columns_are_shortened_in_turn_until_they_fit():
    given = {"a": ["x", "n" * 40, "d" * 30], "b": ["x", "n", "d"]}
    cuts = [(2, 10, cut), (1, 20, cut_middle), (2, 0, cut)]
    for width, sizes in ((90, (40, 30)), (70, (40, 22)), (50, (32, 10)), (30, (20, 2))):
        shown = {key: list(row) for key, row in given.items()}
        fit_columns(["", "n", "d"], shown, width, cuts)
        assert [len(cell) for cell in shown["a"]] == [1, *sizes] and shown["b"] == given["b"]


async def test_what_differs_and_where_it_comes_from_is_shown(console: Console, three: ScriptedEngine):
    async with console.run_test(size=WIDE) as pilot:
        screen = await listed(console, pilot)
        assert [row[-1] for row in cells(console)] == ["hidden 512", "", "SGD"]
        await pilot.press("end")
        await until(lambda: console.screen.query_one(DataTable).cursor_row == 2)
        await pilot.press("home", "down", "end")
        await until(lambda: f"fork of {A} at step 780" in str(screen.query_one("#about", Static).content))


async def test_filter_and_sort_are_kept_for_the_next_look(console: Console, three: ScriptedEngine):
    async with console.run_test(size=SMALL) as pilot:
        await listed(console, pilot)
        await pilot.press("slash", *"finished", "enter")
        assert names(console) == [A]
        await pilot.press("escape", "a")
        assert names(console) == [A, B, C]
        await pilot.press("s")
        assert names(console) == [B, A, C], "the least loss first, none last"
        await pilot.press("S")
        assert names(console)[-1] == B
        await pilot.press("S", "slash", *"hidden=[512]", "enter", "a")
        assert names(console) == [A]
        await pilot.press("slash", *"zzz")
        assert "No run fits the filter" in screen_text(console)
        await pilot.press("escape")
        assert isinstance(console.screen, RunsScreen)
        await pilot.press("escape")
        assert console.screen is console.form, "first the filter, then the list"


async def test_another_metric_has_its_best_in_its_own_direction(console: Console, three: ScriptedEngine):
    three.__dict__["scores"] = Reached()
    async with console.run_test(size=WIDE) as pilot:
        await listed(console, pilot)
        await pilot.press("m")
        await until(lambda: [row[4] for row in cells(console)] == ["0.9500 at 7", "0.9700 at 5", "–"])
        await pilot.press("s")
        assert names(console) == [B, A, C], "the largest accuracy first"
        await pilot.press("m")
        await until(lambda: [row[4] for row in cells(console)] == ["0.1000 at 1", "0.2000 at 2", "–"])


async def test_a_run_is_tagged_and_renamed(console: Console, three: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    done: list[tuple[str, str, str]] = []
    monkeypatch.setattr(three, "tag", lambda path, text: done.append(("tag", path.name, text)), raising=False)

    def rename(path: Path, name: str) -> None:
        done.append(("rename", path.name, name))
        raise RunError("there is a run of that name already")

    monkeypatch.setattr(three, "rename", rename, raising=False)
    async with console.run_test(size=WIDE) as pilot:
        await listed(console, pilot)
        await pilot.press("g", *"good", "enter")
        await pilot.press("w", "end", *"-2", "enter")
        assert done == [("tag", A, "good"), ("rename", A, "wide-2")]
        await until(lambda: any("there is a run of that name" in said.message for said in console._notifications))
        await pilot.press("g", "x", "escape")
        assert len(done) == 2


async def test_a_run_is_deleted_after_a_question_and_never_a_live_one(console: Console, three: ScriptedEngine, monkeypatch):
    gone: list[str] = []

    def delete(path: Path) -> None:
        gone.append(path.name)
        three.runs_there = [run for run in three.runs_there if run.path != path]

    monkeypatch.setattr(three, "delete", delete, raising=False)
    async with console.run_test(size=WIDE) as pilot:
        await listed(console, pilot)
        await pilot.press("D", "enter")
        assert not gone, "Enter alone deletes nothing"
        await pilot.press("D")
        assert isinstance(console.screen, Confirm) and A in screen_text(console)
        await pilot.press("y")
        await until(lambda: gone == [A] and names(console) == [B, C])
        await pilot.press("space", "space", "D")
        assert isinstance(console.screen, RunsScreen) and gone == [A], "one of the marked ones is at work"
        await pilot.press("escape")
        assert all("◆" not in row[0] for row in cells(console))


async def test_recipes_are_compared(console: Console, three: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    recipes = {A: {"name": "w", "model": {"hidden": [512]}}, B: {"name": "w", "model": {"hidden": [8]}, "seed": 1}}
    monkeypatch.setattr(three, "recipe_of", lambda path: recipes[path.name])
    async with console.run_test(size=SMALL) as pilot:
        await listed(console, pilot)
        await pilot.press("space", "c")
        assert isinstance(console.screen, DifferencesScreen)
        text = screen_text(console)
        assert "2 fields differ" in text and "model.hidden" in text and "512" in text
        await pilot.resize_terminal(60, 24)
        await until(lambda: str(console.screen.query_one(Static).render()).count("…") == 2)
        await pilot.resize_terminal(*WIDE)
        await until(lambda: "…" not in str(console.screen.query_one(Static).render()))
        await pilot.resize_terminal(*SMALL)
        await pilot.press("escape")
        await pilot.press("o")
        await until(lambda: isinstance(console.screen, FormScreen))
        assert console.form.source == f"as in {B}" and console.form.model.values["seed"] == 1


def test_a_field_is_told_where_one_has_another_value_or_none():
    assert rows([{"a": 1, "b": {"c": 1.0}}, {"a": 1, "b": {"c": 2e-5}}]) == [("b.c", ["1", "2e-5"])]
    assert rows([{"a": 1}, {}]) == [("a", ["1", "–"])]
    assert settings("a.b=[1, 2] c=3") == ["a.b=[1, 2]", "c=3"] and settings("  ") == []


async def test_a_run_is_forked_from_a_checkpoint_with_changes(console: Console, three: ScriptedEngine, monkeypatch):
    forked: list[tuple[str, int, dict]] = []

    def with_settings(values, texts):
        if "wrong=1" in texts:
            raise RecipeError([Problem("wrong", "wrong is unknown")])
        return {**values, "asked": texts}

    def fork(path, step, values, control):
        forked.append((path.name, step, values))
        return three.resume(path, None, control)

    monkeypatch.setattr(three, "checkpoints", lambda path: [(780, "last, best"), (390, "")], raising=False)
    monkeypatch.setattr(three, "with_settings", with_settings, raising=False)
    monkeypatch.setattr(three, "fork", fork, raising=False)
    async with console.run_test(size=WIDE) as pilot:
        await ready(console)
        await listed(console, pilot)
        await pilot.press("f")
        assert isinstance(console.screen, AskFork)
        await pilot.press(*"wrong=1", "enter")
        await until(lambda: "wrong is unknown" in screen_text(console))
        console.screen.query_one(Input).value = "training.epochs=9"
        await pilot.press("down")
        console.screen.query_one(OptionList).highlighted = 1
        await pilot.press("enter", "enter")
        await until(lambda: isinstance(console.screen, TrainScreen) and forked)
        assert forked[0][:2] == (A, 390) and forked[0][2]["asked"] == ["training.epochs=9"]


async def test_the_ghost_is_told_epoch_by_epoch(console: Console, three: ScriptedEngine):
    three.followers[A] = ScriptedFollower(scripted.started(2), ended(1, val=0.5), ended(2, val=0.4))
    three.followers[C] = ScriptedFollower(scripted.started(2), ended(1, val=0.7), alive=True)
    async with console.run_test(size=WIDE) as pilot:
        await listed(console, pilot)
        await pilot.press("b")
        await until(lambda: cells(console)[0][0] == "b✓")
        await pilot.press("down", "down", "enter")
        await until(lambda: isinstance(console.screen, TrainScreen))
        await until(lambda: "Δghost" in screen_text(console) and "+0.2000" in screen_text(console))
        await pilot.press("b", "enter")
        await until(lambda: "Δghost" not in screen_text(console))
        assert console.screen.query_one(EpochLog)


async def test_a_fork_is_compared_with_its_parent(console: Console, three: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    three.followers[A] = ScriptedFollower(scripted.started(2), ended(1, val=0.5))
    three.followers[C] = ScriptedFollower(scripted.started(2), ended(1, val=0.3), alive=True)
    monkeypatch.setattr(three, "parent_of", lambda path: Path("runs") / A if path.name == C else None, raising=False)
    async with console.run_test(size=WIDE) as pilot:
        await listed(console, pilot)
        console.screen.query_one(DataTable).move_cursor(row=2)
        await pilot.press("enter")
        await until(lambda: "-0.2000" in screen_text(console))


async def test_marked_runs_are_drawn_on_one_chart(console: Console, three: ScriptedEngine):
    three.followers[A] = ScriptedFollower(scripted.started(2), ended(1, val=0.5), ended(2, val=0.4))
    three.followers[B] = ScriptedFollower(scripted.started(2), ended(1, val=0.8), ended(2, val=0.6))
    async with console.run_test(size=WIDE) as pilot:
        await listed(console, pilot)
        await pilot.press("space", "space", "enter")
        await until(lambda: isinstance(console.screen, OverlayScreen) and "2 runs" in screen_text(console))
        text = screen_text(console)
        assert f"val {A} 0.4000" in text and f"val {B} 0.6000" in text
        await pilot.press("y")
        await until(lambda: "linear y" in screen_text(console))
        await pilot.press("left", "escape")
        assert isinstance(console.screen, OverlayScreen), "the cursor goes first"
        await pilot.press("escape")
        assert isinstance(console.screen, RunsScreen)


async def test_a_run_that_is_gone_keeps_no_other_from_the_chart(console: Console, three: ScriptedEngine, monkeypatch):
    there = ScriptedFollower(scripted.started(2), ended(1, val=0.5))

    def follower(path: Path) -> ScriptedFollower:
        if path.name == B:
            raise RunError("it is gone")
        return there

    monkeypatch.setattr(three, "follower", follower)
    others = Others(three, [Path("runs") / B, Path("runs") / A])
    await until(lambda: others.named and others.failures)
    others.close()
    assert [name for name, _ in others.named] == [A] and others.failures == {B: f"{B} can't be read: it is gone"}


async def test_a_run_that_was_deleted_meanwhile_is_told(console: Console, three: ScriptedEngine, monkeypatch):
    def gone(path: Path) -> dict[str, object]:
        raise RunError(f"there is no run {path.name!r}; the nearest is 'another'")

    monkeypatch.setattr(three, "recipe_of", gone)
    async with console.run_test(size=WIDE) as pilot:
        screen = await listed(console, pilot)
        await pilot.press("enter")
        await until(lambda: any("is not there any more" in notice.message for notice in console._notifications))
        assert console.screen is screen


async def test_escape_leads_back_to_the_list_that_a_run_was_opened_from(console: Console, three: ScriptedEngine):
    three.followers[A] = ScriptedFollower(scripted.started(2), ended(1, val=0.5), ended(2, val=0.4))
    async with console.run_test(size=WIDE) as pilot:
        await listed(console, pilot)
        await pilot.press("slash", *"finished", "enter", "enter")
        await until(lambda: isinstance(console.screen, TrainScreen) and console.screen.query_one(Chart).figure.traces)
        await pilot.press("left", "escape")
        assert isinstance(console.screen, TrainScreen), "the cursor goes first"
        await pilot.press("escape")
        await until(lambda: isinstance(console.screen, RunsScreen) and names(console) == [A])
        console.action_form()
        console.follow(Path("runs") / A)
        await until(lambda: isinstance(console.screen, TrainScreen))
        await pilot.press("escape", "2")
        assert isinstance(console.screen, TrainScreen), "it was opened from no list"
