"""Help, and what a mistake in the arguments is answered with: one sentence, exit status 2."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.parser import make_parser
from tests.engine.called import QUICK, Capture, called

pytestmark = pytest.mark.usefixtures("in_a_shell")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "nothing.toml"], ["nothing.toml"]),
        (["train", "--set", "optimizer.name=Adm"], ["optimizer.name", "'Adm'", "'Adam'"]),
        (["train", "--set", "optimizer.lrr=1"], ["optimizer.lrr", "'lr'"]),
        (["train", "--set", "optimizer.lr"], ["optimizer.lr", "key=value"]),
        (["train", "--epochs", "many"], ["training.epochs", "'many'"]),
        (["train", "--epochs", "0"], ["training.epochs", "at least 1"]),
        (["train", "--device", "abacus"], ["training.device", "'abacus'", "cpu"]),
        (["train", "--bogus"], ["--bogus"]),
        (["train", "--json", "--quiet"], ["--quiet", "--json"]),
        (["train", "--runs", "x", "--no-run"], ["--no-run", "--runs"]),
        (["train", "--runs", "/dev/null/x", *QUICK], ["/dev/null/x"]),
        (["trian"], ["'trian'", "train"]),
        (["resume", "nowhere"], ["nowhere"]),
        (["resume"], ["no run"]),
        (["resume", "--epochs", "x"], ["--epochs is 'x' and must be a whole number from 1 on"]),
        (["find-lr", "--from", "x"], ["--from is 'x' and must be a number"]),
        (["queue", "move", "1", "up"], ["STEP is 'up' and must be a whole number"]),
        (["sweep", "optimizer.lr"], ["'optimizer.lr' is no field with values", "optimizer.lr=1e-4,1e-3"]),
        (["resume", "--epochs", "0"], ["--epochs", "'0'"]),
        (["check", "nothing.toml"], ["nothing.toml"]),
        (["check", "--set", "model.name=cnn"], ["cnn"]),
        (["catalog", "optimzer"], ["optimzer", "optimizer"]),
        (["tain"], ["no command 'tain'", "'train'"]),
        (["serv"], ["no command 'serv'", "'serve'"]),
        (["train", "--modle", "x"], ["epochal train", "--modle", "'--model'"]),
        (["train", "--modle=x"], ["--modle", "'--model'"]),
        (["export", "--fromat", "onnx"], ["epochal export has no option --fromat", "'--format'"]),
        (["sweep", "--epoch", "3"], ["epochal sweep has no option --epoch", "'--epochs'"]),
        (["pause"], ["epochal pause needs RUN", "epochal pause --help"]),
        (["runs", "--json=x"], ["--json takes no value, and 'x' is given"]),
        (["search", "--show"], ["no search in runs"]),
        (["completion"], ["epochal completion needs bash|zsh|fish"]),
        (["completion", "bsh"], ["'bsh'", "bash, zsh, fish", "'bash'"]),
        (["check", "--trace", "recipe.toml"], ["recipe.toml must end in .json"]),
        (["check", "--trace", "none/trace.json"], ["there is no folder none"]),
        (["queue", "trian"], ["no action 'trian'; there are add, list,"]),
        (["queue", "--json", "clear"], ["--json is for the list of the queue"]),
        (["queue", "ad"], ["no action 'ad'", "'add'"]),
        (["train", "one.toml", "two.toml"], ["'two.toml'", "epochal train --help"]),
        (["train", "tests"], ["is a directory", "tests/recipe.toml"]),
        (["train", "recpe.toml"], ["'recpe.toml'", "'recipe.toml'"]),
        (["train", "my table.csv"], ["is no recipe", "epochal train --data 'my table.csv' --set data.target=COLUMN"]),
        (["check", "--data", "my tabel.csv", "--set", "data.target=y"], ["data.path", "'my table.csv'"]),
        (["check", "--data", "my table.csv", "--set", "data.target=x"], ["data.target", "no column 'x'", "a, y"]),
        (["check", "--data", "none/"], ["data.path = 'none/' does not exist"]),
        (["train", "bare.toml"], ["line 1", 'name = "digits"']),
        (["catalog", "optimizer", "Adm"], ["'Adm'", "'Adam'"]),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_2(capsys: Capture, arguments: list[str], words: list[str]) -> None:
    Path("tests").mkdir()
    for path, text in (
        ("recipe.toml", ""),
        ("tests/recipe.toml", ""),
        ("bare.toml", "name = digits\n"),
        ("my table.csv", "a,y\n1,2\n"),
    ):
        Path(path).write_text(text)
    status, out, err = called(capsys, *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("epochal: ")
    for word in words:
        assert word in err


def test_each_mistake_has_its_line(capsys: Capture) -> None:
    status, out, err = called(capsys, "train", "--set", "optimizer.lr=-1", "--set", "training.patience=0", "--set", "seed=x")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 3
    assert not Path("runs").exists()


def test_no_command_prints_the_help(capsys: Capture) -> None:
    status, out, err = called(capsys)
    assert (status, out) == (2, "")
    assert "catalog" in err


def test_help_and_version(capsys: Capture) -> None:
    assert called(capsys, "--version")[:2] == (0, "epochal 0.1.0\n")
    steering = ["pause", "continue", "checkpoint", "validate", "stop", "set"]
    for command in ([], *([name] for name in ("train", "resume", "attach", *steering, "runs", "check", "catalog"))):
        status, out, err = called(capsys, *command, "--help")
        assert (status, err) == (0, "")
        assert out.startswith(" ".join(["usage: epochal", *command]))


def test_help_is_no_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    parsers, seen = [make_parser("epochal")], 0
    while parsers:
        parser = parsers.pop()
        text = parser.format_help()
        seen += text.startswith(f"usage: {parser.prog} [options]")
        assert max(map(len, text.splitlines())) <= 40, text
        parsers += [made for action in parser._actions if isinstance(action.choices, dict) for made in action.choices.values()]
    assert seen > 30


def test_closed_standard_streams_are_no_bug() -> None:
    command = f"{shlex.quote(sys.executable)} -m engine"
    done = subprocess.run(
        f"{command} delete x --yes <&- >&- 2>&-; echo $?; {command} runs <&- >&-", check=False, shell=True, capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"2\n", b"")
