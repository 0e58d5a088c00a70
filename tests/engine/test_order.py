"""`epochal rename`, `delete` and `diff`, as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Recipe, Trainer
from engine.cli import main
from engine.run import Run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, lr in (("one", 1e-3), ("two", 2e-3)):
        small = {"training.epochs": 1, "training.threads": 1, "model.hidden": [2], "name": name, "optimizer.lr": lr}
        Trainer.from_recipe(Recipe().replace(**small), runs=tmp_path).fit()
    return tmp_path


def names(root: Path) -> list[str]:
    return sorted(run.name.partition("-")[2].partition("-")[2] for run in Run.list(root))


def test_rename_diff_and_delete(runs: Path, capsys: pytest.CaptureFixture[str]):
    where = ["--runs", str(runs)]
    assert main(["rename", "one", "first", *where]) == 0 and names(runs) == ["first", "two"]
    assert main(["rename", "two", "first/x", *where]) == 2
    capsys.readouterr()
    assert main(["diff", "first", "two", *where]) == 1
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {line[0]: line[1:] for line in lines[1:]} == {"name": ["one", "two"], "optimizer.lr": ["0.001", "0.002"]}
    assert main(["diff", "first", *where]) == 1
    assert "model.hidden" in capsys.readouterr().out
    assert main(["diff", "first", "first", *where]) == 0
    assert main(["delete", "first", *where]) == 2, "nobody could answer"
    assert "--yes" in capsys.readouterr().err and names(runs) == ["first", "two"]
    assert main(["delete", "first", "two", "first", "--yes", *where]) == 0 and names(runs) == []


@pytest.mark.parametrize(("answer", "left"), [("y", []), ("", ["one"]), ("no", ["one"])])
def test_delete_asks(runs: Path, monkeypatch: pytest.MonkeyPatch, answer: str, left: list[str]):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert main(["delete", "two", "--yes", "--runs", str(runs)]) == 0
    assert main(["delete", "one", "--runs", str(runs)]) == (1 if left else 0) and names(runs) == left
