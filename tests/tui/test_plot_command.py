"""`epochal plot` on runs whose journals are written here, event by event."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.events import EpochEnded
from engine.run import Run
from tests.tui import scripted
from tui.__main__ import main


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """Two runs below ./runs; the second has no validation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    noise = scripted.random.Random(1)
    made = {}
    for name, validates in (("alpha", True), ("beta", False)):
        made[name] = run = Run.create(Path("runs"), name)
        run.journal.append(scripted.started(4))
        for epoch in range(1, 5):
            for event in scripted.epoch_events(epoch, noise):
                whole = validates or not isinstance(event, EpochEnded)
                run.journal.append(event if whole else replace(event, metrics={"train/loss": 1.0}, best=False))
        run.journal.close()
    return made


def test_it_draws_the_run_as_plain_text_of_the_asked_size(runs, capsys):
    assert main(["plot", "alpha", "--width", "90", "--height", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20 and all(len(line) <= 90 for line in lines)
    assert f"{runs['alpha'].name} · loss · smoothing 0.6 · log y · by step · whole run" == lines[0]
    assert "val 0.5323" in lines[1] and "best" in lines[1] + lines[2]
    text = "\n".join(lines)
    assert "\x1b" not in text and "★" in text and any(0x2800 < ord(character) < 0x2900 for character in text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--metric", "val/loss"], "val/loss · log y"), (["--linear"], "linear y"), (["--log", "--metric", "accuracy"], "log y"),
     (["--x", "epoch"], "by epoch"), (["--x", "time"], "by training time"), (["--smoothing", "0"], "not smoothed"),
     (["--recent"], "last 200 steps"), (["--metric", "lr"], "lr · linear y")],
)  # fmt: skip
def test_the_title_says_what_was_asked_for(runs, capsys, arguments, said):
    assert main(["plot", "alpha", *arguments]) == 0
    assert said in capsys.readouterr().out.splitlines()[0]


def test_several_runs_share_what_they_all_have(runs, capsys):
    assert main(["plot", "alpha", "beta"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train/loss") and "2 runs" in lines[0]
    assert f"train {runs['alpha'].name}" in lines[1] and f"a train {runs['beta'].name}" in "".join(lines[1:4])
    assert main(["plot", "alpha", "beta", "--metric", "val/loss"]) == 2
    assert f"{runs['beta'].name} has no metric 'val/loss', but loss" in capsys.readouterr().err


def test_ascii_is_ascii(runs, capsys, monkeypatch):
    monkeypatch.setenv("EPOCHAL_ASCII", "1")
    assert main(["plot", "alpha"]) == 0
    assert capsys.readouterr().out.isascii()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["gamma"], "there is no run 'gamma' in runs"), (["alpha", "--metric", "val/los"], "the nearest is 'val/loss'"),
     (["alpha", "--smoothing", "1"], "must be from 0 to below 1"),
     (["alpha", "--write", "nowhere"], "nowhere is no directory")],
)  # fmt: skip
def test_a_mistake_is_one_sentence(runs, capsys, arguments, said):
    assert main(["plot", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and len(captured.err.splitlines()) == 1 and not captured.out


def test_it_writes_files_where_it_is_told_to(runs, capsys, tmp_path):
    assert main(["plot", "alpha", "--write", str(tmp_path)]) == 0
    assert f"written: {tmp_path / 'chart-loss.csv'}" in capsys.readouterr().out
    assert (tmp_path / "chart-loss.svg").read_text().startswith("<svg")


def test_the_highest_and_the_lowest_tick_hold_all_values(runs, capsys):
    assert main(["plot", "alpha", "--linear", "--smoothing", "0"]) == 0
    ticks = [float(tick) for tick in re.findall(r"^ *([\d.]+)┤", capsys.readouterr().out, re.M)]
    losses = [
        loss for event in runs["alpha"].journal.read(runs["alpha"].journal.path)[0] for loss in getattr(event, "high", ())
    ]
    assert math.ceil(max(losses)) >= max(ticks) >= max(losses) - 1


def test_neither_torch_nor_textual_is_waited_for_and_a_closed_pipe_is_no_error(runs):
    code = "import sys; from tui.__main__ import main; main(['plot', 'alpha']); assert 'torch' not in sys.modules"
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": root}, check=False)
    assert done.returncode == 0, done.stderr
    piped = f"{sys.executable} -m tui plot alpha 2>&1 | head -1"
    done = subprocess.run(
        piped, shell=True, capture_output=True, text=True, env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin"}, check=True
    )
    assert done.stdout.count("\n") == 1 and not done.stderr
