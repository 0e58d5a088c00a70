"""History: bounded, and honest about spikes and NaN whatever it merges."""

from __future__ import annotations

import math
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.events import (
    CheckpointWritten,
    EpochEnded,
    Event,
    Message,
    Progress,
    RunContinued,
    RunEnded,
    RunPaused,
    Trained,
    Validated,
)
from engine.history import History, Series
from tests.engine.events import started

# Series

values = st.floats(-1e6, 1e6)


@st.composite
def points(draw: st.DrawFn, value: st.SearchStrategy[float] = values) -> list[tuple[int, float, float, float]]:
    """(step, mean, low, high) of a curve whose points cover one step or several."""
    step, result = 0, []
    for _ in range(draw(st.integers(0, 60))):
        step += draw(st.integers(1, 5))
        low, mean, high = sorted(draw(st.tuples(value, value, value)), key=lambda x: (x == x, x))
        result.append((step, mean, low, high))
    return result


def filled(series: Series, given_points: list[tuple[int, float, float, float]]) -> Series:
    for point in given_points:
        series.append(*point)
    return series


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or a == pytest.approx(b, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("capacity", [2, 3, 8, 15])
@given(given_points=points() | points(values | st.just(math.nan)))
def test_merged_points_keep_the_extremes_the_weighted_mean_and_nan(
    capacity: int, given_points: list[tuple[int, float, float, float]]
) -> None:
    merged = list(filled(Series(capacity), given_points))
    assert len(merged) <= capacity
    assert (not given_points) or merged[-1][0] == given_points[-1][0]
    covered = 0
    for start, (step, mean, low, high) in zip([0, *(point[0] for point in merged)], merged, strict=False):
        inside = [point for point in given_points if start < point[0] <= step]
        covered += len(inside)
        weights = [b - a for a, b in pairwise([start, *(point[0] for point in inside)])]
        assert same(mean, sum(point[1] * weight for point, weight in zip(inside, weights, strict=True)) / (step - start))
        lows, highs = [point[2] for point in inside], [point[3] for point in inside]
        assert math.isnan(low) if any(map(math.isnan, lows)) else low == min(lows)
        assert math.isnan(high) if any(map(math.isnan, highs)) else high == max(highs)
    assert covered == len(given_points)


@given(points(), st.integers(0, 59), st.sampled_from([1e9, -1e9, math.inf, -math.inf, math.nan]))
def test_a_chart_never_hides_a_spike(given_points: list[tuple[int, float, float, float]], place: int, spike: float) -> None:
    place = min(place, len(given_points))
    at = given_points[place - 1][0] + 1 if place else 1
    later = [(step + 1, *rest) for step, *rest in given_points[place:]]
    series = Series(4)
    for step, mean, *extremes in [*given_points[:place], (at, spike), *later]:
        series.append(step, mean, *extremes)
    _, means, lows, highs = series.columns()
    if math.isnan(spike):
        assert any(map(math.isnan, means)) and any(map(math.isnan, lows)) and any(map(math.isnan, highs))
    else:
        assert max(highs) == spike if spike > 0 else min(lows) == spike


def test_two_measurements_at_one_step_are_both_seen() -> None:
    series = filled(Series(2), [(5, 1.0, 1.0, 1.0), (5, 3.0, 3.0, 3.0), (9, 2.0, 2.0, 2.0)])
    step, mean, low, high = next(iter(series))
    assert (step, low, high) == (5, 1.0, 3.0) and 1.0 <= mean <= 3.0
    first = filled(Series(2), [(0, 1.0, 1.0, 1.0), (0, 3.0, 3.0, 3.0), (1, 2.0, 2.0, 2.0)])
    assert next(iter(first)) == (0, 2.0, 1.0, 3.0)


def test_an_infinite_measurement_beside_another_at_its_step_is_no_nan() -> None:
    series = filled(Series(2), [(5, 1.0, 1.0, 1.0), (5, math.inf, math.inf, math.inf), (9, 2.0, 2.0, 2.0)])
    _, mean, low, high = next(iter(series))
    assert (low, high) == (1.0, math.inf) and not math.isnan(mean)


def test_columns_are_copies() -> None:
    series = filled(Series(), [(1, 1.0, 1.0, 1.0)])
    series.columns()[0].append(99)
    assert list(series) == [(1, 1.0, 1.0, 1.0)] and len(series) == 1


def test_a_reader_in_another_thread_always_sees_whole_points() -> None:
    series = Series(16)
    done = threading.Event()

    def write() -> None:
        for step in range(1, 30_000):
            series.append(step, float(step))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        seen = list(series)
        assert [point[0] for point in seen] == sorted({point[0] for point in seen})
        assert all(low <= mean <= high == step for step, mean, low, high in seen)
    writer.join()
    assert series.columns()[0][-1] == 29_999


# History


def progress(phase: str) -> Progress:
    return Progress(
        phase=phase, step=1, epoch=1, batch=1, batches=2, loss=1.0, lr=0.1, steps_per_second=None, samples_per_second=None,
        elapsed=1.0, left=None,
    )  # fmt: skip


def ended(state: str) -> RunEnded:
    return RunEnded(state=state, reason="r", epoch=1, step=1, seconds=1.0, best={})


def epoch_ended(epoch: int, best: bool = False, **metrics: float) -> EpochEnded:
    named = {key.replace("_", "/"): value for key, value in metrics.items()}
    return EpochEnded(epoch=epoch, step=10 * epoch, metrics=named, lr=0.1, seconds=1.0, best=best)


def applied(*events: Event) -> History:
    history = History()
    for event in events:
        history.apply(event)
    return history


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "starting"),
        ([started()], "starting"),
        ([started(), progress("train")], "running"),
        ([started(), progress("validate")], "validating"),
        ([started(), progress("save")], "saving"),
        ([started(), progress("train"), RunPaused(step=1)], "paused"),
        ([started(), progress("train"), RunPaused(step=1), progress("paused")], "paused"),
        ([started(), progress("train"), RunPaused(step=1), RunContinued(step=1)], "running"),
        ([started(), progress("train"), RunPaused(step=1), ended("stopped")], "stopped"),
        ([started(), progress("train"), ended("finished")], "finished"),
        ([started(), progress("train"), ended("failed")], "failed"),
        ([started(), progress("train"), ended("finished"), started(1), progress("train")], "running"),
        ([started(), RunPaused(step=1), started(1), progress("train")], "running"),
    ],
)
def test_state(events: list[Event], state: str) -> None:
    history = applied(*events)
    assert history.state == state
    assert history.version == len(events)


