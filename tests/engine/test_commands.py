"""A run in the background, steered and followed by commands: each command a process's work, as a person would use them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.cli import main
from engine.cli.steer import Talk
from engine.events import EpochEnded, RunEnded, RunStarted, from_dict
from engine.run import Run
from tests.engine.processes import ENDLESS, PATIENCE, alive, ended, read_until, started, until

pytestmark = pytest.mark.usefixtures("in_a_shell")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Path, psutil.Process]]]:
    """Where runs were begun, and their processes."""
    all_of_them: list[tuple[Path, psutil.Process]] = []
    yield all_of_them
    for _, process in all_of_them:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture
def runs(tmp_path_factory: pytest.TempPathFactory, begun: list[tuple[Path, psutil.Process]]) -> Path:
    """Where one run is being trained, without end; each test steers it and leaves it at work, or ends it."""
    if not begun or not alive(begun[-1][1].pid):
        root = tmp_path_factory.mktemp("runs")
        command = [sys.executable, "-m", "engine", *ENDLESS, "--name", "steered", "--background", "--json", "--runs", str(root)]
        told = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
        begun.append((root, psutil.Process(json.loads(told.stdout)["pid"])))
    return begun[-1][0]


@pytest.fixture(autouse=True)
def _however_long_a_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Talk.hear.__kwdefaults__, "patience", PATIENCE)


def called(capsys: Capture, runs: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    status = main([*arguments, "--runs", str(runs)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_pause_and_continue(capsys: Capture, runs: Path) -> None:
    name = Run.list(runs)[0].name
    status, out, err = called(capsys, runs, "pause", "steered")
    assert (status, err) == (0, "") and out.startswith(f"{name}: paused at step ")
    step = out.split()[-1]
    assert called(capsys, runs, "pause", "last") == (0, f"{name}: is paused already\n", "")
    until(lambda: " paused " in called(capsys, runs, "runs")[1], "the list says so")
    assert called(capsys, runs, "continue", name) == (0, f"{name}: goes on from step {step}\n", "")
    assert called(capsys, runs, "continue", name) == (0, f"{name}: is not paused\n", "")


def test_checkpoint_and_validation(capsys: Capture, runs: Path) -> None:
    status, out, err = called(capsys, runs, "checkpoint", "steered")
    assert (status, err) == (0, "")
    assert "checkpoint of step " in out and " written in " in out
    status, out, err = called(capsys, runs, "validate", "steered")
    assert (status, err) == (0, "")
    assert "validated at step " in out and "val loss " in out


def test_values_are_set(capsys: Capture, runs: Path) -> None:
    status, out, err = called(capsys, runs, "set", "steered", "lr=x0.5", "training.clip_norm=1", "epochs=900000")
    lines = [line.partition(" after step ")[0].split(": ")[1] for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert lines == [
        "optimizer.lr 1.0e-3 → 5.0e-4",
        "training.clip_norm none → 1",
        "training.epochs 1e+06 → 900000",
    ]


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ("momentum=0.9", 2, "momentum can't be changed while a run is under way"),
        ("lr=fast", 2, "'fast' is no number"),
        ("lr", 2, "'lr' is no change"),
        ("checkpoint.every=0.5", 2, "a whole number of 1 or more"),
        ("epochs=1", 1, "training.epochs = 1 is past"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_sentence(capsys: Capture, runs: Path, change: str, status: int, words: str) -> None:
    got, out, err = called(capsys, runs, "set", "steered", change)
    assert (got, out, len(err.splitlines())) == (status, "", 1), out + err
    assert words in err


def test_attach_tells_all_of_it_and_can_be_left(runs: Path) -> None:
    with started("attach", "--plain", "--runs", str(runs)) as process:
        read_until(process, "    1  ")  # the first epoch, long ago
        process.send_signal(signal.SIGINT)
        status, out, err = ended(process)
    assert status == 0 and "Traceback" not in err
    assert out.splitlines()[-1] == f"left      {Run.list(runs)[0].path}, which goes on by itself"
    assert Run.list(runs)[0].state in ("running", "paused")


def test_attach_ends_with_its_reader(runs: Path) -> None:
    with started("attach", "steered", "--runs", str(runs)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("steered · cpu")
        process.stdout.close()
        assert process.wait(PATIENCE) == -signal.SIGPIPE


def test_stop(capsys: Capture, runs: Path, begun: list[tuple[Path, psutil.Process]]) -> None:
    _, changed, _ = called(capsys, runs, "set", "steered", "lr=x0.5")
    status, out, err = called(capsys, runs, "stop", "steered", "--wait")
    run = Run.open("steered", runs)
    step = run.status.read(run.status.path)["step"]
    assert (status, err) == (0, "")
    assert out == f"{run.name}: stopped at step {step:,}: stopped from another process\n"
    for command in (["pause"], ["continue"], ["checkpoint"], ["validate"], ["stop"], ["set"]):
        status, out, err = called(capsys, runs, *command, "steered", *(["lr=1"] if command == ["set"] else []))
        assert (status, out) == (2, "")
        assert err == f"epochal: {run.name} is not being trained: it was stopped\n"

    status, out, err = called(capsys, runs, "attach", "steered", "--json")
    events = [from_dict(json.loads(line)) for line in out.splitlines()]
    assert status == 0
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunEnded)
    assert out == run.journal.path.read_text()
    status, out, err = called(capsys, runs, "attach")
    rows = [line for line in out.splitlines() if line.split()[0].isdigit()]
    assert len(rows) == sum(isinstance(event, EpochEnded) for event in events)
    assert changed.partition(": ")[2] in out and "optimizer.lr" in changed
    assert "stopped   stopped from another process" in out


def test_a_run_whose_process_was_killed(capsys: Capture, tmp_path: Path) -> None:
    with started(*ENDLESS, "--name", "gone", "--runs", str(tmp_path)) as process:
        read_until(process, "    2  ")
    process.wait()
    assert called(capsys, tmp_path, "runs")[1].splitlines()[1].split()[1] == "died"
    status, out, _ = called(capsys, tmp_path, "attach", "gone")
    assert status == 0
    assert "died      its process is gone" in out
    assert called(capsys, tmp_path, "stop", "gone")[::2] == (
        2,
        f"epochal: {Run.list(tmp_path)[0].name} is not being trained: its process is gone\n",
    )
