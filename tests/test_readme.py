"""The Python of the README and its guides runs as it stands there, and what they link to and name is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from engine import Recipe
from engine.cli import main
from engine.search.plan import plan_of

ROOT = Path(__file__).parents[1]
PAGES = {page: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md")))}
PYTHON = list(dict.fromkeys(code for text in PAGES.values() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)))
TOML = [text for page in PAGES.values() for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
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


@pytest.mark.parametrize("text", TOML, ids=lambda text: text.split("\n")[0])
def test_the_recipes_are_valid(text: str) -> None:
    values = tomllib.loads(text)
    if "search" in values:
        assert plan_of(values).workers == 2
    recipe = Recipe.from_dict(values)
    given = [(section, key) for section, table in values.items() if isinstance(table, dict) for key in table]
    assert not [each for each in given if each[0] != "search" and each[1] not in recipe.to_dict()[each[0]]]


def test_every_link_leads_somewhere() -> None:
    """To a page or picture that is there, and to a heading that it has."""
    broken = []
    for page, text in PAGES.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
            path, _, heading = link.partition("#")
            to = (page.parent / path).resolve() if path else page
            heads = (
                re.findall(r"^#+ (.*)$", to.read_text(encoding="utf-8"), re.MULTILINE)
                if to.suffix == ".md" and to.exists()
                else []
            )
            slugs = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
            if not to.exists() or (heading and heading not in slugs):
                broken.append((page.name, link))
    assert not broken


def test_the_contributors_page_names_what_is_there() -> None:
    root = ROOT
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
