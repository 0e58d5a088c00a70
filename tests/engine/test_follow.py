"""Following a run of another process: the same history as its own, whatever happens to the process and to the files."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.events import (
    CheckpointWritten,
    EpochEnded,
    Event,
    Progress,
    RunContinued,
    RunEnded,
    RunPaused,
    Trained,
    to_dict,
)
from engine.history import History
from engine.run import Run, files, load_history, strict_json
from engine.run.follow import LONGEST, Follower
from tests.engine.events import started


def trained(first: int, last: int) -> Trained:
    values = tuple(float(step) for step in range(first, last + 1))
    return Trained(epoch=1, first=first, step=last, every=1, loss=values, low=(), high=(), lr=values)


def progress(step: int, phase: str = "train") -> Progress:
    return Progress(
        phase=phase, step=step, epoch=1, batch=1, batches=2, loss=1.0, lr=0.1, steps_per_second=None,
        samples_per_second=None, elapsed=1.0, left=None,
    )  # fmt: skip


def epoch_ended(epoch: int, step: int) -> EpochEnded:
    return EpochEnded(epoch=epoch, step=step, metrics={"val/loss": 1.0 / step}, lr=0.1, seconds=1.0, best=True)


def saved(step: int, epoch: int = 1) -> CheckpointWritten:
    return CheckpointWritten(step=step, epoch=epoch, path="p", best=False, seconds=0.1)


def ended(state: str = "finished", step: int = 10) -> RunEnded:
    return RunEnded(state=state, reason="all epochs", epoch=1, step=step, seconds=1.0, best={})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("EPOCHAL_RUNS", str(tmp_path))
    made = Run.create(tmp_path, "n", "", {})
    made.status.write("running", step=4)
    return made


def write(run: Run, *events: Event) -> None:
    for event in events:
        run.journal.append(event)


def change(run: Run, **values: Any) -> None:
    """Make the status tell of another process or host than this one."""
    path = run.status.path
    files.write_atomically(path, strict_json.encode({**strict_json.decode(path.read_bytes()), **values}), durable=False)


def gone() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def same(a: History, b: History) -> bool:
    """Whether both tell the same, the progress aside, which is in no journal."""
    told = [(h.started, h.ended, h.paused, h.best, h.epochs, h.checkpoints, h.messages, h.settings) for h in (a, b)]
    curves = [{name: list(series) for name, series in h.series.items()} for h in (a, b)]
    return told[0] == told[1] and curves[0] == curves[1]


# While it is at work


def test_what_the_process_states_is_seen_as_it_comes(run: Run) -> None:
    follower = Follower(run)
    history = follower.history
    assert history.state == "starting" and not follower.alive
    assert follower.poll() and follower.alive
    assert not follower.poll()
    write(run, started(), trained(1, 5))
    at = progress(5)
    run.status.write("running", step=5, progress=at)
    assert follower.poll() and history.state == "running" and history.progress == at
    write(run, RunPaused(step=5))
    run.status.write("paused", step=5, progress=progress(5, "paused"))
    assert follower.poll() and history.state == "paused" and follower.alive
    write(run, RunContinued(step=5), trained(6, 10), epoch_ended(1, 10))
    run.status.write("running", step=10, progress=progress(10, "save"))
    assert follower.poll() and history.state == "saving"
    write(run, saved(10), ended())
    run.status.write("finished", step=10, progress=progress(10))
    assert follower.poll() and history.state == "finished" and not follower.alive
    assert follower.history is history and same(history, load_history(run))
    assert not follower.poll()


def test_a_follower_that_comes_late_sees_all_of_it(run: Run) -> None:
    write(run, started(), *(trained(step, step) for step in range(1, 500)), epoch_ended(1, 499), ended())
    run.status.write("finished")
    follower = Follower(run)
    follower.poll()
    assert same(follower.history, load_history(run)) and len(follower.history.curve("train/loss")) == 499


def test_nothing_is_read_where_nothing_is_new(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(run, started(), trained(1, 5), ended())
    run.status.write("finished")
    follower = Follower(run)
    follower.poll()
    version = follower.history.version
    monkeypatch.setattr(Path, "read_bytes", lambda *_: pytest.fail("read the status"))
    monkeypatch.setattr("engine.run.follow.parse_line", lambda *_: pytest.fail("read the journal"))
    assert not follower.poll() and follower.history.version == version


def test_only_what_is_new_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.run import follow

    lines: list[bytes] = []
    original = follow.parse_line
    monkeypatch.setattr(follow, "parse_line", lambda line: lines.append(line) or original(line))
    follower = Follower(run)
    write(run, started(), trained(1, 5))
    follower.poll()
    write(run, trained(6, 7))
    follower.poll()
    assert len(lines) == 3


def test_a_line_under_way_is_waited_for(run: Run) -> None:
    write(run, started(), trained(1, 5))
    follower = Follower(run)
    follower.poll()
    path = run.journal.path
    with path.open("ab", buffering=0) as file:
        for byte in json.dumps(to_dict(trained(6, 9))).encode():
            file.write(bytes([byte]))
            assert not follower.poll()
        file.write(b"\n")
    assert follower.poll() and len(follower.history.curve("train/loss")) == 9 and follower.history.messages == []


# Resumed, rewritten, gone


@pytest.mark.parametrize("state", ["stopped", None])
def test_a_resumed_run_is_started_over(run: Run, state: str | None) -> None:
    write(run, started(), trained(1, 10), saved(10), trained(11, 20))
    if state is not None:
        write(run, ended(state, 20))
        run.status.write(state, step=20)
    follower = Follower(run)
    follower.poll()
    before = follower.history
    run.journal.truncate_after(10, 0)
    write(run, started(10), trained(11, 12))
    run.status.write("running", step=12)
    follower.poll()
    assert follower.history is not before and same(follower.history, load_history(run)) and follower.alive
    assert len(follower.history.curve("train/loss")) == 12
    write(run, *(trained(step, step) for step in range(13, 40)))  # longer than ever
    follower.poll()
    assert same(follower.history, load_history(run))


def test_a_rewritten_journal_that_has_grown_longer_meanwhile_is_noticed(run: Run) -> None:
    write(run, started(), trained(1, 10), saved(10), trained(11, 20))
    follower = Follower(run)
    follower.poll()
    run.journal.truncate_after(10, 0)
    write(run, started(10), *(trained(step, step) for step in range(11, 60)))
    follower.poll()
    assert same(follower.history, load_history(run)) and len(follower.history.curve("train/loss")) == 59


def test_files_that_are_missing_raise_nothing(run: Run) -> None:
    follower = Follower(run)
    write(run, started(), trained(1, 5))
    follower.poll()
    run.journal.path.unlink()
    run.status.path.unlink()
    follower.poll()
    assert not follower.alive and len(follower.history.curve("train/loss")) == 5
    (message,) = follower.history.messages
    assert "status.json is missing" in message.text
    assert not follower.poll()
    nothing = Follower(Run(run.path / "nowhere"))
    nothing.poll()
    assert not nothing.alive and nothing.history.state == "starting"


# The process is gone

TRAINS = """
import sys
from engine.run import Run
from engine.training.recorder import Recorder
from tests.engine.test_follow import epoch_ended, progress, saved, started, trained
run = Run(sys.argv[1])
recorder = Recorder(run)
first = int(sys.argv[2])
for event in (started(first), trained(first + 1, first + 10), epoch_ended(1, first + 10), saved(first + 10),
              trained(first + 11, first + 15), progress(first + 15)):
    recorder.take(event)
