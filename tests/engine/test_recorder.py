"""The recorder: a disk that takes nothing ends nothing, and what it could not take comes later, whole and in order."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events import (
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
from engine.run import Journal, Run, files
from engine.training.recorder import Recorder
from engine.training.reporter import Reporter
from tests.engine.events import started


def trained(step: int) -> Trained:
    return Trained(epoch=1, first=step, step=step, every=1, loss=(0.5,), low=(), high=(), lr=(0.1,))


def progress(step: int, phase: str = "train") -> Progress:
    return Progress(
        phase=phase, step=step, epoch=2, batch=1, batches=2, loss=1.0, lr=0.1, steps_per_second=None,
        samples_per_second=None, elapsed=7.0, left=None,
    )  # fmt: skip


def ended() -> RunEnded:
    return RunEnded(state="finished", reason="all epochs", epoch=3, step=30, seconds=9.0, best={"epoch": 2, "val/loss": 0.1})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, "n", None, {})


@pytest.fixture
def reporter(run: Run) -> Reporter:
    """A reporter whose events are recorded."""
    reporter = Reporter()
    reporter.recorder = Recorder(run, reporter.emit)  # type: ignore[attr-defined]
    reporter.on(Event, reporter.recorder.take)  # type: ignore[attr-defined]
    return reporter


@contextmanager
def full_disk(*operations: str, partly: bool = True) -> Iterator[None]:
    """Nothing can be written; of a line, half."""
    original = files.append

    def append(descriptor: int, data: bytes) -> None:
        if partly:
            original(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        for operation in operations or ("append", "write"):
            patch.setattr(files, operation, append if operation == "append" else fail)
        yield


def texts(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.level, event.text) for event in events if isinstance(event, Message)]


def journalled(run: Run) -> list[Event]:
    events, problems = Journal.read(run.journal.path)
    assert problems == []
    return events


REFUSED = ("error", "the journal can't be written (No space left on device): it waits in memory until the disk takes it")


# Journal


def test_lines_wait_for_the_disk_and_come_in_order(run: Run, reporter: Reporter) -> None:
    stated: list[Event] = []
    reporter.on(Event, stated.append)
    reporter.emit(started(), trained(1))
    with full_disk():
        reporter.emit(trained(2), progress(2), trained(3))
        assert texts(stated) == [REFUSED]
        assert len(journalled(run)) == 2
    reporter.emit(progress(3))  # the next look at the disk
    assert texts(stated) == [REFUSED, ("info", "the journal is written again; 3 lines had to wait")]
    reporter.emit(trained(4), ended())
    in_journal = sorted((event for event in stated if event.in_journal), key=lambda event: event.time)
    assert sorted(journalled(run), key=lambda event: event.time) == in_journal
    steps = [event.step for event in journalled(run) if isinstance(event, Trained)]
    assert steps == [1, 2, 3, 4]
    assert run.status.read(run.status.path)["state"] == "finished"


def test_it_is_told_again_when_it_happens_again(run: Run, reporter: Reporter) -> None:
    reporter.emit(started())
    for step in (1, 2):
        with full_disk():
            reporter.emit(trained(step), trained(step + 10))
        reporter.emit(trained(step + 20))
    levels = [level for level, _ in texts(journalled(run))]
    assert levels == ["error", "info"] * 2


def test_a_recorder_on_its_own_keeps_lines_as_well(run: Run) -> None:
    recorder = Recorder(run)
    recorder.take(started())
    with full_disk():
        recorder.take(trained(1))
    recorder.take(trained(2))
    assert [event.step for event in journalled(run) if isinstance(event, Trained)] == [1, 2]


def test_flush_brings_what_waits_or_says_why_not(run: Run, reporter: Reporter) -> None:
    recorder = reporter.recorder  # type: ignore[attr-defined]
    reporter.emit(started())
    with full_disk():
        reporter.emit(trained(1))
        with pytest.raises(OSError, match="No space left"):
            recorder.flush()
    recorder.flush()
    assert [event.step for event in journalled(run) if isinstance(event, Trained)] == [1]
    with full_disk("sync"), pytest.raises(OSError, match="No space left"):
        recorder.flush()
    reporter.emit(trained(2))
    assert texts(journalled(run)) == [REFUSED, ("info", "the journal is written again; 2 lines had to wait")]


def test_an_end_that_the_disk_does_not_take_can_be_flushed_later(run: Run, reporter: Reporter) -> None:
    recorder = reporter.recorder  # type: ignore[attr-defined]
    reporter.emit(started(), trained(1))
    with full_disk():
        reporter.emit(trained(2), ended())
        assert "the end of the run is not on the disk (No space left on device)" in texts(list(reporter.history.messages))[-1]
        with pytest.raises(OSError, match="No space left"):
            recorder.flush()
        assert run.status.read(run.status.path)["state"] == "running"
    recorder.flush()
    events = journalled(run)
    assert [event.step for event in events if isinstance(event, Trained)] == [1, 2]
    assert sum(isinstance(event, RunEnded) for event in events) == 1
    status = run.status.read(run.status.path)
    assert (status["state"], status["seconds"], status["best"]) == ("finished", 9.0, {"epoch": 2, "val/loss": 0.1})


def test_a_failed_cut_leaves_no_half_line_before_the_next(run: Run, reporter: Reporter) -> None:
    reporter.emit(started())
    with full_disk("append", "truncate"):
        reporter.emit(trained(1))
    reporter.emit(trained(2))
    assert [event.step for event in journalled(run) if isinstance(event, Trained)] == [1, 2]


def test_what_no_disk_can_take_holds_up_nothing(run: Run, reporter: Reporter) -> None:
    strange = EpochEnded(epoch=1, step=1, metrics={"val/own": object()}, lr=0.1, seconds=1.0, best=False)  # type: ignore[dict-item]
    reporter.emit(started(), strange, trained(2))
    ((level, text),) = texts(journalled(run))
    assert level == "error" and text.startswith("EpochEnded can't be written: ")
    assert isinstance(journalled(run)[-1], Trained)


def test_flush_from_another_thread_loses_and_doubles_nothing(run: Run, reporter: Reporter) -> None:
    recorder = reporter.recorder  # type: ignore[attr-defined]
    reporter.emit(started())
    over = threading.Event()
    failures: list[OSError] = []

    def flush() -> None:
        while not over.is_set():
            try:
                recorder.flush()
            except OSError as error:
                failures.append(error)

    thread = threading.Thread(target=flush)
    thread.start()
    for step in range(1, 300):
        if step % 30 == 5:
            with full_disk():
                reporter.emit(trained(step))
        else:
            reporter.emit(trained(step))
    over.set()
    thread.join()
    reporter.emit(ended())
    assert [event.step for event in journalled(run) if isinstance(event, Trained)] == list(range(1, 300))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_however_the_disk_comes_and_goes_no_line_is_lost(tmp_path_factory: pytest.TempPathFactory, takes: list[bool]) -> None:
    run = Run.create(tmp_path_factory.mktemp("runs"), "n", None, {})
    reporter = Reporter()
    reporter.on(Event, Recorder(run, reporter.emit).take)
    reporter.emit(started())
    original = files.append
    attempts = iter([*takes, *[True] * 1000])

    def append(descriptor: int, data: bytes) -> None:
        if not next(attempts):
            original(descriptor, data[:7])
            raise OSError(errno.EIO, "Input/output error")
        original(descriptor, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "append", append)
        for step in range(1, 40):
            reporter.emit(trained(step))
    assert [event.step for event in journalled(run) if isinstance(event, Trained)] == list(range(1, 40))
    levels = [level for level, _ in texts(journalled(run))]
    assert levels == ["error", "info"] * (len(levels) // 2)


LIMITED = """
import resource, sys
from engine.events import Event
from engine.training.recorder import Recorder
from engine.training.reporter import Reporter
from engine.run import Run
from tests.engine.test_recorder import ended, started, trained
run = Run(sys.argv[1])
reporter = Reporter()
reporter.on(Event, Recorder(run, reporter.emit).take)
reporter.emit(started(), *map(trained, range(1, 11)))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (run.journal.position() + 20, hard))
reporter.emit(*map(trained, range(11, 21)))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
reporter.emit(*map(trained, range(21, 31)), ended())
"""


def test_with_a_limit_that_the_system_sets(run: Run) -> None:
    subprocess.run([sys.executable, "-c", LIMITED, str(run.path)], check=True)
    assert [event.step for event in journalled(run) if isinstance(event, Trained)] == list(range(1, 31))
    assert [text for _, text in texts(journalled(run))] == [
        "the journal can't be written (File too large): it waits in memory until the disk takes it",
        "the journal is written again; 11 lines had to wait",
    ]


# Status


def status(run: Run) -> dict[str, Any]:
    return run.status.read(run.status.path)


def test_the_status_tells_of_the_last_progress(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.recorder.HEARTBEAT_SECONDS", 0.0)
    recorder = Recorder(run)
    recorder.take(started())
    assert status(run)["progress"] is None
    recorder.take(progress(5))
    assert (status(run)["state"], status(run)["step"], status(run)["progress"]["step"]) == ("running", 5, 5)
    recorder.take(progress(6, "paused"))
    assert (status(run)["state"], status(run)["progress"]["phase"]) == ("paused", "paused")


def test_a_heartbeat_comes_twice_a_second_at_most_and_a_pause_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("engine.training.recorder.time.monotonic", lambda: now)
    recorder = Recorder(run)
    recorder.take(started())
    for now, step in ((1000.2, 1), (1000.4, 2), (1000.6, 3), (1000.8, 4), (1001.2, 5)):  # noqa: B007
        recorder.take(progress(step))
    seen = status(run)["step"]
    assert seen == 5
    now = 1001.3
    recorder.take(progress(6))
    assert status(run)["step"] == 5
    recorder.take(RunPaused(step=6))
    recorder.take(progress(6, "paused"))
    assert status(run)["state"] == "paused"
    recorder.take(RunContinued(step=6))
    recorder.take(progress(7))
    assert (status(run)["state"], status(run)["step"]) == ("running", 7)


def test_a_status_that_can_not_be_written_waits_for_the_next(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.recorder.HEARTBEAT_SECONDS", 0.0)
    recorder = Recorder(run)
    recorder.take(started())
    with full_disk("write"):
        recorder.take(progress(5))
    assert status(run)["step"] == 0
    recorder.take(progress(6))
    assert status(run)["step"] == 6


def test_what_a_run_was_before_stays(run: Run) -> None:
    first = Recorder(run)
    for event in (started(), Validated(epoch=1, step=4, metrics={"val/loss": 0.4}, best=True), progress(4), ended()):
        first.take(event)
    before = status(run)
    again = Recorder(run)
    again.take(started(4))
    after = status(run)
    assert after["state"] == "running" and after["progress"] is None
    assert [after[key] for key in ("best", "started", "seconds")] == [before[key] for key in ("best", "started", "seconds")]


def test_a_best_on_the_way_is_in_the_status(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.recorder.HEARTBEAT_SECONDS", 0.0)
    recorder = Recorder(run)
    for event in (started(), Validated(epoch=1, step=4, metrics={"val/loss": 0.4}, best=True), progress(4)):
        recorder.take(event)
    assert status(run)["best"] == {"epoch": 1, "step": 4, "val/loss": 0.4}
