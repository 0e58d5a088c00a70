"""The examples: each is copied and trained by the command that it prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from engine import EpochalError, Run
from engine.catalog import problems
from engine.cli import main
from engine.examples import Example, examples, find_example

NAMES = [example.name for example in examples()]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_copied_and_trained_by_its_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["examples", name, "a copy"]) == 0
    *_, go = capsys.readouterr().out.splitlines()
    directory, _, command = go.partition(" && ")
    program, *arguments = shlex.split(command)
    assert directory == "cd 'a copy'" and program == "epochal"
    monkeypatch.chdir(tmp_path / "a copy")
    short = ["--epochs", "1"] if name == "sweep" else ["--set", "training.max_steps=2"]
    assert main([*arguments, *short, "--set", "training.execution=eager", "--quiet"]) == 0
    runs = Run.list("runs")
    assert {run.state for run in runs} == {"finished"}
    assert len(runs) == (14 if name == "sweep" else 1)
    assert all(Run.open(run.path).recipe_path.is_file() for run in runs)


@pytest.mark.parametrize("example", examples(), ids=NAMES)
def test_its_values_are_a_recipe_wherever_they_are_used(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not problems(example.values())
    assert example.files[0] == example.recipe and example.values()["name"] == example.name
    assert example.about and "\n" not in example.about and example.command.startswith("epochal ")


def test_they_are_listed_in_words_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == NAMES and max(map(len, lines)) <= 110
    assert main(["examples", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == NAMES


def test_a_copy_never_writes_over_anything(tmp_path: Path) -> None:
    mine = tmp_path / "rings.py"
    mine.write_text("mine")
    with pytest.raises(EpochalError, match=r"rings\.py is there already: name another directory"):
        find_example("own-code").copy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rings.py"] and mine.read_text() == "mine"


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples", "txt"]) == 2
    assert "'txt' is no example; there are regression, table, " in (said := capsys.readouterr().err)
    assert said.endswith("; the nearest is 'text'\n")