run.status.write("running", step=first + 15, epoch=1, progress=progress(first + 15))
print("running", flush=True)
sys.stdin.read()
"""


def training(run: Run, first: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TRAINS, str(run.path), str(first)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    return process


def test_a_killed_process_is_noticed_and_its_resume_too(run: Run) -> None:
    follower = Follower(run)
    with training(run) as process:
        follower.poll()
        assert follower.alive and follower.history.state == "running"
        process.kill()
    assert follower.poll() and not follower.alive
    end = follower.history.ended
    assert end is not None and (end.state, end.step, end.epoch) == ("died", 15, 1)
    assert end.reason == f"its process is gone; epochal resume {run.name} goes on from step 10"
    assert follower.history.state == "died" and not follower.poll()
    run.journal.truncate_after(10, 1)
    with training(run, first=10) as process:
        follower.poll()
        assert follower.alive and follower.history.state == "running" and same(follower.history, load_history(run))
        process.kill()


def test_the_sentence_says_what_can_be_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    change(run, pid=gone())
    follower = Follower(run)
    follower.poll()
    assert follower.history.ended is not None
    assert follower.history.ended.reason == f"its process is gone; epochal resume {run.name} starts it again"
    monkeypatch.setenv("EPOCHAL_RUNS", str(run.path / "elsewhere"))
    write(run, started(), saved(10), saved(5))
    follower = Follower(run)
    follower.poll()
    assert follower.history.ended.reason == f"its process is gone; epochal resume {run.path} goes on from step 10"
    run.recipe_path.unlink()  # one's own objects: no command can resume them
    follower = Follower(run)
    follower.poll()
    assert follower.history.ended is not None and follower.history.ended.reason == "its process is gone"


def test_silence_on_another_host_and_its_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(run, started(), saved(10))
    now = time.time()
    monkeypatch.setattr("engine.run.status.time", SimpleNamespace(time=lambda: now))
    change(run, host="node7", pid=gone(), heartbeat=now - 119)
    follower = Follower(run)
    follower.poll()
    assert follower.alive
    change(run, heartbeat=now - 130)
    follower.poll()
    assert not follower.alive and follower.history.ended is not None
    assert follower.history.ended.reason.startswith("no sign of life from node7 for 130 s; epochal resume")
    change(run, heartbeat=now)  # the network is back; nobody resumed anything
    follower.poll()
    assert follower.alive and follower.history.ended is None and len(follower.history.checkpoints) == 1


def test_last_words_between_two_looks_are_not_a_death(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write(run, started())
    follower = Follower(run)
    original = follower.run.status.read

    def ends_now(path: Path) -> dict[str, Any]:
        if follower.history.started is not None and follower.history.ended is None:
            write(run, ended())
            run.status.write("finished")
            change(run, pid=gone())
        return original(path)

    monkeypatch.setattr("engine.run.follow.Status.read", staticmethod(ends_now))
    follower.poll()
    assert follower.history.state == "finished" and not follower.alive and follower.history.version == 2


def test_a_process_that_is_gone_after_its_last_word_has_not_died(run: Run) -> None:
    write(run, started(), ended())
    change(run, pid=gone())  # the disk did not take the last status
    follower = Follower(run)
    follower.poll()
    assert follower.history.state == "finished" and not follower.alive


def test_an_end_that_only_the_status_knows(run: Run) -> None:
    write(run, started())
    run.status.write("failed", step=7, reason="no data")
    follower = Follower(run)
    follower.poll()
    assert follower.history.ended is not None
    assert (follower.history.state, follower.history.ended.reason, follower.history.ended.step) == ("failed", "no data", 7)


# Rubbish


def test_rubbish_is_named_and_the_rest_seen(run: Run) -> None:
    write(run, started())
    follower = Follower(run)
    follower.poll()
    with run.journal.path.open("ab") as file:
        file.write(b"nonsense\n\xff\0\n" + json.dumps(to_dict(trained(1, 2))).encode() + b"\n" + b"x\n" * 100)
    run.status.path.write_bytes(b"{}")
    assert follower.poll()
    texts = [message.text for message in follower.history.messages]
    assert [text.partition(":")[0] for text in texts[:3]] == [f"journal.jsonl, line {line}" for line in (2, 3, 5)]
    assert "status.json is damaged" in texts[-1] and len(texts) == 22
    assert len(follower.history.curve("train/loss")) == 2
    assert not follower.poll()


def test_a_line_longer_than_any_event_is_passed_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.run.follow.LONGEST", 1000)
    assert LONGEST > 1_000_000
    write(run, started())
    follower = Follower(run)
    path = run.journal.path
    for piece in (b"x" * 1500, b"x" * 700, b"x" * 1000 + b"\n", json.dumps(to_dict(saved(3))).encode() + b"\n", b"?\n"):
        with path.open("ab") as file:
            file.write(piece)
        follower.poll()
    texts = [message.text for message in follower.history.messages]
    assert texts[0] == "journal.jsonl, line 2: longer than any event" and texts[1].startswith("journal.jsonl, line 4: ")
    assert len(texts) == 2 and len(follower.history.checkpoints) == 1
