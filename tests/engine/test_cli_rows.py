"""What the command line prints of a run, driven by scripted events."""

from __future__ import annotations

import io
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli import format, main
from engine.cli.output import Live, Log, Stream, lasting
from engine.cli.rows import Rows, live_line, say
from engine.events import (
    CheckpointFailed,
    CheckpointWritten,
    EpochEnded,
    Event,
    Progress,
    Rewound,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    SettingChanged,
    Trained,
    Validated,
)


def started(**changes: Any) -> RunStarted:
    values: dict[str, Any] = {
        "name": "digits-mlp", "path": "runs/20261122-140312-digits-mlp", "device": "cpu", "device_name": "x86_64",
        "precision": "float32", "execution": "eager", "epochs": 20, "steps_per_epoch": 45, "total_steps": 900,
        "parameters": 9610, "step": 0, "epoch": 0, "monitor": "val/loss", "mode": "min",
    }  # fmt: skip
    return RunStarted(**{**values, **changes})


def epoch(number: int, **changes: Any) -> EpochEnded:
    metrics = {"train/loss": 1 / number, "val/loss": 1.5 / number, "val/accuracy": 1 - 0.1 / number}
    values: dict[str, Any] = {
        "epoch": number,
        "step": 45 * number,
        "metrics": metrics,
        "lr": 3e-4,
        "seconds": 9.0,
        "best": True,
    }
    return EpochEnded(**{**values, **changes})


def progress(phase: str = "train", **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "phase": phase, "step": 450, "epoch": 11, "batch": 3, "batches": 12, "loss": 0.61224, "lr": 3e-4,
        "steps_per_second": 12010.0, "samples_per_second": 384000.0, "elapsed": 66.0, "left": 124.0,
    }  # fmt: skip
    return Progress(**{**values, **changes})


def ended(state: str = "finished", **changes: Any) -> RunEnded:
    values: dict[str, Any] = {
        "state": state, "reason": "all 20 epochs done", "epoch": 20, "step": 900, "seconds": 3723.0,
        "best": {"epoch": 14, "train/loss": 0.0312, "val/loss": 0.0823, "val/accuracy": 0.978, "lr": 1e-3, "seconds": 1.0},
    }  # fmt: skip
    return RunEnded(**{**values, **changes})


def printed(*events: Event, quiet: bool = False) -> list[str]:
    """The lines that a pipe gets."""
    pipe = io.StringIO()
    rows = Rows(Stream(pipe), "epochal", quiet)
    for event in events:
        rows(event)
    return pipe.getvalue().splitlines()


def test_whole_run_in_a_pipe() -> None:
    lines = printed(
        started(), progress(), epoch(1), progress(), epoch(2, best=False, notes=("lr x0.5",)), progress("save"),
        CheckpointWritten(step=90, epoch=2, path="x", best=True, seconds=0.1), progress(), ended(),
    )  # fmt: skip
    assert lines == [
        "digits-mlp · cpu (x86_64) · float32 · eager · 9,610 parameters · 45 steps an epoch · runs/20261122-140312-digits-mlp",
        "epoch  train loss   val loss   accuracy       lr     time  note",
        "    1       1.000      1.500     0.9000   3.0e-4   9.00 s  best ★",
        "    2      0.5000     0.7500     0.9500   3.0e-4   9.00 s  lr x0.5",
        "finished  all 20 epochs done",
        "trained   epoch 20 of 20, step 900, in 1:02:03",
        "best      epoch 14: train loss 0.03120, val loss 0.08230, accuracy 0.9780",
        "run       runs/20261122-140312-digits-mlp",
        "go on     epochal resume runs/20261122-140312-digits-mlp --epochs 40",
    ]


def test_columns_stay_aligned_over_all_magnitudes() -> None:
    losses = (2.30259, 0.0, 1e-7, 123456.0, float("nan"), float("inf"), -3.25)
    rows = [epoch(i + 1, metrics={"train/loss": loss, "val/loss": loss}, lr=loss or 1e-3) for i, loss in enumerate(losses)]
    lines = printed(started(), *rows, ended())[1 : len(losses) + 2]
    ends = [[i for i, c in enumerate(line) if c != " " and line[i + 1 : i + 2] in ("", " ")] for line in lines]
    heads = [lines[0].index(head) + len(head) - 1 for head in ("epoch", "train loss", "val loss", "lr", "time")]
    for positions in ends:
        assert set(heads) <= set(positions), "\n".join(lines)
    assert "NaN" in lines[5]
    assert "inf" in lines[6]


def test_a_checkpoint_on_the_way_has_its_line() -> None:
    of_the_row, on_the_way = (CheckpointWritten(step=step, epoch=2, path="x", best=True, seconds=0.1) for step in (90, 1234))
    assert printed(started(), epoch(2), of_the_row, on_the_way)[3:] == ["checkpoint of step 1,234"]


