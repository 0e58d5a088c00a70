"""Run.log: a loop that is not ours, and all that reads runs."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from engine import EpochalError, History, Run, RunError, Trainer
from engine.cli import main
from engine.events import EpochEnded, Logged, Message, RunContinued, RunEnded, RunPaused
from engine.run import Journal, load_history
from engine.run.follow import Follower
from engine.track.again import earlier
from engine.track.book import Book
from engine.track.names import canonical


@pytest.fixture(autouse=True)
def _nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPOCHAL_CONFIG", str(tmp_path / "settings"))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run.create(tmp_path / "runs", "mine", config={"lr": 3e-4, "net": {"width": 64}, "path": Path("x")}, epochs=2)
    yield made
    made.finish()


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def curve(history: History, name: str) -> list[tuple[int, float]]:
    return [(step, mean) for step, mean, _, _ in history.series[name]]


def test_what_is_logged_is_in_the_history(run: Run) -> None:
    with run:
        for step in range(1, 7):
            run.log(step, {"train/loss": 1 / step, "lr": 0.1}, epoch=(step + 2) // 3)
            if step % 3 == 0:
                run.log(step, {"val/loss": 2 / step, "eval_accuracy": step / 10, "grad_norm": 5}, epoch=step // 3)
    history = load_history(run)
    assert curve(history, "train/loss") == [(step, 1 / step) for step in range(1, 7)]
    assert curve(history, "val/accuracy") == [(3, 0.3), (6, 0.6)]
    assert curve(history, "grad_norm") == [(3, 5.0), (6, 5.0)]
    first, second = history.epochs
    assert first.metrics == {
        "train/loss": pytest.approx((1 + 1 / 2 + 1 / 3) / 3),
        "val/loss": 2 / 3,
        "val/accuracy": 0.3,
        "grad_norm": 5,
    }
    assert (first.step, first.lr, second.step, second.best) == (3, 0.1, 6, True)
    assert history.ended is not None and (history.ended.state, history.ended.step, history.ended.epoch) == ("finished", 6, 2)
    (summary,) = Run.list(run.path.parent)
    assert (summary.state, summary.epoch, summary.epochs, summary.best["val/loss"]) == ("finished", 2, 2, 2 / 6)
    assert summary.differs == {"lr": 3e-4, "net.width": 64, "path": "x"}


def test_values_may_be_tensors_that_change_afterwards(run: Run) -> None:
    total = torch.zeros((), requires_grad=False)
    with run:
        for step in range(1, 4):
            total += 1
            run.log(step, {"train/loss": total, "x": torch.tensor([2.0], requires_grad=True) * step, "n": step})
        run.log(4, {"train/loss": math.nan})
    history = load_history(run)
    *sound, last = curve(history, "train/loss")
    assert sound == [(1, 1.0), (2, 2.0), (3, 3.0)] and math.isnan(last[1])
    assert curve(history, "x") == [(1, 2.0), (2, 4.0), (3, 6.0)]


@pytest.mark.parametrize("value", ["abc", None, torch.zeros(2), [1.0]], ids=str)
def test_what_is_no_number_is_one_sentence(run: Run, value: object) -> None:
    with pytest.raises(RunError, match=r"^'note' is .*: a run logs numbers") as error:
        run.log(1, {"note": value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("step", ["7", -1, None, math.nan, torch.zeros(2)], ids=str)
def test_a_step_is_a_whole_number(run: Run, step: object) -> None:
    with pytest.raises(RunError, match=r"^the step is .*: a run logs at whole steps of 0 or more$"):
        run.log(step, {"train/loss": 1.0})  # type: ignore[arg-type]
    run.log(torch.tensor(3), {"train/loss": 1.0}, epoch=torch.tensor(0.5))  # type: ignore[arg-type]
    run.finish()
    history = load_history(run)
    assert curve(history, "train/loss") == [(3, 1.0)] and history.epochs[0].epoch == 1


def test_without_epochs_the_best_is_a_step(tmp_path: Path) -> None:
    with Run.create(tmp_path, "steps", monitor="val/accuracy", steps=30) as run:
        for step, value in ((10, 0.5), (20, 0.9), (30, 0.7)):
            run.log(step, {"val_accuracy": value})
    history = load_history(run)
    assert history.epochs == [] and history.best is not None
    assert (history.best.step, history.best.metrics) == (20, {"val/accuracy": 0.9})
    assert Run.list(tmp_path)[0].best == {"epoch": 0, "step": 20, "val/accuracy": 0.9}


@pytest.mark.parametrize(("mode", "best"), [("min", 1.0), ("max", 2.0)])
@pytest.mark.parametrize("epochs", [False, True])
def test_what_is_no_number_is_never_best(tmp_path: Path, mode: str, best: float, epochs: bool) -> None:
    with Run.create(tmp_path, "diverged", monitor="val/loss", mode=mode) as run:
        for step, value in enumerate((math.inf, 1.0, math.nan, 2.0, -math.inf), 1):
            run.log(step, {"val/loss": value}, epoch=step if epochs else None)
    (summary,) = Run.list(tmp_path)
    assert summary.best["val/loss"] == best
    assert earlier(Run.open(summary.path), 5).best["val/loss"] == best, "as one that goes on has it"


def test_a_broken_epoch_is_the_one_under_way() -> None:
    book = Book()
    for step, epoch in ((1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)):
        book.add(step, None, {"loss": step, "epoch": epoch}, float(step))
    book.close()
    rows = [event for event in book.take() if isinstance(event, EpochEnded)]
    assert [(row.epoch, row.step, row.metrics) for row in rows] == [(1, 2, {"train/loss": 1.5}), (2, 4, {"train/loss": 3.5})]


def test_a_long_run_keeps_few_points_and_no_spike_is_lost() -> None:
    book, history = Book(most=100), History()
    steps = 100_000
    for step in range(1, steps + 1):
        book.add(step, None, {"x": 1000.0 if step == 77_777 else step % 2}, 0.0)
        if step % 500 == 0:
            for event in book.take():
                history.apply(event)
    book.close()
    for event in book.take():
        history.apply(event)
    points = list(history.series["x"])
    assert len(points) < 100 * 12  # by 100 points, and half as many for each doubling of the length
    assert max(high for *_, high in points) == 1000.0 and points[-1][0] == steps
    starts = [0, *(point[0] for point in points)]
    total = sum(mean * (after - before) for before, (after, mean, _, _) in zip(starts, points, strict=False))
    assert total == pytest.approx(steps / 2 + 1000 - 1)


def test_pause_blocks_the_loop_and_stop_ends_it(run: Run) -> None:
    other, logged = Run(run.path), []
    stated: list[object] = []
    for kind in (RunPaused, RunContinued):
        run.on(kind, stated.append)

    def loop() -> None:
        with run:
            for step in range(1, 1_000_000):
                run.log(step, {"train/loss": 1.0})
                logged.append(step)
                if run.should_stop:
                    break
                time.sleep(0.001)

    thread = threading.Thread(target=loop)
    thread.start()
    wait_for(lambda: len(logged) > 3)
    other.tell("pause")
    wait_for(lambda: any(isinstance(event, RunPaused) for event in stated))
    count = len(logged)
    wait_for(lambda: Run.list(run.path.parent)[0].state == "paused")
    assert len(logged) <= count + 1
    other.tell("resume")
    wait_for(lambda: len(logged) > count + 3)
    other.tell("stop", reason="enough")
    thread.join(60)
    assert not thread.is_alive()
    ended = load_history(run).ended
    assert ended is not None and (ended.state, ended.reason, ended.step) == ("stopped", "enough", logged[-1])


def test_only_pause_and_stop_can_be_asked_of_it(run: Run) -> None:
    with run:
        run.log(1, {"train/loss": 1.0})
        wait_for(lambda: Run.list(run.path.parent)[0].state == "running")
        for ask in ("checkpoint", "validate"):
            with pytest.raises(RunError, match=f"paused and stopped, not asked to {ask}"):
                Run(run.path).tell(ask)
        with pytest.raises(RunError, match="not asked to set"):
            Run(run.path).tell("set", field="optimizer.lr", value=0.5)


def test_an_exception_is_a_failure_with_its_traceback(run: Run) -> None:
    with pytest.raises(ValueError, match="broken"), run:
        run.log(7, {"train/loss": 1.0})
        raise ValueError("broken")
    ended = load_history(run).ended
    assert ended is not None and (ended.state, ended.reason, ended.step) == ("failed", "ValueError: broken", 7)
    assert 'raise ValueError("broken")' in run.output_path.read_text()


PROGRAM = """
import sys
from engine import Run
run = Run.create(sys.argv[1], "mine")
run.log(1, {"train/loss": 1.0})
print("begun", flush=True)
exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("rest", "state", "reason"),
    [
        ("sys.stdin.read()", "died", "its process is gone"),
        ("pass", "stopped", "without a word"),
        ("raise ValueError('no')", "failed", "ValueError: no"),
    ],
)
def test_a_program_that_ends_otherwise(tmp_path: Path, rest: str, state: str, reason: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "runs"), rest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        if state == "died":
            wait_for(lambda: (next((tmp_path / "runs").iterdir()) / "journal.jsonl").read_bytes().count(b"\n") > 1)
            os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    (summary,) = Run.list(tmp_path / "runs")
    assert summary.state == state and reason in summary.reason
    follower = Follower(Run(summary.path))
    follower.poll()
    assert follower.history.state == state and curve(follower.history, "train/loss") == [(1, 1.0)]


