"""Run.resume: the run of a loop that is not ours goes on, as if it had never been left."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from engine import EpochEnded, Run, RunError, Trainer
from engine.run import Journal, load_history

STEPS, EACH = 24, 6  # and of an epoch


@pytest.fixture(autouse=True)
def _nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPOCHAL_CONFIG", str(tmp_path / "settings"))


def loop(run: Run, after: int, until: int, first: int = 1) -> None:
    """A loop of one's own that counts its epochs from `first`."""
    with run:
        for step in range(after + 1, until + 1):
            epoch = (step - 1) // EACH
            run.log(step, {"train/loss": float(STEPS - step), "lr": 0.1}, epoch=epoch + first)
            if step % EACH == 0:
                run.log(step, {"val/loss": abs(step - 13) / 10}, epoch=epoch + first)


def told(run: Run) -> tuple[Any, ...]:
    """All that a reader sees of it, without its clock."""
    history = load_history(run)
    rows = [(row.epoch, row.step, row.best, row.metrics) for row in history.epochs]
    curves = {name: [point[:2] for point in series] for name, series in history.series.items() if name != "lr"}
    assert history.ended is not None and history.best is not None
    return rows, curves, history.best.step, history.ended.epoch, history.ended.step, history.ended.best


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("left", "after"), [(12, None), (9, None), (12, 6), (20, 13), (24, 0), (9, 9), (3, 2)])
def test_it_is_the_run_that_was_never_left(tmp_path: Path, left: int, after: int | None, first: int) -> None:
    whole = Run.create(tmp_path / "whole", "mine")
    loop(whole, 0, STEPS, first)
    run = Run.create(tmp_path / "runs", "mine", config={"lr": 0.1}, epochs=4)
    loop(run, 0, left, first)
    again = Run.resume(run.path, after)
    loop(again, left if after is None else after, STEPS, first)
    assert told(run) == told(whole)
    (summary,) = Run.list(tmp_path / "runs")
    assert (summary.state, summary.step, summary.epoch, summary.epochs) == ("finished", STEPS, 4, 4)
    assert summary.differs == {"lr": 0.1} and summary.best["val/loss"] == 0.1


def test_a_row_is_of_the_whole_epoch_where_it_had_ended(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "mine")
    loop(run, 0, 12)
    loop(Run.resume(run.path), 12, 18)
    events, problems = Journal.read(run.journal.path)
    rows = [event for event in events if isinstance(event, EpochEnded)]
    assert not problems and [row.epoch for row in rows] == [1, 2, 3]
    assert rows[1].metrics["train/loss"] == sum(STEPS - step for step in range(7, 13)) / 6


def test_the_best_of_what_is_dropped_is_not_the_best(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "mine", monitor="loss")
    with run:
        for step, value in ((1, 3.0), (2, 2.0), (3, 0.5)):
            run.log(step, {"loss": value})
    with Run.resume("mine", 2, root=tmp_path) as again:
        again.log(3, {"loss": 2.5})
    history = load_history(run)
    assert history.best is not None and (history.best.step, history.best.metrics) == (2, {"train/loss": 2.0})
    assert Run.list(tmp_path)[0].best["step"] == 2


def test_time_goes_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "mine")
    loop(run, 0, 6)
    seconds = [Run.list(tmp_path)[0].seconds]
    for after in (6, 7):
        loop(Run.resume(run.path), after, after + 1)
        seconds.append(Run.list(tmp_path)[0].seconds)
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_a_run_without_epochs(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "mine", steps=10)
    for after in (0, 4, 7):
        with run if after == 0 else Run.resume(run.path, after) as going:
            for step in range(after + 1, 10):
                going.log(step, {"train/loss": float(step)})
    assert [point[0] for point in load_history(run).series["train/loss"]] == list(range(1, 10))
    started = load_history(run).started
    assert started is not None and (started.step, started.total_steps) == (7, 10)


def test_what_can_not_be_gone_on_with_is_one_sentence(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "mine")
    with pytest.raises(RunError, match="was not logged by a loop of its own"):
        Run.resume(run.path)
    with run:
        run.log(3, {"train/loss": 1.0})
        with pytest.raises(RunError, match="is being trained by this process"), Run.resume(run.path):
            pass
    for step in (4, -1, 1.5, "2"):
        with pytest.raises(RunError, match=f"step is {step!r}; .* was logged up to step 3, and goes on after one of 0 to 3"):
            Run.resume(run.path, step)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="there is no run 'other'"):
        Run.resume("other", root=tmp_path)
    with pytest.raises(RunError, match="has a recipe: Trainer.resume"):
        Run.resume(Run.create(tmp_path, "ours", "").path)
    with pytest.raises(RunError, match="has no recipe"):
        Trainer.resume(run.path)


def test_event_files_hold_no_step_twice(tmp_path: Path) -> None:
    from engine.recipe import Track

    run = Run.create(tmp_path, "mine", track=Track(tensorboard=True))
    loop(run, 0, 12)
    loop(Run.resume(run.path, 9, track=Track(tensorboard=True)), 9, 14)
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard")
    told = accumulators.EventAccumulator(str(next(run.path.glob("tensorboard*"))), size_guidance={"scalars": 0})
    told.Reload()
    assert [scalar.step for scalar in told.Scalars("train/loss")] == list(range(1, 15))
    assert not any(math.isnan(scalar.value) for scalar in told.Scalars("train/loss"))
