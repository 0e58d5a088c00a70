"""What a chart shows of a run, whichever part of it is shown: against the run's own journal, never against a picture."""

from __future__ import annotations

import csv
import io
import math
import random
import xml.etree.ElementTree as ET
from bisect import bisect_left
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from engine.events import RunContinued, RunPaused, SettingChanged, Trained
from engine.history import History, Series
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, drawn, ready, until
from tests.tui.scripted import screen_lines, screen_text
from tui.app import Console
from tui.widgets import export
from tui.widgets.chart import Chart
from tui.widgets.curves import Smoothed, View, decimate, inliers, smooth
from tui.widgets.figure import compose, exact, recent, round_up
from tui.widgets.traces import Across, Traces

LOSSES = st.lists(st.floats(1e-3, 1e3) | st.just(math.nan), min_size=1, max_size=200)


def history_with(losses, seconds_each: float = 0.5, steps_per_epoch: int = 50) -> History:
    """A run whose journal has one loss a step, a `Trained` every ten."""
    events = [scripted.started(8, steps=steps_per_epoch)]
    for first in range(0, len(losses), 10):
        part = tuple(losses[first : first + 10])
        last = first + len(part)
        events.append(
            Trained(time=scripted.START + last * seconds_each, epoch=first // steps_per_epoch + 1, first=first + 1, step=last,
                    every=1, loss=part, low=(), high=(), lr=(1e-3,) * len(part))
        )  # fmt: skip
    return scripted.history_of(*events)


class Stage(App):
    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history

    def compose(self) -> ComposeResult:
        yield Chart()

    def on_mount(self) -> None:
        self.query_one(Chart).show(self.history)


# no extreme is lost, wherever one looks


@settings(max_examples=150, deadline=None)
@given(LOSSES, st.integers(1, 90), st.floats(0, 1), st.floats(0, 1))
def test_every_part_shows_the_extremes_of_just_that_part(losses, count, one, other):
    steps = range(1, len(losses) + 1)
    left, right = sorted((one * len(losses), other * len(losses) + 1))
    at = decimate(steps, losses, losses, losses, left, right, count)
    inside = [loss for step, loss in zip(steps, losses, strict=True) if left <= step <= right]
    finite = [loss for loss in inside if math.isfinite(loss)]
    assert len(at.x) <= count
    assert bool(at.gaps) == (len(finite) < len(inside))
    assert [low for low in at.low if math.isfinite(low)] or not finite
    if finite:
        assert min(low for low in at.low if math.isfinite(low)) == min(finite)
        assert max(high for high in at.high if math.isfinite(high)) == max(finite)


@settings(max_examples=25, deadline=None)
@given(LOSSES, st.floats(0, 0.9), st.floats(0.05, 1), st.booleans(), st.sampled_from(["step", "epoch", "time"]))
def test_what_is_drawn_is_in_the_figure_whichever_way_x_counts(losses, start, length, clip, across):
    history = history_with(losses)
    window = start * len(losses), min(1.0, start + length) * len(losses) + 1
    figure = compose([("", history)], "loss", View(smoothing=0.0, across=across, clip=clip), 80, window=window)
    inside = [loss for step, loss in enumerate(losses, 1) if window[0] <= step <= window[1] and math.isfinite(loss)]
    (at,) = figure.columns
    shown = [value for value in (*at.low, *at.high) if math.isfinite(value)]
    assert (min(shown), max(shown)) == (min(inside), max(inside)) if inside and across == "step" else True
    assert set(shown) <= set(losses)


def test_a_hundred_thousand_steps_keep_their_spike_in_every_zoom_that_has_it():
    losses = [0.5] * 100_000
    losses[61_233] = 40.0
    history = history_with(losses, steps_per_epoch=10_000)
    for span in (100_000, 20_000, 3_000, 300):
        figure = compose([("", history)], "loss", View(), 80, window=(61_234 - span / 3, 61_234 + span / 2))
        assert max(figure.columns[0].high) == 40.0
    assert max(compose([("", history)], "loss", View(), 80, window=(10, 61_000)).columns[0].high) == 0.5


