"""The chart pane: what its keys do, and what is then on the screen."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from textual.app import App, ComposeResult

from engine.events import Trained
from engine.history import History
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, drawn, ready, until
from tests.tui.scripted import history_with, screen_lines, screen_text
from tui.app import Console
from tui.widgets.chart import Chart
from tui.widgets.figure import exact


class Stage(App):
    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history

    def compose(self) -> ComposeResult:
        yield Chart()

    def on_mount(self) -> None:
        self.query_one(Chart).show(self.history)


# what is drawn


async def test_metrics_in_turn():
    app = Stage(scripted.running_history())
    async with app.run_test(size=(90, 24)) as pilot:
        chart = app.query_one(Chart)
        seen = []
        for _ in range(4):
            await pilot.pause()
            seen.append(screen_lines(app)[0].split("──")[1].split("·")[0].strip())
            chart.cycle_metric(1)
        assert seen == ["loss", "accuracy", "lr", "loss"]
        chart.cycle_metric(-1)
        await pilot.pause()
        assert "── loss ·" in screen_lines(app)[0]


async def test_the_learning_rate():
    app = Stage(scripted.running_history())
    async with app.run_test(size=(90, 24)) as pilot:
        chart = app.query_one(Chart)
        chart.cycle_metric(-1)
        await pilot.pause()
        assert "lr 3.0e-4" in screen_text(app)
        assert "smooth" not in screen_text(app)


async def test_the_title_states_what_is_drawn():
    app = Stage(scripted.running_history())
    async with app.run_test(size=(90, 24)) as pilot:
        chart = app.query_one(Chart)
        for act, said in ((chart.smooth_more, "smoothing 0.8"), (chart.smooth_less, "smoothing 0.6"),
                          (chart.smooth_none, "not smoothed"), (chart.smooth_less, "not smoothed"),
                          (chart.smooth_more, "smoothing 0.3"), (chart.toggle_log, "linear y"),
                          (chart.toggle_log, "log y")):  # fmt: skip
            act()
            await pilot.pause()
            assert said in screen_lines(app)[0]


async def test_smoothing_does_not_depend_on_the_width():
    shown = set()
    for width in (80, 100, 200):
        app = Stage(scripted.running_history())
        async with app.run_test(size=(width, 24)) as pilot:
            await pilot.pause()
            shown.add(screen_text(app).partition("smoothed ")[2].split()[0])
    assert len(shown) == 1


async def test_a_loss_that_is_not_positive_is_drawn_linear():
    history = scripted.history_of(
        scripted.started(),
        Trained(epoch=1, first=1, step=3, every=1, loss=(1.0, 0.0, -1.0), low=(), high=(), lr=(1e-3,) * 3),
    )
    app = Stage(history)
    async with app.run_test(size=(90, 24)) as pilot:
        await pilot.pause()
        assert "linear y" in screen_lines(app)[0]
        assert "-1.0┤" in screen_text(app)


async def test_a_spike_stays_in_sight():
    losses = [0.5] * 3000
    losses[1234] = 60.0
    app = Stage(history_with(losses))
    async with app.run_test(size=(90, 24)) as pilot:
        await pilot.pause()
        high = [line for line in screen_lines(app)[2:8] if any(0x2800 < ord(c) < 0x2900 for c in line)]
        assert len(high) == 1
        place = next(i for i, c in enumerate(high[0]) if 0x2800 < ord(c) < 0x2900)
        assert abs(place - (8 + 81 * 1235 / 3000)) <= 2


async def test_not_a_number_is_marked():
    app = Stage(scripted.failed_history())
    async with app.run_test(size=(90, 24)) as pilot:
        await pilot.pause()
        text = screen_text(app)
        assert "train NaN" in text and "× not a number" in text
        assert "×" in screen_lines(app)[-4]


async def test_what_came_while_hidden_is_there_when_shown():
    app = Stage(History())
    async with app.run_test(size=(90, 24)) as pilot:
        chart = app.query_one(Chart)
        chart.display = False
        await pilot.pause()
        chart.show(scripted.running_history())
        chart.display = True
        await pilot.pause()
        assert "best 0.4165 at epoch 6" in screen_text(app)


# the cursor


async def test_the_cursor_shows_the_journals_own_values():
    noise = random.Random(3)
    losses = [noise.uniform(0.1, 2.0) for _ in range(40)]
    app = Stage(history_with(losses))
    async with app.run_test(size=(110, 24)) as pilot:
        chart = app.query_one(Chart)
        chart.smooth_none()
        while chart.cursor != 1:
            chart.move_cursor(-1)
            await pilot.pause()
            step = chart.cursor
            line = next(line for line in screen_lines(app) if "cursor step" in line)
            assert f"step {step:,} " in line and f"train {exact(losses[step - 1])}" in line and "lr 1.0e-3" in line
        while chart.cursor != 40:
            before = chart.cursor
            chart.move_cursor(1)
            assert chart.cursor > before
        assert chart.drop_cursor() and not chart.drop_cursor()
        await pilot.pause()
        assert "cursor" not in screen_text(app)


async def test_each_step_can_be_reached_by_zooming_in():
    losses = [1.0 / step for step in range(1, 3001)]
    app = Stage(history_with(losses))
    async with app.run_test(size=(90, 24)) as pilot:
        chart = app.query_one(Chart)
        chart.move_cursor(-1)
        for _ in range(8):
            chart.zoom(0.5)
        reached = []
        for _ in range(5):
            chart.move_cursor(-1)
            reached.append(chart.cursor)
        await pilot.pause()
        assert reached == list(range(reached[0], reached[0] - 5, -1))


# zoom and pan


async def test_zoom_and_pan_say_what_is_shown_and_stay_inside():
    app = Stage(history_with([1.0 / step for step in range(1, 401)]))
    async with app.run_test(size=(110, 24)) as pilot:
        chart = app.query_one(Chart)
        for act, said in ((lambda: chart.zoom(0.5), "step 100 to 300"), (lambda: chart.pan(0.25), "step 150 to 350"),
                          (lambda: chart.pan(9), "step 200 to 400"), (lambda: chart.pan(-9), "step 0 to 200"),
                          (lambda: chart.zoom(2.0), "whole run"), (lambda: chart.pan(1), "whole run"),
                          (chart.toggle_recent, "last 100 steps"), (lambda: chart.zoom(0.5), "step 325 to 375"),
                          (chart.toggle_recent, "whole run")):  # fmt: skip
            act()
            await pilot.pause()
            assert said in screen_lines(app)[0]
        for _ in range(20):
            chart.zoom(0.5)
        assert chart.window[1] - chart.window[0] >= 3
        for _ in range(20):
            chart.zoom(2.0)
        assert chart.window is None


async def test_the_axis_changes_in_turn_and_the_title_says_so():
    app = Stage(scripted.running_history())
    async with app.run_test(size=(110, 24)) as pilot:
        for said in ("by epoch", "by training time", "by step"):
            app.query_one(Chart).cycle_across()
            await pilot.pause()
            assert said in screen_lines(app)[0]


@pytest.mark.parametrize("width", [20, 60, 80, 200])
@pytest.mark.parametrize("variable", [None, "NO_COLOR", "EPOCHAL_ASCII"])
async def test_every_choice_at_once_in_any_width(width, variable, monkeypatch):
    if variable:
        monkeypatch.setenv(variable, "1")
    app = Stage(scripted.continued_history())
    async with app.run_test(size=(width, 16)) as pilot:
        chart = app.query_one(Chart)
        for act in (
            chart.cycle_across,
            chart.toggle_clip,
            lambda: chart.zoom(0.5),
            lambda: chart.move_cursor(-1),
            chart.toggle_log,
        ):
            act()
            await pilot.pause()
        assert not chart._failed
        assert variable != "EPOCHAL_ASCII" or [line for line in screen_lines(app) if not line.isascii()] == []


# several runs


async def test_every_run_is_named_where_one_line_has_no_room_for_all():
    first, *others = [f"20261122-14031{i}-a-name-of-a-run" for i in range(3)]
    app = Stage(history_with([1.0] * 50))
    async with app.run_test(size=(80, 24)) as pilot:
        chart = app.query_one(Chart)
        chart.smooth_none()
        chart.run, chart.others = first, tuple((name, history_with([2.0] * 80)) for name in others)
        chart.update_chart()
        await pilot.pause()
        assert [name for name in (first, *others) if name not in screen_text(app)] == [], screen_text(app)


# by key


async def test_the_keys_of_the_chart(console: Console, engine: ScriptedEngine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine.events = scripted.running_history_events(at=3)
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("r")
        await drawn(console)
        await pilot.press("1")  # the pane has the keyboard: the arrows are the cursor's all the same
        await pilot.pause()
        chart, view = console.screen.query_one(Chart), console.view
        await pilot.press("x", "o")
        assert (view.across, view.clip) == ("epoch", True)
        await pilot.press("O", "x", "x", "f")
        assert (view.across, view.clip, view.recent) == ("step", False, True)
        await pilot.press("z")
        zoomed = chart.window
        await pilot.press("h")
        assert chart.window[0] < zoomed[0]
        await pilot.press("l")
        assert chart.window == pytest.approx(zoomed)
        await pilot.press("Z", "f")
        assert chart.window is None and not view.recent
        await pilot.press("left", "left")
        assert chart.cursor is not None and chart.cursor < 980
        await pilot.press("right", "escape")
        assert chart.cursor is None
        await pilot.press("w")
        await until(lambda: (tmp_path / "chart-loss.csv").exists() and (tmp_path / "chart-loss.svg").exists())
        assert any("written: chart-loss.csv and chart-loss.svg" in told.message for told in console._notifications)


async def test_a_batch_without_any_loss_leaves_the_axis_logarithmic(console: Console, engine: ScriptedEngine):
    events = scripted.running_history_events(4)
    last = next(event for event in reversed(events) if isinstance(event, Trained))
    events[events.index(last)] = replace(last, low=(0.0, *last.low[1:]))
    engine.events = events
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("r")
        await drawn(console)
        assert "log y" in screen_text(console)
