"""What `train` and `resume` print where, and their exit status, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.events import EpochEnded, Message, RunEnded, RunStarted, from_dict
from engine.run import Run
from tests.engine.called import QUICK, Capture, called

pytestmark = pytest.mark.usefixtures("in_a_shell")


def test_train_prints_header_rows_and_closing_lines(capsys: Capture) -> None:
    status, out, err = called(capsys, "train", *QUICK, "--name", "flowers")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0].startswith("flowers · cpu")
    assert "parameters · 4 steps an epoch · runs" in lines[0]
    assert lines[1].split() == ["epoch", "train", "loss", "val", "loss", "accuracy", "lr", "time", "note"]
    assert [line.split()[0] for line in lines[2:4]] == ["1", "2"]
    assert lines[4].startswith("finished  ")
    assert "\x1b" not in out
    assert "\r" not in out
    (run,) = Run.list(Path("runs"))
    assert lines[-1] == f"go on     epochal resume {run.path} --epochs 4"
    assert run.state == "finished"


def test_the_recipe_file_and_the_settings(capsys: Capture) -> None:
    Path("wine-small.toml").write_text('[data]\nname = "wine"\n[model]\nname = "linear"\n[optimizer]\nname = "SGD"\nlr = 0.5\n')
    arguments = [
        "train",
        "wine-small.toml",
        "--epochs",
        "3",
        "--device",
        "cpu",
        "--set",
        "optimizer.lr=1e-2",
        "--runs",
        "elsewhere",
    ]
    status, out, _ = called(capsys, *arguments)
    assert status == 0
    assert out.startswith("wine-small · cpu")
    assert out.count("1.0e-2") == 3
    assert len(Run.list("elsewhere")) == 1
    assert not Path("runs").exists()


def test_a_setting_can_give_what_the_file_leaves_out(capsys: Capture) -> None:
    rows = "\n".join(f"{i},{i % 2}" for i in range(40))
    Path("data.csv").write_text(f"x,y\n{rows}\n")
    Path("csv.toml").write_text('[data]\nname = "csv"\ntarget = "y"\n')
    status, _, err = called(capsys, "train", "csv.toml", "--no-run", "--epochs", "1")
    assert status == 2
    assert "data.path" in err
    assert called(capsys, "train", "csv.toml", "--no-run", "--epochs", "1", "--set", "data.path=data.csv")[0] == 0


OWN = """
import torch
from torch import nn


def load():
    x = torch.linspace(-1, 1, 64)[:, None]
    return x, (x * 3).squeeze(1) if REGRESSION else (x[:, 0] > 0).long()


class Net(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], output_size: int, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(*input_shape, width), nn.Tanh(), nn.Linear(width, output_size))

    def forward(self, inputs):
        return self.layers(inputs)