def test_ten_million_steps_stay_bounded_and_lose_nothing():
    series = Series()
    noise = random.Random(0)
    low, high = math.inf, -math.inf
    for step in range(10, 10_000_001, 10):  # as a fast run states them: ten steps a point
        value = noise.random()
        low, high = min(low, value), max(high, value)
        series.append(step, value)
    assert len(series) <= series.capacity
    steps, means, lows, highs = series.columns()
    assert (steps[-1], min(lows), max(highs)) == (10_000_000, low, high)
    assert math.isclose(sum(means) / len(means), 0.5, abs_tol=2e-3)


# smoothing


@settings(max_examples=40, deadline=None)
@given(LOSSES, st.floats(0, 0.9), st.floats(0.05, 1), st.sampled_from([0.3, 0.9, 0.99]))
def test_zooming_never_changes_the_smoothed_line(losses, start, length, weight):
    history = history_with(losses)
    view = View(smoothing=weight)
    whole = compose([("", history)], "loss", view, 80).traces[0]
    part = compose([("", history)], "loss", view, 40, window=(start * len(losses), (start + length) * len(losses))).traces[0]
    assert list(map(repr, part.smoothed)) == list(map(repr, whole.smoothed))
    assert whole.smoothed == pytest.approx(smooth(losses, weight), nan_ok=True)


def test_merged_points_count_for_as_many_as_they_stand_for():
    values = [2.0] * 64 + [1.0] * 64
    merged = Smoothed(0.98).of(range(16, 129, 16), values[::16], (16, 16))
    assert merged == pytest.approx(smooth(values, 0.98)[15::16])


def test_another_metric_of_the_same_steps_has_its_own_smoothed_line():
    history, traces = history_with([1.0] * 50), Traces()
    for step in range(1, 51):
        history.curve("train/accuracy").append(step, 0.5)
    lines = [compose([("", history)], metric, View(), 80, traces=traces).traces[0].smoothed for metric in ("loss", "accuracy")]
    assert [set(map(float, line)) for line in lines] == [{1.0}, {0.5}]


# the x axis


def test_the_axis_counts_steps_epochs_or_the_time_that_the_run_worked():
    history = history_with([1.0] * 100)
    history.apply(RunPaused(time=scripted.START + 50, step=100))
    history.apply(RunContinued(time=scripted.START + 5_000, step=100))
    history.apply(
        Trained(time=scripted.START + 5_010, epoch=3,
                first=101, step=120, every=20, loss=(1.0,), low=(1.0,), high=(1.0,), lr=(1e-3,))
    )  # fmt: skip
    assert Across(history, "step")(60) == 60
    assert Across(history, "epoch")(60) == pytest.approx(1.2)
    clock = Across(history, "time")
    assert [clock(step) for step in (0, 60, 100, 110, 120)] == pytest.approx([0, 30, 50, 55, 60]), "the pause is left out"
    assert [clock.back(x) for x in (0, 30, 50, 55, 60)] == pytest.approx([0, 60, 100, 110, 120])


def test_without_a_clock_and_epochs_it_counts_steps():
    history = History()
    history.curve("train/loss").append(1, 1.0)
    assert {Across(history, kind).kind for kind in ("step", "epoch", "time")} == {"step"}


@given(st.floats(1, 1e9))
def test_the_recent_part_ends_with_the_newest(newest):
    left, right = recent(newest, "step")
    assert left <= newest <= right
    assert newest < 100 or (right - newest <= (right - left) / 10 * (1 + 1e-6) and newest / 12 <= right - left <= newest / 3)
    assert newest <= round_up(newest, None) <= 1.7 * newest


# outliers


def test_clipped_outliers_leave_the_rest_readable_and_are_marked():
    losses = [1.0 + (step % 7) / 10 for step in range(100)]
    losses[40] = 900.0
    figure = compose([("", history_with(losses))], "loss", View(clip=True, smoothing=0.0), 80)
    assert figure.limits is not None and figure.limits[1] < 10
    assert "outliers clipped" in figure.heading(100) and "clipped" in figure.marked
    (mark,) = [mark for mark in figure.marks if mark.text == "↑"]
    assert abs(mark.x - 41) < 1
    assert "beyond" in "".join(text for text, _ in figure.legend(200))


@given(st.lists(st.floats(-1e6, 1e6), max_size=80))
def test_limits_hold_most_of_the_values(values):
    limits = inliers(values)
    if limits is not None:
        assert sum(limits[0] <= value <= limits[1] for value in values) >= 0.85 * len(values)


