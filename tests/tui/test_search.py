"""A search on the screen: boards as they come, and what its keys do. The engine behind it is scripted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.widgets import Static

from engine.errors import RunError
from engine.search.board import Board, Row
from tests.tui.conftest import ScriptedEngine, cells, ready, run_summary, until
from tui.app import Console
from tui.background import Begun
from tui.screens.search import SearchScreen
from tui.screens.train import TrainScreen
from tui.widgets.board import BestPane, WeightsPane

WHERE = Path("runs/searches")


def board(name: str = "digits", **values: Any) -> Board:
    return Board(
        name=name, path=str(WHERE / name), metric="val/loss", direction="minimize", sampler="tpe", pruner="median",
        space={"optimizer.lr": "1e-4 … 0.1 (log)", "model.hidden": "[64], [128]"}, limit=20, **values,
    )  # fmt: skip


def trial(number: int, state: str, value: float | None, lr: float, **more: Any) -> Row:
    return Row(number=number, state=state, value=value, params={"optimizer.lr": lr, "model.hidden": "[64]"}, epoch=3, **more)


UNDER_WAY = board(
    rows=(
        trial(1, "finished", 0.2, 3e-3, run="runs/20261122-140312-digits-001", seconds=4.0),
        trial(0, "finished", 0.4, 1e-2, seconds=4.0),
        trial(3, "running", 0.9, 1e-4),
        trial(2, "pruned", 1.5, 0.1, reason="pruned by MedianPruner after epoch 1: val/loss 1.5"),
    ),
    curve=((1, 0.4, 0.4), (2, 0.2, 0.2)),
    importance={"optimizer.lr": 0.9, "model.hidden": 0.1},
    workers=("gpu3-77",),
)


@pytest.fixture
def boards(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> dict[str, Board]:
    """By the name of the folder; what the screen reads."""
    there = {"digits": UNDER_WAY, "older": board("older")}
    monkeypatch.setattr(engine, "searches", lambda: [WHERE / name for name in there])
    watch = lambda path: SimpleNamespace(read=lambda *, importance: there[path.name])  # noqa: E731
    monkeypatch.setattr(engine, "watch_search", watch)
    return there


def text(console: Console, which: str) -> str:
    return str(console.screen.query_one(which, Static).render())


def rows(console: Console) -> list[str]:
    assert isinstance(console.screen, SearchScreen)
    return [" ".join(" ".join(row).split()) for row in cells(console)]


def lines(pane: BestPane | WeightsPane) -> str:
    return "\n".join("".join(piece for piece, _ in row) for row in pane._rows)


async def opened(console: Console, pilot) -> None:
    await ready(console)
    await pilot.press("F")
    await until(lambda: isinstance(console.screen, SearchScreen) and console.screen._board is not None)


async def test_the_best_first_with_curve_and_importance(console: Console, boards: dict[str, Board]):
    async with console.run_test(size=(120, 40)) as pilot:
        await opened(console, pilot)
        assert rows(console) == [
            "★ 1 0.2000 3 finished 0.003 [64] 0:04",
            "✓ 0 0.4000 3 finished 0.01 [64] 0:04",
            "● 3 0.9000 3 running 0.0001 [64] –",
            "▽ 2 1.500 3 pruned 0.1 [64] –",
        ]
        assert "search digits (1 of 2) · searching · 3 of 20 trials · 2 finished, 1 pruned, 1 running · 1 worker" in text(
            console, "#title"
        )
        await until(lambda: "90.0%" in lines(console.screen.query_one(WeightsPane)))
        await until(lambda: "★" in lines(console.screen.query_one(BestPane)))
        await pilot.press("down", "down", "down")
        await until(lambda: "trial 2 pruned · after epoch 1: val/loss 1.5 · lr=0.1" in text(console, "#about"))


async def test_it_follows_what_others_do_and_the_cursor_stays_on_its_trial(console: Console, boards: dict[str, Board]):
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot)
        await pilot.press("down")
        new = trial(4, "finished", 0.1, 2e-3)
        boards["digits"] = replace(UNDER_WAY, rows=(new, *UNDER_WAY.rows), workers=())
        await until(lambda: rows(console)[0].startswith("★ 4"))
        await until(lambda: "trial 0" in text(console, "#about") and "stopped: r goes on" in text(console, "#title"))


async def test_enter_opens_the_trials_run_and_brackets_another_search(
    console: Console, boards: dict[str, Board], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "20261122-140312-digits-001"
    run.mkdir()
    boards["digits"] = replace(UNDER_WAY, rows=(replace(UNDER_WAY.rows[0], run=str(run)), *UNDER_WAY.rows[1:]))
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot)
        await pilot.press("enter")
        await until(lambda: isinstance(console.screen, TrainScreen))
        console.pop_screen()
        await pilot.press("right_square_bracket")
        await until(lambda: "search older (2 of 2)" in text(console, "#title"))
        await until(lambda: "no trial has begun yet" in text(console, "#empty"))
        await pilot.press("escape")
        assert console.screen is console.form


async def test_stop_and_go_on(console: Console, engine: ScriptedEngine, boards: dict[str, Board], monkeypatch):
    stopped: list[Path] = []

    def stop(path: Path) -> str:
        stopped.append(path)
        if len(stopped) > 1:
            raise RunError(f"nobody works on {path}")
        return "1 worker stopping"

    begun: list[Path] = []
    monkeypatch.setattr(engine, "stop_search", stop)
    monkeypatch.setattr(
        engine, "go_on_with_search", lambda path: begun.append(path) or SimpleNamespace(poll=lambda: Begun(search=path))
    )
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot)
        await pilot.press("r")
        assert not begun and any("it is searching already" in item.message for item in console._notifications)
        await pilot.press("s")
        await until(lambda: any("1 worker stopping" in item.message for item in console._notifications))
        boards["digits"] = replace(UNDER_WAY, workers=())
        await until(lambda: "r goes on" in text(console, "#title"))
        await pilot.press("s")
        await until(lambda: any("nobody works" in item.message for item in console._notifications))
        await pilot.press("r")
        assert begun == [WHERE / "digits"]


async def test_without_a_search_the_screen_says_how_to_begin_one(console: Console, engine: ScriptedEngine, monkeypatch):
    monkeypatch.setattr(engine, "searches", list)
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("F")
        await until(lambda: "Open a recipe with a [search] in the form" in text(console, "#empty"))


async def test_the_form_begins_the_search_of_a_recipe_that_has_one(
    console: Console, engine: ScriptedEngine, boards: dict[str, Board], monkeypatch: pytest.MonkeyPatch
):
    given: list[Mapping[str, Any]] = []
    search = {"trials": 20, "space": {"optimizer.lr": [1e-3, 1e-2]}}
    monkeypatch.setattr(engine, "problems", lambda values: ())
    monkeypatch.setattr(
        engine,
        "start_search",
        lambda values: given.append(values) or SimpleNamespace(poll=lambda: Begun(search=WHERE / "digits")),
    )
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await console.form.fill({"name": "digits", "search": search}, "a file", ask=False)
        assert "a search" in text(console, "#title") and "r starts the search" in text(console, "#hint")
        await pilot.press("r")
        await until(lambda: isinstance(console.screen, SearchScreen))
        assert given[0]["search"] == search and not engine.started
        await until(lambda: rows(console)[:1] == ["★ 1 0.2000 3 finished lr=0.003 hidden=[64]"])


async def test_from_a_trial_in_the_list_to_its_search(
    console: Console, engine: ScriptedEngine, boards: dict[str, Board], monkeypatch: pytest.MonkeyPatch
):
    engine.runs_there = [run_summary("older-007", "finished", tag="older")]
    monkeypatch.setattr("engine.search.folder.search_of", lambda run: WHERE / "older" if run.name.endswith("007") else None)
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("a")
        await until(lambda: console.screen.query("DataTable") and console.screen.query_one("DataTable").row_count == 1)
        await pilot.press("F")
        await until(lambda: isinstance(console.screen, SearchScreen) and "search older" in text(console, "#title"))