"""


@pytest.mark.parametrize("regression", [True, False])
def test_own_model_and_data_in_one_line(capsys: Capture, regression: bool) -> None:
    Path("my.py").write_text(OWN.replace("REGRESSION", str(regression)))
    options = ["--model", "my.py:Net", "--data", "my.py:load", "--set", "model.width=4", "--epochs", "2"]
    status, out, err = called(capsys, "train", *options)
    assert (status, err) == (0, "")
    assert out.startswith("my-Net")
    (run,) = Run.list(Path("runs"))
    recipe = Run.open(run.path).recipe_path.read_text()
    assert '[loss]\nname = "auto"\n' in recipe and "width = 4" in recipe
    status, out, err = called(capsys, "train", "--model", "my.py:Nett")
    assert status == 2 and "the nearest is 'Net'" in err


@pytest.mark.parametrize(("file", "between"), [("table.csv", ","), ("table.tsv", "\t")])
def test_a_file_is_data_by_its_ending(capsys: Capture, file: str, between: str) -> None:
    rows = [("a", "y"), *[("1", "one"), ("2", "two")] * 9]
    Path(file).write_text("".join(f"{between.join(row)}\n" for row in rows))
    status, _, err = called(capsys, "train", "--data", file, "--set", "data.target=y", "--epochs", "1", "--quiet")
    assert (status, err) == (0, "")
    recipe = Run.open("last", "runs").recipe_path.read_text()
    assert f'name = "csv"\npath = "{file}"\ntarget = "y"\n' in recipe


def test_no_run_writes_nothing(capsys: Capture) -> None:
    status, out, _ = called(capsys, "train", *QUICK, "--no-run")
    assert status == 0
    assert list(Path().iterdir()) == []
    assert "resume" not in out


def test_quiet(capsys: Capture) -> None:
    status, out, _ = called(capsys, "train", *QUICK, "--quiet")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["finished", "trained", "best", "run", "go"]


def test_json_is_the_journal(capsys: Capture) -> None:
    status, out, err = called(capsys, "train", *QUICK, "--json")
    assert (status, err) == (0, "")
    assert out == (Run.open("last").path / "journal.jsonl").read_text()
    events = [from_dict(json.loads(line)) for line in out.splitlines()]
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert sum(isinstance(event, EpochEnded) for event in events) == 2


def test_resume(capsys: Capture) -> None:
    called(capsys, "train", *QUICK)
    run = Run.open("last")
    journal = run.journal.path.read_bytes()

    status, out, err = called(capsys, "resume")
    assert (status, err) == (0, "")
    assert out == f"{run.path} is finished after 2 epochs; to train more: epochal resume {run.path} --epochs 4\n"
    assert called(capsys, "resume", str(run.path), "--epochs", "2")[0] == 0
    status, out, err = called(capsys, "resume", "--json")
    assert (status, out) == (0, "")
    assert "finished" in err
    assert run.journal.path.read_bytes() == journal

    status, out, err = called(capsys, "resume", run.name[:18], "--epochs", "4")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[1] == "goes on from step 8 after epoch 2 of 4"
    assert [line.split()[0] for line in lines[3:5]] == ["3", "4"]
    assert Run.list("runs")[0].epoch == 4


def test_a_run_that_was_renamed_is_told_of_where_it_is(capsys: Capture) -> None:
    called(capsys, "train", *QUICK)
    before = Run.open("last")
    assert called(capsys, "rename", "last", "other")[0] == 0
    renamed = Run.open("last")
    status, out, err = called(capsys, "attach")
    assert (status, err) == (0, "") and str(before.path) not in out
    assert out.splitlines()[-1] == f"go on     epochal resume {renamed.path} --epochs 4"
    assert called(capsys, "attach", "--json")[1] == (renamed.path / "journal.jsonl").read_text()


def test_resume_after_an_early_stop_promises_nothing(capsys: Capture) -> None:
    arguments = [*QUICK, "--epochs", "9", "--set", "optimizer.lr=0", "--set", "training.patience=1"]
    status, out, _ = called(capsys, "train", *arguments)
    assert status == 0
    assert "go on" not in out
    status, out, _ = called(capsys, "resume")
    assert status == 0
    assert "is finished after 2 epochs: no better val/loss" in out


def test_resume_leaves_a_run_alone_that_is_at_work(capsys: Capture) -> None:
    assert called(capsys, "train", *QUICK, "--name", "busy")[0] == 0
    run = Run.open("busy", "runs")
    run.lock.acquire()
    status, out, err = called(capsys, "resume", "busy", "--epochs", "9")
    assert (status, out) == (2, "")
    assert "is being trained by this process already" in err


def test_what_the_training_code_prints(capsys: Capture) -> None:
    Path("net.py").write_text(
        "import sys\nfrom torch import nn\nprint('imported')\n\nclass Net(nn.Linear):\n"
        "    def __init__(self, input_shape, output_size):\n        super().__init__(input_shape[0], output_size)\n\n"
        "    def forward(self, x):\n        print('forward')\n        print('aside', file=sys.stderr)\n"
        "        return super().forward(x)\n"
    )
    own = ["train", *QUICK, "--set", "model.name=net.py:Net"]
    status, out, err = called(capsys, *own, "--json")
    assert status == 0
    assert all(from_dict(json.loads(line)) for line in out.splitlines())
    assert err.count("forward\n") == err.count("aside\n") > 8
    log = Run.open("last").output_path.read_text()
    assert log.startswith("imported\n")
    assert log.count("forward\n") == err.count("forward\n")

    status, out, err = called(capsys, *own)
    assert out.count("forward\n") == err.count("aside\n") > 8
    assert "epoch_ended" not in out


def test_a_bug_in_the_training_code_keeps_its_traceback(capsys: Capture) -> None:
    Path("net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Linear):\n    def __init__(self, input_shape, output_size):\n"
        "        super().__init__(input_shape[0], output_size)\n        self.calls = 0\n\n"
        "    def forward(self, x):\n        self.calls += 1\n        if self.calls > 6:\n"
        "            return x @ x  # shapes do not fit\n        return super().forward(x)\n"
    )
    status, out, err = called(capsys, "train", *QUICK, "--set", "model.name=net.py:Net")
    assert status == 1
    assert "Traceback" in err
    assert "return x @ x  # shapes do not fit" in err
    assert "failed    RuntimeError" in out
    assert Run.list("runs")[0].state == "failed"


def test_a_loss_that_is_no_number_fails_the_run_in_one_sentence(capsys: Capture) -> None:
    status, out, err = called(capsys, "train", *QUICK, "--set", "optimizer.name=SGD", "--set", "optimizer.lr=1e30")
    assert status == 1
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert "nan" in err.lower()
    assert "failed  " in out


class Talking:
    """A trainer that says something and is done."""

    run = None

    def __init__(self) -> None:
        from engine.control import Control

        self.control = Control()
        self.listeners: list[Any] = []

    def on(self, kind: type, listener: Any) -> None:
        self.listeners.append((kind, listener))

    def fit(self) -> Any:
        for level in ("info", "warning", "error"):
            event = Message(text=f"{level} words", level=level)
            for kind, listener in self.listeners:
                if isinstance(event, kind):
                    listener(event)
        return type("Result", (), {"state": "finished", "reason": ""})


@pytest.mark.parametrize(("option", "info"), [(None, True), ("--json", True), ("--quiet", False)])
def test_messages_go_to_standard_error(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, option: str | None, info: bool
) -> None:
    monkeypatch.setattr("engine.trainer.Trainer.from_recipe", lambda *_, **__: Talking())
    status, out, err = called(capsys, "train", *([option] if option else []))
    assert status == 0
    assert err.splitlines() == [
        *["epochal: info words"] * info,
        "epochal: warning: warning words",
        "epochal: error: error words",
    ]
    assert len(out.splitlines()) == (3 if option == "--json" else 0)


def test_a_rate_that_the_scheduler_passes_over_is_told(capsys: Capture) -> None:
    scheduler = ["--set", "scheduler.name=OneCycleLR", "--set", "scheduler.max_lr=0.01"]
    assert "makes no difference" not in called(capsys, "train", *QUICK, "--no-run", *scheduler)[2]
    says = called(capsys, "train", *QUICK, "--no-run", *scheduler, "--set", "optimizer.lr=3e-4")[2]
    assert "optimizer.lr = 0.0003 makes no difference: OneCycleLR takes the learning rate from scheduler.max_lr = 0.01" in says
    assert (
        "makes no difference"
        not in called(capsys, "train", *QUICK, "--no-run", *scheduler[:2], "--set", "optimizer.lr=3e-4")[2]
    )
