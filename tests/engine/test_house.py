"""What the house promises of its own structure."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import engine

ROOT = Path(engine.__file__).parents[1]
SCREEN = {"textual", "plotext", "tui"}
HEAVY = {"torch", "numpy", "pandas", "sklearn", "textual", "plotext", "scipy"}


def imported_roots(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted((ROOT / "engine").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_engine_never_imports_the_screen(path: Path) -> None:
    assert not imported_roots(path) & SCREEN


AROUND = {
    "assemble",
    "catalog",
    "cli",
    "export",
    "inference",
    "parts",
    "run",
    "search",
    "sweep",
    "track",
    "trainer",
    "training",
}


class Imported(ast.NodeVisitor):
    """The modules of the engine that a file imports when it is run, also inside functions."""

    def __init__(self, path: Path) -> None:
        self.modules: set[str] = set()
        self.visit(ast.parse(path.read_text(encoding="utf-8")))

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        package, _, module = (node.module or "").partition(".")
        if package == "engine":
            self.modules |= {module.partition(".")[0]} if module else {alias.name for alias in node.names}


def files(folder: str) -> list[Path]:
    return sorted((ROOT / "engine" / folder).glob("*.py"))


@pytest.mark.parametrize("path", [ROOT / "engine" / "loop.py", *files("execution"), *files("parts")], ids=str)
def test_the_loop_its_execution_and_its_parts_know_nothing_of_what_stands_around_them(path: Path) -> None:
    assert not Imported(path).modules & (AROUND - {"catalog", "parts"} if path.parent.name == "parts" else AROUND)


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import engine",
        "from engine import Recipe, History, Control, Run, EpochEnded, RecipeError; Recipe()",
        "from engine import catalog; catalog.sections({}, light=True)",
        "import tui, tui.__main__",
    ],
)
def test_light_imports_load_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & HEAVY


def test_help_loads_nothing_of_runs_either() -> None:
    silent = "import io, sys; out, sys.stdout = sys.stdout, io.StringIO()"
    code = f"{silent}\nfrom tui.__main__ import main\nmain(['--help'])\nsys.stdout = out"
    assert not loaded_by(code) & (HEAVY | {"psutil", "email"})


def test_every_public_name_is_there() -> None:
    assert all(getattr(engine, name) is not None for name in engine.__all__)


def test_the_loop_stays_readable() -> None:
    lines = (ROOT / "engine" / "loop.py").read_text(encoding="utf-8").splitlines()
    assert sum(1 for line in lines if line.strip() and not line.strip().startswith("#")) <= 300
