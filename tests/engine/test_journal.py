"""The journal: every line whole, readable whatever happened to it, and no step twice or missing after a resume."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
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
    RunStarted,
    Trained,
    Validated,
)
from engine.run import Journal, files
from tests.engine.events import started


def trained(first: int, last: int, every: int = 1) -> Trained:
    points = math.ceil((last - first + 1) / every)
    values = tuple(first + k + 0.5 for k in range(points))
    extremes = values if every > 1 else ()
    return Trained(epoch=1, first=first, step=last, every=every, loss=values, low=extremes, high=extremes, lr=values)


def saved(step: int, epoch: int = 0) -> CheckpointWritten:
    return CheckpointWritten(step=step, epoch=epoch, path="p", best=False, seconds=0.1)


def epoch_ended(epoch: int, step: int) -> EpochEnded:
    return EpochEnded(epoch=epoch, step=step, metrics={"train/loss": 1.0}, lr=0.1, seconds=1.0, best=False)


def ended(step: int) -> RunEnded:
    return RunEnded(state="finished", reason="all epochs", epoch=1, step=step, seconds=1.0, best={})


def written(path: Path, *events: Event) -> Journal:
    journal = Journal(path)
    for event in events:
        journal.append(event)
    return journal


def read(path: Path) -> list[Event]:
    events, problems = Journal.read(path)
    assert problems == []
    return events


# Writing and reading


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    progress = Progress(
        phase="train", step=1, epoch=1, batch=1, batches=2, loss=1.0, lr=0.1, steps_per_second=None,
        samples_per_second=None, elapsed=1.0, left=None,
    )  # fmt: skip
    events = [started(), trained(1, 5), Message(text="größer\n\u2028 \udc80"), epoch_ended(1, 5), ended(5)]
    journal = written(path, *events[:3], progress, *events[3:])
    assert read(path) == events  # before it is closed: each line is out at once
    assert journal.position() == path.stat().st_size
    journal.close()
    assert read(path) == events
    assert path.read_bytes().count(b"\n") == len(events)
    assert "größer".encode() in path.read_bytes()


def test_a_journal_is_open_no_longer_than_whoever_writes_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def is_open() -> bool:
        return str(path.resolve()) in {file.path for file in psutil.Process().open_files()}

    for end in (Journal.close, lambda journal: None):
        journal = Journal(path)
        journal.append(started())
        assert is_open()
        end(journal)
        del journal
        assert not is_open()


def test_every_line_is_strict_json(tmp_path: Path) -> None:
    event = Trained(
        epoch=1, first=1, step=3, every=1, loss=(math.nan, math.inf, -math.inf), low=(), high=(), lr=(0.1, 0.2, 1e-300)
    )
    written(tmp_path / "j", event).close()
    json.loads((tmp_path / "j").read_bytes(), parse_constant=pytest.fail)
    (back,) = read(tmp_path / "j")
    assert isinstance(back, Trained) and math.isnan(back.loss[0]) and back.loss[1:] == (math.inf, -math.inf)
    assert back.lr == event.lr


def test_a_missing_journal_reads_as_empty(tmp_path: Path) -> None:
    assert Journal.read(tmp_path / "none") == ([], [])
    journal = Journal(tmp_path / "none")
    assert journal.position() == 0
    journal.sync()
    journal.close()
    assert not (tmp_path / "none").exists()


def test_a_torn_last_line_is_ignored_and_cut_off_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "j"
    events = [started(), trained(1, 5), saved(5)]
    written(path, *events).close()
    whole = path.read_bytes()
    line = whole.splitlines(keepends=True)[-1]
    start = len(whole) - len(line)
    for end in (start, start + 1, len(whole) - 9, len(whole) - 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert read(path) == events[:2]
        assert Journal(path).position() == start
        written(path, saved(6)).close()
        *before, last = read(path)
        assert before == events[:2] and isinstance(last, CheckpointWritten) and last.step == 6


def test_zeros_at_the_end_after_a_power_failure_are_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, started()).close()
    path.write_bytes(path.read_bytes() + b"\0" * 200_000)
    written(path, saved(5)).close()
    assert [type(event) for event in read(path)] == [RunStarted, CheckpointWritten]


def test_rubbish_is_reported_by_line_and_the_rest_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    rubbish = [
        b"", b"nonsense", b"[1]", b'"text"', b"\xff\xfe", b'{"event": "unheard_of"}', b'{"event": "run_paused"}',
        b'{"event": "run_paused", "step": NaN}', b"[" * 100_000, b"{" + b"\0" * 9, b'{"event": "run_paused", "step": "4"}',
        b'{"event": "run_paused", "step": true}', b'{"event": "run_paused", "step": 1' + b"0" * 400 + b"}",
        b'{"event": "run_paused", "step": 4, "time": "\x1b[2J"}', b'{"event": "message", "text": ["t"]}',
        b'{"event": "trained", "epoch": 1, "first": 1, "step": 2, "every": 1, "loss": [1], "low": [], "high": [], "lr": []}',
        b'{"event": "trained", "epoch": 1, "first": 1, "step": 2, "every": 0, "loss": [], "low": [], "high": [], "lr": []}',
        b'{"event": "validated", "epoch": 1, "step": 2, "metrics": {"val/loss": "1"}}',
    ]  # fmt: skip
    good = [started(), trained(1, 3)]
    written(path, *good).close()
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], *rubbish, lines[1]]) + b"\n")
    events, problems = Journal.read(path)
    assert events == good
    assert [problem.partition(":")[0] for problem in problems] == [
        f"journal.jsonl, line {number}" for number in range(2, 2 + len(rubbish))
    ]
    assert all(problem.isprintable() and len(problem) < 300 for problem in problems)


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    journal = written(path, started())
    original = files.append

    def half(descriptor: int, data: bytes) -> None:
        original(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(files, "append", half)
        with pytest.raises(OSError, match="No space"):
            journal.append(trained(1, 3))
    assert len(read(path)) == 1
    journal.append(saved(3))
    journal.close()
    assert [type(event) for event in read(path)] == [RunStarted, CheckpointWritten]


# Going on from a checkpoint


def kept(tmp_path: Path, events: list[Event], step: int, epochs: int) -> list[Event]:
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    journal = written(path, *events)
    journal.truncate_after(step, epochs)
    journal.append(started(step, epochs))  # it can be appended to at once
    journal.close()
    result = read(path)
    assert isinstance(result[-1], RunStarted)
    assert list(tmp_path.iterdir()) == [path]
    return result[:-1]


def test_a_finished_run_goes_on(tmp_path: Path) -> None:
    events = [started(), trained(1, 10), epoch_ended(1, 10), saved(10, 1), ended(10)]
    assert kept(tmp_path, events, 10, 1) == events[:-1]


def test_what_came_after_the_checkpoint_goes(tmp_path: Path) -> None:
    sound = [started(), Message(text="a"), trained(1, 10), epoch_ended(1, 10), Message(text="b"), saved(10, 1)]
    later = [
        Message(text="c"), trained(11, 14), Validated(epoch=2, step=14, metrics={}), RunPaused(step=14),
        RunContinued(step=14), trained(15, 20), epoch_ended(2, 20), Message(text="d"), saved(20, 2), ended(20),
    ]  # fmt: skip
    assert kept(tmp_path, [*sound, *later], 10, 1) == sound
    assert kept(tmp_path, [*sound, *later], 20, 2) == [*sound, *later[:-1]]


def test_starts_stay(tmp_path: Path) -> None:
    events = [started(), trained(1, 10), saved(10), started(10), trained(11, 20), saved(20), started(20), trained(21, 30)]
    assert kept(tmp_path, events, 10, 0) == [*events[:4], events[6]]


def test_no_checkpoint_at_all_starts_over(tmp_path: Path) -> None:
    events = [started(), Message(text="a"), trained(1, 10), epoch_ended(1, 10), RunPaused(step=10)]
    assert kept(tmp_path, events, 0, 0) == [events[0], events[1]]


def test_points_are_cut_at_the_checkpoint(tmp_path: Path) -> None:
    (_, short) = kept(tmp_path, [started(), trained(1, 22, every=5)], 13, 0)
    assert isinstance(short, Trained)
    assert (short.first, short.step, short.every) == (1, 10, 5)
    assert short.loss == short.lr == short.low == short.high == (1.5, 2.5)
    assert kept(tmp_path, [started(), trained(1, 22, every=5)], 22, 0)[1].step == 22  # type: ignore[attr-defined]
    assert len(kept(tmp_path, [started(), trained(1, 22, every=5)], 4, 0)) == 1
    normed = dataclasses.replace(trained(1, 3), norm=(1.0, 2.0, 3.0))
    assert kept(tmp_path, [started(), normed], 2, 0)[1].norm == (1.0, 2.0)  # type: ignore[attr-defined]


def test_a_checkpoint_from_before_the_epochs_validation(tmp_path: Path) -> None:
    events = [started(), trained(1, 10), saved(10, 0), epoch_ended(1, 10)]
    assert kept(tmp_path, events, 10, 0) == events[:3]  # the validation comes again
    assert kept(tmp_path, events, 10, 1) == events  # killed between writing the second checkpoint and its line


def test_a_best_checkpoint_that_was_written_late(tmp_path: Path) -> None:
    events = [started(), trained(1, 10), epoch_ended(1, 10), trained(11, 15), Message(text="a"), saved(10, 1), saved(15, 1)]
    assert kept(tmp_path, events, 15, 1) == events
    assert kept(tmp_path, events, 10, 1) == [*events[:3], events[5]]


def test_lines_that_cannot_be_read_stay_before_the_checkpoint_only(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, started(), trained(1, 10), saved(10), trained(11, 20), saved(20)).close()
    lines = path.read_bytes().splitlines()
    lines.insert(1, b"rubbish")
    lines.insert(5, b"later rubbish")
    path.write_bytes(b"\n".join(lines) + b"\ntorn")
    Journal(path).truncate_after(10, 0)
    assert path.read_bytes().splitlines() == lines[:4]


@st.composite
def journals(draw: st.DrawFn) -> tuple[list[Event], list[tuple[int, int]]]:
    """The journal of a run of a few epochs, and its checkpoints as (step, epochs ended)."""
    events: list[Event] = [started()]
    checkpoints = [(0, 0)]
    every = draw(st.integers(1, 4))
    step = 0
    for epoch in range(1, draw(st.integers(1, 3)) + 1):
        last = step + draw(st.integers(1, 12))
        while step < last:
            until = draw(st.integers(step + 1, last))
            events.append(trained(step + 1, until, every))
            step = until
            for happened in draw(st.lists(st.sampled_from(["message", "pause", "validate", "save"]), max_size=2)):
                match happened:
                    case "message":
                        events.append(Message(text=str(step)))
                    case "pause":
                        events += [RunPaused(step=step), RunContinued(step=step)]
                    case "validate":
                        events.append(Validated(epoch=epoch, step=step, metrics={}))
                    case "save":
                        events.append(saved(step, epoch - 1))
                        checkpoints.append((step, epoch - 1))
        events.append(epoch_ended(epoch, step))
        if draw(st.booleans()):
            events.append(saved(step, epoch))
            checkpoints.append((step, epoch))
    if draw(st.booleans()):
        events.append(ended(step))
    return events, checkpoints


def expanded(events: list[Event]) -> list[int]:
    return [step for event in events if isinstance(event, Trained) for step in range(event.first, event.step + 1)]


@settings(deadline=None, max_examples=50)
@given(journals(), st.data())
def test_f9_a_resumed_runs_journal_has_no_step_twice_and_none_missing(
    tmp_path_factory: pytest.TempPathFactory, journal: tuple[list[Event], list[tuple[int, int]]], data: st.DataObject
) -> None:
    events, checkpoints = journal
    step, epochs = data.draw(st.sampled_from(checkpoints))
    place = max(
        (i for i, e in enumerate(events) if isinstance(e, CheckpointWritten) and (e.step, e.epoch) == (step, epochs)), default=0
    )
    killed = data.draw(st.integers(place, len(events)))  # at any time after that checkpoint was on the disk
    before = events[:killed]
    result = kept(tmp_path_factory.mktemp("journal"), before, step, epochs)
    assert expanded(result) == list(range(1, step + 1))
    assert [event.epoch for event in result if isinstance(event, EpochEnded)] == list(range(1, epochs + 1))
    assert [event for event in result if not isinstance(event, RunStarted)] == [
        event for event in before if event in result and not isinstance(event, RunStarted)
    ]
    again: list[Any] = kept(tmp_path_factory.mktemp("again"), result, step, epochs)
    assert again == result