def test_what_befalls_a_run() -> None:
    lines = printed(
        SettingChanged(step=812, field="optimizer.lr", before=1e-3, value=5e-4),
        SettingChanged(step=812, field="training.patience", before=5, value=None),
        Rewound(step=900, to=810, reason="the loss is nan"),
        RunPaused(step=1000),
        RunContinued(step=1000),
    )
    assert lines == [
        "optimizer.lr 1.0e-3 → 5.0e-4 after step 812",
        "training.patience 5 → none after step 812",
        "at step 900 the loss is nan: back to the checkpoint of step 810",
        "paused at step 1,000",
        "continued",
    ]


def test_what_would_have_helped() -> None:
    lines = printed(started(), ended("failed", proposal={"data.batch_size": 16, "training.accumulate": 2}))
    assert lines[-1] == "try       --set data.batch_size=16 --set training.accumulate=2"


def test_a_checkpoint_that_fails_is_told_also_where_little_is() -> None:
    pipe = io.StringIO()
    for quiet in (False, True):
        say(CheckpointFailed(step=1234, reason="No space left on device"), Stream(pipe), quiet)
    line = "epochal: error: the checkpoint of step 1,234 was not written: No space left on device"
    assert pipe.getvalue().splitlines() == [line] * 2


def test_heads_are_repeated_when_the_metrics_change() -> None:
    lines = printed(started(), epoch(1), epoch(2, metrics={"train/loss": 1.0}), progress())
    assert [line.split()[0] for line in lines[1:]] == ["epoch", "1", "epoch", "2"]


def test_no_metrics_beside_the_training_loss() -> None:
    lines = printed(started(), epoch(1, metrics={"train/loss": 0.25}), ended(best={"epoch": 1, "train/loss": 0.25, "lr": 0.1}))
    assert lines[1].split() == ["epoch", "train", "loss", "lr", "time", "note"]
    assert "best      epoch 1: train loss 0.2500" in lines


def test_quiet_prints_what_came_of_it_and_nothing_else() -> None:
    assert printed(started(), epoch(1), progress(), ended(), quiet=True)[0].startswith("finished")


def test_stopped_says_how_to_go_on_only_when_there_is_a_checkpoint() -> None:
    saved = CheckpointWritten(step=10, epoch=1, path="x", best=False, seconds=0.1)
    assert printed(started(path="a b"), saved, ended("stopped"))[-1] == "go on     epochal resume 'a b'"
    assert printed(started(step=45, epoch=1), ended("failed"))[-1].startswith("go on")
    assert printed(started(), ended("failed"))[-1].startswith("run")
    assert not any("runs/" in line for line in printed(started(path=None), ended()))


def test_resumed_run_says_where_it_goes_on() -> None:
    assert "goes on from step 450 after epoch 10 of 20" in printed(started(step=450, epoch=10))


def test_validation_by_hand() -> None:
    line = printed(started(), Validated(epoch=1, step=1234, metrics={"val/loss": 0.5, "val/accuracy": 0.75}))[-1]
    assert line == "validated at step 1,234: val loss 0.5000, accuracy 0.7500"


def test_events_that_are_not_for_a_person_print_nothing() -> None:
    assert printed(Trained(epoch=1, first=1, step=1, every=1, loss=(1.0,), low=(), high=(), lr=(0.1,))) == []


@pytest.mark.parametrize("width", [1, 5, 20, 40, 79, 119, 200])
def test_live_line_fits(width: int) -> None:
    for event in (progress(), progress("validate"), progress("save"), progress("paused", loss=None, left=None)):
        line = live_line(started(), event, width)[:width]
        assert len(line) <= width


def test_live_line_says_it_all_at_120() -> None:
    line = live_line(started(), progress(), 119)
    assert line == f"{'█' * 15}{'░' * 15}   50%  epoch 11/20  step 450/900  loss 0.6122  left 2:04  12.0k steps/s"
    assert live_line(started(total_steps=90000), progress(), 73).startswith("░")
    assert live_line(started(total_steps=90000), progress(), 73).endswith("steps/s")
    assert "validating 3/12" in live_line(started(), progress("validate"), 119)
    assert live_line(started(total_steps=None), progress(), 119).split()[1:5] == ["epoch", "11/20", "step", "450"]


class Terminal(io.StringIO):
    """A terminal in memory."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines as they stand, for the one control sequence in use."""
        lines = []
        for line in self.getvalue().split("\n"):
            lines.append(line.rsplit("\r\x1b[2K", 1)[-1])
        return lines


def terminal_rows(now: Callable[[], float]) -> tuple[Terminal, Stream, Rows]:
    terminal = Terminal()
    out = Stream(terminal)
    out.live = Live(terminal, now=now)
    return terminal, out, Rows(out, "epochal")


def test_rows_of_a_list_are_cut_at_the_width_of_a_terminal_and_whole_in_a_pipe() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Stream(stream).rows(["x" * 80, "y" * 81])
    assert terminal.getvalue() == "x" * 80 + "\n" + "y" * 79 + "…\n"
    assert pipe.getvalue() == "x" * 80 + "\n" + "y" * 81 + "\n"