def test_events_are_where_a_reader_looks_for_them() -> None:
    written = CheckpointWritten(step=10, epoch=1, path="p", best=True, seconds=0.1)
    message = Message(text="t")
    rows = [epoch_ended(1, best=True), epoch_ended(2, best=True), epoch_ended(3)]
    history = applied(started(), *rows, written, message, progress("train"))
    assert history.epochs == rows and history.checkpoints == [written] and history.messages == [message]
    assert history.best is rows[1] and history.started is not None and history.progress is not None
    assert applied(epoch_ended(1)).best is None


def test_curves_of_steps() -> None:
    history = applied(
        Trained(epoch=1, first=1, step=2, every=1, loss=(4.0, 3.0), low=(), high=(), lr=(0.1, 0.2)),
        Trained(
            epoch=1, first=3, step=9, every=3, loss=(2.0, 1.0, 0.5), low=(1.0, 0.0, 0.5), high=(3.0, 9.0, 0.5), lr=(0.3,) * 3
        ),
    )
    assert list(history.curve("train/loss")) == [
        (1, 4.0, 4.0, 4.0), (2, 3.0, 3.0, 3.0), (5, 2.0, 1.0, 3.0), (8, 1.0, 0.0, 9.0), (9, 0.5, 0.5, 0.5),
    ]  # fmt: skip
    assert [(step, rate) for step, rate, *_ in history.curve("lr")] == [(1, 0.1), (2, 0.2), (5, 0.3), (8, 0.3), (9, 0.3)]


def test_curves_of_validations() -> None:
    history = applied(
        epoch_ended(1, train_loss=1.0, val_loss=2.0, val_accuracy=0.5),
        Validated(epoch=2, step=15, metrics={"val/loss": math.nan}),
        epoch_ended(2, train_loss=0.5, val_loss=1.0),
    )
    assert history.series.keys() == {"val/loss", "val/accuracy"}  # the training loss has its curve from the steps
    steps, means, _, _ = history.curve("val/loss").columns()
    assert steps == [10, 15, 20] and means[::2] == [2.0, 1.0] and math.isnan(means[1])


def test_asking_for_a_curve_that_is_not_there_gives_an_empty_one() -> None:
    history = History()
    assert len(history.curve("val/loss")) == 0
    assert history.curve("val/loss") is history.curve("val/loss")


def test_a_long_curve_is_bounded_and_equally_fine_everywhere() -> None:
    history = History()
    for step in range(1, 30_001):
        loss = math.nan if step == 777 else 1.0
        history.apply(Trained(epoch=1, first=step, step=step, every=1, loss=(loss,), low=(), high=(), lr=(0.1,)))
    steps, means, _, _ = history.curve("train/loss").columns()
    capacity = history.curve("train/loss").capacity
    assert capacity / 2 <= len(steps) <= capacity and len(history.curve("lr")) == len(steps)
    assert max(after - before for before, after in pairwise([0, *steps])) <= 2 * 30_000 / (capacity / 2)
    assert sum(map(math.isnan, means)) == 1


def test_the_best_may_lie_in_the_middle_of_an_epoch() -> None:
    history = History()
    history.apply(EpochEnded(epoch=1, step=10, metrics={"val/loss": 0.5}, lr=0.1, seconds=1.0, best=True))
    between = Validated(epoch=2, step=15, metrics={"val/loss": 0.4}, best=True)
    history.apply(between)
    history.apply(Validated(epoch=2, step=16, metrics={"val/loss": 0.3}))  # asked for by a person
    history.apply(EpochEnded(epoch=2, step=20, metrics={"val/loss": 0.6}, lr=0.1, seconds=1.0, best=False))
    assert history.best is between
