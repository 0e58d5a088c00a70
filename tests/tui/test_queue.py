"""The queue on the screen: a real queue directory, whose worker is scripted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from textual.widgets import DataTable, Static

from engine.events import EpochEnded
from engine.run.queue import Job, Part, Process, Queue
from engine.search.board import Board
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, ScriptedFollower, cells, ready, run_summary, until
from tests.tui.scripted import line_with, screen_text
from tui.app import Console
from tui.screens.overlay import OverlayScreen
from tui.screens.queue import QueueScreen
from tui.screens.search import SearchScreen
from tui.screens.train import TrainScreen


@pytest.fixture
def queue(engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setattr(ScriptedEngine, "root", tmp_path / "runs")
    monkeypatch.setattr(engine, "work_on_queue", lambda again=True: f"process 77 works{' again' * again}")
    return Queue(tmp_path / "runs")


def screen(console: Console) -> QueueScreen:
    assert isinstance(console.screen, QueueScreen)
    return console.screen


def rows(console: Console) -> list[str]:
    return [" ".join(" ".join(row).split()) for row in cells(console)]


def text(console: Console, which: str) -> str:
    return str(console.screen.query_one(which, Static).render())


async def opened(console: Console, pilot, count: int) -> None:
    await ready(console)
    await pilot.press("Q")
    await until(lambda: isinstance(console.screen, QueueScreen) and len(cells(console)) == count)


async def test_from_the_form_into_the_queue(console: Console, engine: ScriptedEngine, queue: Queue, monkeypatch):
    monkeypatch.setattr(
        "engine.cli.queue.job_of", lambda values, axes, root: Job(name="digits-mlp", recipe=str(values), axes=axes)
    )
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.form.line("training.epochs").focus_editor()
        await pilot.press("7", "escape", "A")
        await until(lambda: queue.read().jobs)
        await until(lambda: any("job 1: process 77 works · Q" in item.message for item in console._notifications))
        console.form.line("training.epochs").focus_editor()
        await pilot.press("8", "escape")
        assert "'epochs': 7" in queue.read().jobs[0].recipe, "frozen as it was"
        await pilot.press("Q")
        await until(lambda: rows(console) == ["· 1 waiting digits-mlp"])
        assert "1 waiting" in text(console, "#title") and "r starts it" in text(console, "#title")
        await pilot.press("r")
        await until(lambda: any("works again" in item.message for item in console._notifications))


async def test_an_empty_queue_says_how_to_fill_it(console: Console, queue: Queue):
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot, 0)
        assert "A in the form" in text(console, "#empty")
        assert line_with(console, "Esc back") and "space" not in screen_text(console), "the footer has what acts here"

        def said() -> list[str]:
            return [notice.message for notice in console._notifications]

        for key in ("enter", "s", "space", "K", "J", "D", "R", "v", "o"):
            console.clear_notifications()
            await pilot.press(key)
            await until(lambda key=key: said() == [screen(console)._none()])
        for key, words in (("X", "nothing here has ended"), ("S", "nothing is under way; r begins what waits")):
            console.clear_notifications()
            await pilot.press(key)
            await until(lambda words=words: said() == [words])
        await pilot.press("escape")
        assert console.screen is console.form


async def test_order_hold_removal_and_retry(console: Console, queue: Queue):
    queue.add(Job(name=name) for name in "abc")
    queue.claim(1)
    queue.conclude(1, "failed", "no data")
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot, 3)
        assert rows(console)[0] == "✗ 1 failed a" and "no data" in text(console, "#about")
        await pilot.press("down", "J")
        await until(lambda: [job.name for job in queue.read().jobs] == ["a", "c", "b"])
        await until(lambda: screen(console)._at() == "2" and rows(console)[2] == "· 2 waiting b")
        await pilot.press("H")
        await until(lambda: queue.read().held)
        await until(lambda: "held" in text(console, "#title"))
        await pilot.press("D", "y")
        await until(lambda: [job.name for job in queue.read().jobs] == ["a", "c"])
        await until(lambda: len(rows(console)) == 2)
        await pilot.press("up", "up", "R")
        await until(lambda: [(job.name, job.state) for job in queue.read().jobs] == [("c", "waiting"), ("a", "waiting")])


async def test_a_sweep_unfolds_and_is_steered(console: Console, engine: ScriptedEngine, queue: Queue):
    root = queue.root
    parts = tuple(Part(label=f"lr={i}", state="training", run=str(root / f"r{i}"), how="population of 2") for i in (1, 2))
    notes = ("2 runs are trained together, each step of all as one",)
    queue.add([Job(name="s", axes=("optimizer.lr=1,2",), parts=parts, notes=notes, direct=True)])
    queue.update(1, lambda job: replace(job, state="training", process=Process.this()))
    engine.runs_there = [
        run_summary(f"r{i}", "running", path=root / f"r{i}", best={"epoch": 1, "val/loss": 0.5 / i}, epoch=3) for i in (1, 2)
    ]
    async with console.run_test(size=(120, 40)) as pilot:
        await opened(console, pilot, 1)
        assert rows(console)[0] == "● 1 training ▸ s lr=1,2 0/2 0.2500 lr=2 a sweep"
        assert "trained together" in text(console, "#about")
        await pilot.press("space", "s", "enter")
        asked = queue.directory / "control-1.jsonl"
        await until(lambda: asked.exists() and len(asked.read_text().splitlines()) == 2)
        assert sorted(json.loads(line)["ask"] for line in asked.read_text().splitlines()) == ["pause", "stop"]
        assert rows(console)[2] == "● running lr=2 3/2 val loss 0.2500 0:18 population of 2"
        await pilot.press("v")
        await until(lambda: isinstance(console.screen, OverlayScreen))
        await pilot.press("escape")
        await until(lambda: isinstance(console.screen, QueueScreen))
        await pilot.press("down", "down", "enter")
        await until(lambda: isinstance(console.screen, TrainScreen) and console.screen.shown.path == root / "r2")


async def test_what_is_under_the_cursor_is_drawn_below(console: Console, engine: ScriptedEngine, queue: Queue):
    root = queue.root
    parts = tuple(Part(label=f"lr={i}", state="finished", run=str(root / f"r{i}")) for i in (1, 2))
    recipe = 'name = "wine"\n[data]\nname = "wine"\nbatch_size = 48\n'
    queue.add(
        [Job(name="s", axes=("optimizer.lr=1,2",), parts=parts), Job(name="wine", recipe=recipe), Job(name="x", recipe="?")]
    )
    engine.runs_there = [
        run_summary(f"r{i}", "finished", path=root / f"r{i}", best={"epoch": 1, "val/loss": 0.5 / i}) for i in (1, 2)
    ]
    for i in (1, 2):
        of_epoch = EpochEnded(
            epoch=1, step=390, metrics={"train/loss": 1.0, "val/loss": 0.5 / i}, lr=0.1, seconds=1.0, best=True
        )
        engine.followers[f"r{i}"] = ScriptedFollower(scripted.started(1), of_epoch, scripted.finished_history().ended)
    async with console.run_test(size=(120, 40)) as pilot:
        await opened(console, pilot, 3)
        await until(lambda: "val lr=2 0.2500" in screen_text(console) and "val lr=1 0.5000" in screen_text(console))
        assert "2 runs" in line_with(console, "Chart ──")
        await pilot.press("down")
        await until(lambda: "wine ── has not begun" in screen_text(console) and "48" in line_with(console, "batch_size"))
        assert "Chart ──" not in screen_text(console)
        await pilot.press("down")
        await until(lambda: "batch_size" not in screen_text(console)), "nobody can read it"
        await pilot.press("up", "up", "p")
        await until(lambda: "val lr=2" not in screen_text(console))


async def test_no_column_is_cut_at_80_columns(console: Console, engine: ScriptedEngine, queue: Queue):
    axes = ("optimizer.lr=1e-4, 1e-3, 1e-2",)
    parts = (Part(label="lr=0.0001", run=str(Path("runs/r0").absolute()), state="finished", how="alone"),)
    queue.add([Job(name="a-name-that-takes-much-room", axes=axes, parts=parts)])
    engine.runs_there = [run_summary("r0", "finished", best={"epoch": 2, "val/loss": 0.4123}, seconds=3723.0)]
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot, 1)
        await pilot.press("enter")
        await until(lambda: len(cells(console)) == 2)
        assert "…" in rows(console)[0] and "1:02:03" in rows(console)[1]
        table = console.screen.query_one(DataTable)
        await until(lambda: 60 < table.virtual_size.width <= 80)
        assert "1e-4, 1e-3, 1e-2" in text(console, "#about"), "what was cut is said below"
        await pilot.resize_terminal(120, 40)
        await until(lambda: "alone" in rows(console)[1] and "…" not in rows(console)[0])


async def test_a_job_whose_process_died_is_shown_so(console: Console, queue: Queue):
    queue.add([Job(name="a"), Job(name="b")])
    queue.claim(1)
    queue.update(1, lambda job: replace(job, process=replace(Process.this(), process_started=1.0)))
    async with console.run_test(size=(80, 24)) as pilot:
        await opened(console, pilot, 2)
        assert rows(console)[0] == "✗ 1 died a" and "goes on when the queue is started" in text(console, "#about")
        assert "2 waiting" in text(console, "#title")
        table = console.screen.query_one(DataTable)
        assert table.row_count == 2


async def test_runs_are_queued_from_their_list(console: Console, with_runs: ScriptedEngine, queue: Queue, monkeypatch):
    monkeypatch.setattr("engine.cli.queue.resuming", lambda which, root: Job(name=which.name, run=str(which)))
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("a")
        await until(lambda: console.screen.query(DataTable) and console.screen.query_one(DataTable).row_count == 2)
        await pilot.press("space", "space", "A")
        await until(lambda: len(queue.read().jobs) == 2)
        assert {job.name for job in queue.read().jobs} == {"20261122-140312-digits-mlp", "20261121-140312-iris"}


async def test_a_search_is_queued_from_the_form_and_opens_its_leaderboard(
    console: Console, engine: ScriptedEngine, queue: Queue, monkeypatch
):
    search = {"trials": 20, "space": {"optimizer.lr": [1e-3, 1e-2]}}
    given: list[dict[str, object]] = []

    def job_of(values, axes, root) -> Job:
        given.append(values)
        return Job(name="digits", search="runs/searches/digits", trials=3, limit=20, best="val/loss 0.2 in trial 1")

    monkeypatch.setattr("engine.cli.queue.job_of", job_of)
    monkeypatch.setattr(engine, "problems", lambda values: ())
    monkeypatch.setattr(engine, "searches", list)
    monkeypatch.setattr(engine, "watch_search", lambda path: SimpleNamespace(read=lambda importance: None))
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await console.form.fill({"name": "digits", "search": search}, "a file", ask=False)
        await pilot.press("A")
        await until(lambda: queue.read().jobs)
        assert given[0]["search"] == search
        await pilot.press("Q")
        await until(lambda: rows(console) == ["· 1 waiting digits 3/20 val loss 0.2 in trial 1 a search"])
        await pilot.press("enter")
        await until(lambda: isinstance(console.screen, SearchScreen))
        assert dict(console.screen.copies())["path"] == "runs/searches/digits"


async def test_a_search_is_queued_from_its_screen(console: Console, engine: ScriptedEngine, queue: Queue, monkeypatch):
    monkeypatch.setattr(engine, "searches", lambda: [Path("runs/searches/digits")])
    monkeypatch.setattr("engine.cli.queue.resuming", lambda which, root: Job(name=which.name, search=str(which)))
    board = Board(
        name="digits", path="runs/searches/digits", metric="val/loss", direction="minimize", sampler="tpe", pruner="median",
        space={}, limit=20,
    )  # fmt: skip
    monkeypatch.setattr(engine, "watch_search", lambda path: SimpleNamespace(read=lambda importance: board))
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("F")
        await until(lambda: "search digits" in text(console, "#title"))
        await pilot.press("A")
        await until(lambda: [job.search for job in queue.read().jobs] == ["runs/searches/digits"])
