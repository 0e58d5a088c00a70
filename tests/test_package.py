"""What is installed: the wheel holds every file of the program, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import engine

ROOT = Path(__file__).parents[1]
pytest.importorskip("setuptools", minversion="77", reason="setuptools is too old to build with")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Built without isolation, from a copy: setuptools leaves its own traces where it builds."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for package in ("engine", "tui", "tests"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", build, str(copy)], cwd=copy, env=environment, check=True, capture_output=True)
    (built,) = copy.glob("*.whl")
    with zipfile.ZipFile(built) as opened:
        yield opened


def test_it_has_every_file_of_the_program_and_no_other(wheel: zipfile.ZipFile) -> None:
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    sources = {path for package in ("engine", "tui") for path in (ROOT / package).rglob("*") if path.is_file()}
    assert there == {str(path.relative_to(ROOT)) for path in sources if path.parent.name != "__pycache__"}
    assert {"tui/console.tcss", "tui/page.html", "engine/py.typed", "engine/examples/text/sonnets.txt"} <= there


def test_it_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    told = Parser().parsestr(wheel.read(metadata).decode())
    assert (told["Name"], told["Version"], told["Requires-Python"]) == ("epochal", engine.__version__, ">=3.11")
    assert {"serve", "images", "all"} <= set(told.get_all("Provides-Extra", []))
    entries = wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "epochal = tui.__main__:main" in entries
    assert metadata.replace("METADATA", "licenses/LICENSE") in wheel.namelist()
