"""The README's Python runs as it stands there, and what the contributor's page names is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from engine import Recipe
from engine.cli import main
from engine.search.plan import plan_of

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MINE = next(code for code in PYTHON if code.startswith("# my.py"))
THEIRS = [code for code in PYTHON if code.startswith(("# lightning", "# transformers"))]  # see test_own_loop_theirs.py


@pytest.mark.parametrize(
    "code", [code for code in PYTHON if code is not MINE and code not in THEIRS], ids=lambda code: code.split("\n")[0]
)
def test_the_python_of_the_readme_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_ones_own_model_and_data_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(MINE, encoding="utf-8")
    settings = ["--set", "model.name=my.py:Net", "--set", "data.name=my.py:load", "--set", "training.epochs=2"]
    assert main(["train", *settings]) == 0


def test_the_recipe_of_the_readme_is_valid() -> None:
    text = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert text is not None
    recipe = Recipe.from_dict(tomllib.loads(text[1]))
    assert recipe.scheduler is not None and recipe.scheduler.name == "OneCycleLR"


def test_the_search_of_the_readme_is_valid() -> None:
    text = next(text for text in re.findall(r"```toml\n(.*?)```", README, re.DOTALL) if text.startswith("[search]"))
    assert plan_of(tomllib.loads(text)).workers == 2


def test_the_contributors_page_names_what_is_there() -> None:
    root = Path(__file__).parents[1]
    page = (root / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:engine|tui|tests|\.github)/[\w./-]*)`", page)
    assert named and not [path for path in named if not (root / path).exists()]
    house = page.partition("## The house")[2].partition("```\n")[2].partition("```")[0]
    folder = ""
    for line in house.splitlines():
        paths = re.match(r" *([\w./]+)(?:  ([\w./]+))?", line)
        assert paths is not None
        folder = "" if not line.startswith(" ") else folder
        assert all((root / (folder + path)).exists() for path in paths.groups() if path)
        folder = folder or paths[1]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    assert not [goal for goal in re.findall(r"make ([a-z-]+)", page) if f"\n{goal}:" not in makefile]