def test_nobody_else_can_go_on_with_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with run:
        run.log(1, {"train/loss": 1.0}, epoch=1)
    for attempt in (Trainer.resume, Trainer.fork):
        with pytest.raises(EpochalError, match="has no recipe"):
            attempt(run.path)
    for command in (["resume"], ["resume", "last", "--epochs", "9"], ["fork", "last"], ["queue", "add", "--resume", "last"]):
        assert main([*command, "--runs", str(run.path.parent)]) == 2
        assert "has no recipe" in capsys.readouterr().err
    with pytest.raises(RunError, match="has ended"):
        run.log(2, {"train/loss": 1.0})
    with pytest.raises(RunError, match="only the run that Run.create or Run.resume has just given"):
        Run.open(run.path).log(2, {"train/loss": 1.0})


def test_the_command_line_lists_shows_and_compares_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with run:
        run.log(1, {"train/loss": 0.5, "val/loss": 0.25}, epoch=1)
    with Run.create(run.path.parent, "other", config={"lr": 1e-3, "net": {"width": 64}}) as other:
        other.log(1, {"val/loss": 0.125})
    root = ["--runs", str(run.path.parent)]
    assert main(["runs", *root]) == 0
    listed = capsys.readouterr().out
    assert "val loss 0.2500 in epoch 1" in listed and "val loss 0.1250 at step 1" in listed and "width 64" in listed
    assert main(["show", run.name, *root]) == 0
    assert "epoch 1 of 2, step 1" in capsys.readouterr().out
    assert main(["diff", run.name, other.name, *root]) == 1
    assert "0.0003" in capsys.readouterr().out
    assert main(["attach", other.name, *root]) == 0
    followed = capsys.readouterr().out
    assert "step 1: val loss 0.1250" in followed and "parameter" not in followed and "epoch" not in followed