def test_without_outliers_nothing_is_clipped_and_nothing_is_claimed():
    figure = compose([("", history_with([1.0 + step / 100 for step in range(100)]))], "loss", View(clip=True), 80)
    assert figure.limits is None and "clipped" not in figure.heading(100)


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


def test_a_point_of_many_steps_says_so():
    history = scripted.running_history()
    figure = compose([("", history)], "loss", View(), 120, cursor=1234)
    steps, means, lows, highs = history.series["train/loss"].columns()
    at = bisect_left(steps, 1234)
    said = "".join(text for row in figure.reading(200, 1) for text, _ in row)
    covered = steps[at] - steps[at - 1]
    assert f"train {exact(means[at])} mean of {covered} steps, {exact(lows[at])} to {exact(highs[at])}" in said
    assert f"val {exact(history.series['val/loss'].columns()[1][2])} at 1,170" in said


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


# marks


def test_what_befell_the_run_has_its_mark_where_it_happened():
    history = scripted.continued_history()
    history.apply(SettingChanged(step=1200, field="optimizer.lr", before=6e-4, value=3e-4))
    marks = compose([("", history)], "loss", View(), 120).marks
    where = {text: [mark.x for mark in marks if mark.text == text] for text in "◆‖▸▲★"}
    held = 6 * scripted.STEPS + 238
    assert where["◆"] == [scripted.STEPS * epoch for epoch in range(1, 7)]
    assert (where["‖"], where["▸"], where["▲"], where["★"]) == ([held], [held], [1200], [6 * scripted.STEPS])
    shown = compose([("", history)], "loss", View(), 120, window=(1300, 2000)).marks
    assert {mark.text for mark in shown} == {"◆", "•"}, "what is out of sight has none"


# files


def test_the_csv_holds_what_is_drawn_to_the_last_digit():
    noise = random.Random(1)
    losses = [noise.random() for _ in range(200)]
    losses[120] = math.nan
    figure = compose([("", history_with(losses))], "loss", View(), 80, window=(100, 150))
    rows = list(csv.DictReader(io.StringIO(export.to_csv(figure))))
    assert [int(row["step"]) for row in rows] == list(range(100, 151))
    assert [repr(float(row["mean"])) for row in rows] == [repr(loss) for loss in losses[99:150]]
    assert [float(row["smoothed"]) for row in rows] == pytest.approx(smooth(losses, 0.6)[99:150], nan_ok=True)
    assert {row["curve"] for row in rows} == {"train/loss"} and rows[0]["run"] == "digits-mlp"
    assert float(rows[0]["epoch"]) == 2 and float(rows[0]["seconds"]) == 50


@pytest.mark.parametrize(
    "history", [scripted.running_history(), scripted.failed_history(), History()], ids=["running", "NaN", "empty"]
)
def test_the_svg_is_one_and_says_what_it_shows(history, tmp_path):
    figure = compose([("", history)], "loss", View(across="epoch"), 80)
    table, picture = export.write(figure, tmp_path)
    again, _ = export.write(figure, tmp_path)
    assert table.parent == tmp_path and again != table, "nothing is overwritten"
    tree = ET.parse(picture)
    texts = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert figure.heading(200) in texts[0]
    assert "NaN" not in "".join(path.get("d") for path in tree.iter("{http://www.w3.org/2000/svg}path"))


# several runs


def test_other_runs_have_a_letter_a_colour_and_their_own_values():
    first, other = history_with([1.0] * 50), history_with([2.0] * 80)
    figure = compose([("one", first), ("two", other)], "loss", View(smoothing=0.0), 100)
    legend = "".join(text for text, _ in figure.legend(200))
    assert "train one 1" in legend and "a train two 2" in legend and "2 runs" in figure.heading(200)
    assert figure.right >= 80
    assert [set(at.mean) for at in figure.columns] == [{1.0}, {2.0}]


async def test_every_run_is_named_where_one_line_has_no_room_for_all():
    chart = Chart(View(smoothing=0.0))
    first, *others = [f"20261122-14031{i}-a-name-of-a-run" for i in range(3)]

    class Stage(App):
        def compose(self):
            yield chart

    app = Stage()
    async with app.run_test(size=(80, 24)) as pilot:
        chart.run, chart.others = first, tuple((name, history_with([2.0] * 80)) for name in others)
        chart.show(history_with([1.0] * 50))
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
