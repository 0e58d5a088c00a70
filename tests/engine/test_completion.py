"""Completion: the words that fit, and the shells that ask for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine import Run
from engine.cli import main
from engine.cli.completion import complete
from engine.cli.parser import make_parser

REPOSITORY = Path(__file__).parents[2]


def words(line: str, current: str = "") -> list[str]:
    return [word for word, _ in complete([*line.split(), current])]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe and two runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    (tmp_path / "my recipe.toml").write_text("[data]\nname = 'iris'\n[optimizer]\nname = 'SGD'\n")
    (tmp_path / "my.py").write_text("")
    for root, name in (("runs", "one"), ("other", "two")):
        Run.create(tmp_path / root, name)
    return tmp_path


def test_every_command_and_every_option_of_each_is_offered() -> None:
    (commands,) = (action for action in make_parser("epochal")._actions if hasattr(action, "choices") and action.choices)
    assert commands.choices is not None and set(commands.choices) <= set(words("epochal"))  # type: ignore[arg-type]
    for name, parser in commands.choices.items():  # type: ignore[union-attr]
        options = {o for line in parser.format_help().split() if (o := line.strip("[],=.;:()")).startswith("--")}
        assert {option for option in options if option in parser._option_string_actions} <= set(words(f"epochal {name}", "-"))


def test_words_follow_from_those_before(here: Path) -> None:
    assert words("epochal", "tra") == ["train"]
    assert words("epochal queue", "ret") == ["retry"] and "--first" in words("epochal queue add", "--")
    assert "--json" not in words("epochal train --json", "--") and "--set" in words("epochal train --set seed=1", "--")
    assert words("epochal train", "my") == ["my recipe.toml"] and words("epochal predict last", "my") == [
        "my recipe.toml",
        "my.py",
    ]
    assert words("epochal train --runs", "r") == ["runs/"]
    (here / "my.csv").write_text("")
    assert words("epochal train --data", "my") == ["my.csv"] and "digits" in words("epochal train --data", "d")
    assert words("epochal catalog", "o") == ["optimizer"] and "AdamW" in words("epochal catalog optimizer", "Adam")
    assert words("epochal examples", "te") == ["text"] and words("epochal runs --sort", "b") == ["best"]
    assert words("epochal nothing of that") == [] and words("epochal train --nothing", "zzz") == []


def test_runs_of_the_directory_that_is_meant(here: Path) -> None:
    assert [word for word in words("epochal show") if word.endswith("-one")] and "last" in words("epochal show")
    assert words("epochal delete last")[0].endswith("-one") and "last" not in words("epochal delete last")
    for line in ("epochal show --runs other", "epochal show --runs=other"):
        (name, last) = words(line)
        assert name.endswith("-two") and last == "last"
    assert not words("epochal resume --runs nowhere")


def test_fields_and_their_values(here: Path) -> None:
    assert words("epochal train --set", "training.prec") == ["training.precision="]
    assert "bf16" in [word.partition("=")[2] for word in words("epochal train --set", "training.precision=")]
    assert words("epochal train --set", "training.deterministic=") == [
        "training.deterministic=true",
        "training.deterministic=false",
    ]
    assert words("epochal train --set", "mod") == ["model."]
    assert "optimizer.betas=" in words("epochal train --set", "optimizer.")  # of Adam
    complete_line = ["epochal", "train", "my recipe.toml", "--set", "optimizer.mo"]
    assert [word for word, _ in complete(complete_line)] == ["optimizer.momentum="]
    assert words("epochal train --set optimizer.name=SGD --set", "optimizer.nest") == ["optimizer.nesterov="]
    assert words("epochal train", "--set=model.name=ml") == ["--set=model.name=mlp"]
    assert words("epochal sweep", "optimizer.l") == ["optimizer.lr="] and "mlp" in words("epochal train --model", "m")
    assert "training.patience=" in words("epochal set last", "training.")


def test_a_shell_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert capsys.readouterr().err == "epochal: 'bsh' is no shell of bash, zsh, fish; the nearest is 'bash'\n"


@pytest.fixture
def program(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`epochal` on the path."""
    program = here / "bin" / "epochal"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tui "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


def asked(shell: str, code: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} is installed")
    options = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}[shell]
    done = subprocess.run([shell, *options, code], capture_output=True, text=True, timeout=180, check=True)
    assert not done.stderr
    return done.stdout.splitlines()


def test_in_bash(program: Path) -> None:
    code = """eval "$(epochal completion bash)"
    ask() { COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=($1); _epochal; printf '%s\\n' "${COMPREPLY[@]}"; }
    ask 'epochal tra'; ask 'epochal train my'; ask 'epochal train --set training.exec'
    ask 'epochal train --set training.execution=e'
    ask 'epochal train --set loss.name="x'; complete -p epochal"""
    *answers, registered = asked("bash", code)
    assert answers == ["train", "my\\ recipe.toml", "training.execution=", "eager", ""]
    assert "-F _epochal epochal" in registered


def test_in_zsh(program: Path) -> None:
    code = """compdef() { echo "registered $*" }; eval "$(epochal completion zsh)"; _files() { echo files }
    compadd() { echo "${@[-1]}: ${(P)@[-1]}" }
    ask() { words=("$@"); CURRENT=$#words; _epochal }
    ask epochal tra; ask epochal train --set training.exec; ask epochal train 'my\\ r'; ask epochal tag one xyz"""
    answers = asked("zsh", code)
    assert answers == [
        "registered _epochal epochal",
        "whole: train",
        "open: training.execution=",
        "whole: my recipe.toml",
        "files",
    ]


def test_in_fish(program: Path) -> None:
    code = """epochal completion fish | source
    complete -C 'epochal tra'; complete -C 'epochal train --set training.exec'; complete -C 'epochal pl'"""
    answers = asked("fish", code)
    assert answers[0] == "train\ttrain a recipe" and answers[1].startswith("training.execution=\t")
    assert answers[2] == "plot\tdraw the chart of runs as text"
