"""What is drawn of a run, whichever part of it is shown: against the run's own journal, never against a picture."""

from __future__ import annotations

import csv
import io
import math
import random
import xml.etree.ElementTree as ET
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import RunContinued, RunPaused, SettingChanged, Trained
from engine.history import History, Series
from tests.tui import scripted
from tests.tui.scripted import history_with
from tui.widgets import export
from tui.widgets.curves import Smoothed, View, decimate, inliers, smooth
from tui.widgets.figure import compose, exact, recent, round_up
from tui.widgets.traces import Across, Traces

LOSSES = st.lists(st.floats(1e-3, 1e3) | st.just(math.nan), min_size=1, max_size=200)


# no extreme is lost, wherever one looks


@settings(max_examples=150, deadline=None)
@given(LOSSES, st.integers(1, 90), st.floats(0, 1), st.floats(0, 1))
def test_every_part_shows_the_extremes_of_just_that_part(losses, count, one, other):
    steps = range(1, len(losses) + 1)
    left, right = sorted((one * len(losses), other * len(losses) + 1))
    at = decimate(steps, losses, losses, losses, left, right, count)
    inside = [loss for step, loss in zip(steps, losses, strict=True) if left <= step <= right]
    finite = [loss for loss in inside if math.isfinite(loss)]
    assert len(at.x) <= count and at.x == sorted(at.x)
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


@pytest.mark.parametrize("across", ["step", "epoch", "time"])
def test_what_is_kept_of_a_growing_run_is_as_if_computed_anew(across):
    noise, kept, history, view = random.Random(0), Traces(), History(), View(across=across)
    events = [scripted.started(4), *(event for epoch in (1, 2, 3, 2, 3, 4) for event in scripted.epoch_events(epoch, noise))]
    for event in events:  # two epochs are taken once more, after a rewind
        history.apply(event)
        assert repr(kept.of([("", history)], "loss", view)) == repr(Traces().of([("", history)], "loss", view))


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


def test_a_point_of_many_steps_says_so():
    history = scripted.running_history()
    figure = compose([("", history)], "loss", View(), 120, cursor=1234)
    steps, means, lows, highs = history.series["train/loss"].columns()
    at = bisect_left(steps, 1234)
    said = "".join(text for row in figure.reading(200, 1) for text, _ in row)
    covered = steps[at] - steps[at - 1]
    assert f"train {exact(means[at])} mean of {covered} steps, {exact(lows[at])} to {exact(highs[at])}" in said
    assert f"val {exact(history.series['val/loss'].columns()[1][2])} at 1,170" in said


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