def test_a_disk_that_takes_nothing_ends_no_loop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.run import files

    tried = threading.Event()

    def full(descriptor: int, data: bytes) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    with run:
        run.log(1, {"train/loss": 1.0})
        with monkeypatch.context() as patched:
            patched.setattr(files, "append", full)
            run.log(2, {"train/loss": 0.5})
            assert tried.wait(60)
        run.log(3, {"train/loss": 0.25})
    events, problems = Journal.read(run.journal.path)
    assert not problems and isinstance(events[-1], RunEnded)
    assert [step for event in events if isinstance(event, Logged) for step in event.steps["train/loss"]] == [1, 2, 3]
    assert any(isinstance(event, Message) and event.level == "error" for event in events)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("train_loss", "train/loss"), ("Loss/train", "train/loss"), ("loss", "train/loss"), ("eval_loss", "val/loss"),
        ("validation/f1", "val/f1"), ("val_accuracy", "val/accuracy"), ("learning_rate", "lr"), ("lr-Adam", "lr"),
        ("grad_norm", "grad_norm"), ("a/b", "a/b"), ("train", "train"), ("test_acc", "test/acc"), ("trainable", "trainable"),
    ],
)  # fmt: skip
def test_names_of_other_tools(name: str, known: str) -> None:
    assert canonical(name) == known


def test_a_plan_that_can_not_be(tmp_path: Path) -> None:
    for wrong in ({"epochs": 0}, {"steps": 1.5}, {"mode": "best"}, {"config": [1]}):
        with pytest.raises(RunError, match=next(iter(wrong))):
            Run.create(tmp_path / "runs", "n", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