def test_live_line_is_drawn_at_most_four_times_a_second() -> None:
    clock = [0.0]
    terminal, _, rows = terminal_rows(lambda: clock[0])
    rows(started())
    for hundredth in range(200):
        clock[0] = hundredth / 100
        rows(progress(step=hundredth))
    assert terminal.getvalue().count("█") > 0
    assert terminal.getvalue().count("steps/s") == 8


def test_live_line_stays_under_the_rows_and_is_cleared_at_the_end() -> None:
    clock = [0.0]
    terminal, _, rows = terminal_rows(lambda: clock[0])
    for event in (started(), progress(), epoch(1), progress()):
        clock[0] += 1
        rows(event)
    assert "50%" in terminal.screen()[-1]
    assert [line.split()[0] for line in terminal.screen()[:-1]] == ["digits-mlp", "epoch", "1"]
    rows(epoch(2))
    assert "50%" in terminal.screen()[-1]
    assert [line.split()[0] for line in terminal.screen()[:-1]] == ["digits-mlp", "epoch", "1", "2"]
    rows(ended())
    assert not any("50%" in line for line in terminal.screen())
    assert terminal.screen()[-1] == ""


def test_a_print_of_the_training_code_does_not_meet_the_live_line() -> None:
    clock = [0.0]
    terminal, out, rows = terminal_rows(lambda: clock[0])
    rows(started())
    rows(progress())
    out.write("half a ")
    clock[0] += 1
    rows(progress())  # somebody's line is not finished: nothing is drawn over it
    out.write("line\n")
    clock[0] += 1
    rows(progress())
    assert terminal.screen()[1] == "half a line"
    assert "50%" in terminal.screen()[2]


def test_a_stream_without_the_letters_gets_plain_ones() -> None:
    raw = io.BytesIO()
    ascii_only = io.TextIOWrapper(raw, "ascii")
    Stream(ascii_only).line("best ★ █░ · é")
    assert raw.getvalue() == b"best * #. - ?\n"


def test_log_holds_what_was_printed_but_not_the_rows(tmp_path: Any) -> None:
    log = Log()
    out = Stream(io.StringIO())
    out.log = log
    out.write("early\n")
    log.open(tmp_path / "output.log")
    out.line("a row")
    out.write("late\n")
    log.close()
    out.write("afterwards\n")
    assert (tmp_path / "output.log").read_text() == "early\nlate\n"
    assert out.terminal.getvalue() == "early\na row\nlate\nafterwards\n"  # type: ignore[attr-defined]


def test_a_full_disk_does_not_fail_a_print() -> None:
    class Full(Log):
        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

    out = Stream(io.StringIO())
    out.log = Full()
    out.write("hello\n")
    assert "No space left" in out.terminal.getvalue()  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["catalog"], ["--version"], ["train", "--help"]])
def test_what_could_not_be_written_is_told_and_a_failure(arguments, monkeypatch, capsys) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(arguments) == 1
    assert capsys.readouterr().err == "epochal: /dev/full can't be written: No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_failure(monkeypatch, capsys) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert main(["catalog"]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_fails_once_the_reader_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, lasting(pipe, io.StringIO()) as (out, _):
        for _ in range(3):
            out.line("x" * 100_000)
            print("from the training code", flush=True)


def test_nothing_fails_once_the_terminal_has_gone() -> None:
    ours, theirs = pty.openpty()
    terminal = os.fdopen(theirs, "w")
    out = Stream(terminal)
    out.live = Live(terminal)
    rows = Rows(out, "epochal")
    rows(started())
    os.close(ours)
    for event in (progress(), epoch(1), epoch(2), ended()):
        rows(event)
    terminal.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format.value(0.61224), "0.6122"), (format.value(12.345), "12.35"), (format.value(1234.5), "1234"),
        (format.value(12345.0), "1.234e4"), (format.value(1.2345e-5), "1.234e-5"), (format.value(0.0), "0.000"),
        (format.value(None), "–"), (format.value(-float("inf")), "-inf"), (format.value(float("nan")), "NaN"),
        (format.lr(3e-4), "3.0e-4"), (format.lr(0.1), "1.0e-1"), (format.lr(0), "0"), (format.lr(1.0), "1.0"),
        (format.clock(9), "0:09"), (format.clock(3723), "1:02:03"), (format.clock(59.7), "1:00"), (format.clock(None), "–"),
        (format.duration(0.084), "84 ms"), (format.duration(0.9996), "1.00 s"),
        (format.duration(59.97), "1:00"), (format.duration(66), "1:06"),
        (format.rate(12010), "12.0k"), (format.rate(384e3), "384k"), (format.rate(0.52), "0.520"),
        (format.rate(999.7), "1.00k"),
        (format.rate(1.2e6), "1.20M"), (format.rate(38.44), "38.4"), (format.rate(384), "384"), (format.rate(None), "–"),
        (format.counted(1, "step"), "1 step"), (format.counted(9610, "parameter"), "9,610 parameters"),
    ],
)  # fmt: skip
def test_number(text: str, expected: str) -> None:
    assert text == expected
