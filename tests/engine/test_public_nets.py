"""Nets as PyTorch's public examples have them, in files as a person has them, train by name with no edit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli import main

ROOT = Path(__file__).parents[2]
Epochal = Callable[..., tuple[int, str, str]]

MNIST = """
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = self.conv1(x)
        x = F.relu(x)
        x = self.conv2(x)
        x = F.relu(x)
        x = F.max_pool2d(x, 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = self.fc1(x)
        x = F.relu(x)
        x = self.dropout2(x)
        x = self.fc2(x)
        output = F.log_softmax(x, dim=1)
        return output


def main():
    raise SystemExit("the example's own training, which must not run")


if __name__ == '__main__':
    main()
"""

BLITZ = """
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1) # flatten all dimensions except batch
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x
"""

LOGISTIC = """
import math

import torch
from torch import nn


class Mnist_Logistic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(784, 10) / math.sqrt(784))
        self.bias = nn.Parameter(torch.zeros(10))

    def forward(self, xb):
        return xb @ self.weights + self.bias
"""

LOAD = """
import torch


def load():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, {shape}, generator=generator), torch.arange(40) % 10
"""

NETS = [  # the file, its class, a sample's shape, the example's own loss and optimizer
    (MNIST, "Net", "1, 28, 28", "NLLLoss", 'name = "Adadelta"\nlr = 1.0', 1_199_882),
    (BLITZ, "Net", "3, 32, 32", "CrossEntropyLoss", 'name = "SGD"\nlr = 0.001\nmomentum = 0.9', 62_006),
    (LOGISTIC, "Mnist_Logistic", "784", "CrossEntropyLoss", 'name = "SGD"\nlr = 0.5', 7_850),
]


def write(place: Path, net: str, name: str, shape: str, loss: str, optimizer: str) -> None:
    (place / "net.py").write_text(net)
    (place / "mine.py").write_text(LOAD.format(shape=shape))
    recipe = f"""
        [data]
        name = "mine.py:load"
        batch_size = 16
        [model]
        name = "net.py:{name}"
        [loss]
        name = "{loss}"
        [training]
        epochs = 1
        device = "cpu"
        [optimizer]
    """
    (place / "recipe.toml").write_text(textwrap.dedent(recipe) + optimizer + "\n")


@pytest.fixture
def epochal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit status, standard output and standard error."""

    def call(place: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(place)
        monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
        status = main(list(arguments))
        return status, *capsys.readouterr()

    return call


@pytest.mark.parametrize(("net", "name", "shape", "loss", "optimizer", "parameters"), NETS, ids=["mnist", "blitz", "logistic"])
def test_it_trains_unmodified(
    net: str, name: str, shape: str, loss: str, optimizer: str, parameters: int, tmp_path: Path, epochal: Epochal
) -> None:
    write(tmp_path, net, name, shape, loss, optimizer)
    status, out, err = epochal(tmp_path, "train", "recipe.toml")
    assert (status, err) == (0, "")
    assert "finished" in out and f"{parameters:,} parameters" in out
    assert (tmp_path / "net.py").read_text() == net
    assert len(list(tmp_path.glob("runs/*/checkpoints/last"))) == 1


def test_it_trains_from_a_shell(tmp_path: Path) -> None:
    write(tmp_path, *NETS[2][:5])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tui", "train", "recipe.toml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finished" in done.stdout


def test_a_mistake_in_the_users_code_shows_their_traceback_and_line(tmp_path: Path, epochal: Epochal) -> None:
    broken = BLITZ.replace("x = self.fc3(x)", "x = self.fc4(x)")
    write(tmp_path, broken, *NETS[1][1:5])
    status, _, err = epochal(tmp_path, "train", "recipe.toml")
    line = next(number for number, text in enumerate(broken.splitlines(), 1) if "self.fc4" in text)
    assert status == 1
    assert f'net.py", line {line}, in forward' in err
    assert "x = self.fc4(x)" in err
    assert "AttributeError: 'Net' object has no attribute 'fc4'" in err
    assert not (tmp_path / "runs").exists()  # found before anything was written


def test_a_mistake_in_the_users_data_shows_their_traceback_and_line(tmp_path: Path, epochal: Epochal) -> None:
    write(tmp_path, *NETS[2][:5])
    (tmp_path / "mine.py").write_text("def load():\n    numbers = []\n    return numbers[3]\n")
    status, _, err = epochal(tmp_path, "check", "recipe.toml")
    assert status == 1
    assert 'mine.py", line 3, in load' in err and "IndexError: list index out of range" in err


SPY = """
import os
import pathlib

pathlib.Path(os.environ["SPY"]).open("a").write(f"{__file__}\\n")
"""


def test_code_is_only_run_from_files_that_the_recipe_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochal: Epochal
) -> None:
    place, ran = tmp_path / "place", tmp_path / "ran.txt"
    place.mkdir()
    write(place, SPY + LOGISTIC, *NETS[2][1:5])
    (place / "mine.py").write_text(SPY + LOAD.format(shape="784"))
    for other in ("model.py", "data.py", "conftest.py", "sitecustomize.py", "recipe.py", "train.py", "__init__.py"):
        (place / other).write_text(SPY)
    (place / "runs").mkdir()
    (place / "runs" / "old.py").write_text(SPY)
    monkeypatch.setenv("SPY", str(ran))

    status, out, err = epochal(place, "check", "recipe.toml")
    assert status == 0, err
    listed = [row.split()[-1] for row in out.splitlines() if row.startswith("own code")]
    assert sorted(listed) == ["mine.py:load", "net.py:Mnist_Logistic"]
    assert sorted(Path(line).name for line in ran.read_text().splitlines()) == ["mine.py", "net.py"]

    assert epochal(place, "train", "recipe.toml")[0] == 0
    assert {Path(line).name for line in ran.read_text().splitlines()} == {"mine.py", "net.py"}

    ran.unlink()
    assert epochal(place, "train", "--no-run", "--epochs", "1", "--set", "data.name=iris")[0] == 0
    assert not ran.exists()
