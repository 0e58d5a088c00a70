"""The dialog that writes a run's model to a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from textual.widgets import Input

from tests.tui.conftest import ScriptedEngine, ready, until
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.screens.export import ExportScreen

SCRIPT = """
import pathlib, sys
run, file, _, format, *force = sys.argv[1:]
if pathlib.Path(file).exists() and force != ["--force"]:
    sys.exit(print(f"epochal: {file} is there already: name another file, or say --force", file=sys.stderr) or 2)
pathlib.Path(file).write_text(format)
print(f"{file} is written: {pathlib.Path(run).name}, checked")
"""


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Console:
    monkeypatch.chdir(tmp_path)
    engine = ScriptedEngine()
    monkeypatch.setattr(engine, "export_command", (sys.executable, "-c", SCRIPT))
    return Console(engine, {})


async def test_a_format_and_a_name_are_chosen_and_what_is_there_is_replaced_only_on_purpose(console: Console) -> None:
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.push_screen(ExportScreen(console.engine, Path("runs/20261122-140312-digits-mlp")))
        await until(lambda: isinstance(console.screen, ExportScreen) and ".safetensors" in screen_text(console))
        await pilot.press("down")
        await until(lambda: ".onnx" in screen_text(console))
        await pilot.press("enter")
        written = Path("20261122-140312-digits-mlp.onnx")
        await until(lambda: "is written:" in screen_text(console))
        assert written.read_text() == "onnx"
        written.write_text("of before")
        await pilot.press("enter")
        await until(lambda: "replaces it" in screen_text(console))
        assert written.read_text() == "of before"
        await pilot.press("enter")
        await until(lambda: "is written:" in screen_text(console))
        assert written.read_text() == "onnx"
        await pilot.press("tab")
        console.screen.query_one(Input).value = "mine.onnx"
        await pilot.press("enter")
        await until(lambda: Path("mine.onnx").exists() and Path("mine.onnx").read_text() == "onnx")
        await pilot.press("escape")
        await until(lambda: not isinstance(console.screen, ExportScreen))


@pytest.mark.parametrize(
    "file, sentence",
    [
        ("", "the file needs a name"),
        ("gone/a.safetensors", "there is no folder gone"),
        ("a.bin", "a.bin has to end in .safetensors"),
    ],
)
async def test_a_name_that_will_not_do_is_told_at_once(console: Console, file: str, sentence: str) -> None:
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        console.push_screen(ExportScreen(console.engine, Path("runs/20261122-140312-digits-mlp")))
        await until(lambda: isinstance(console.screen, ExportScreen) and ".safetensors" in screen_text(console))
        await pilot.press("tab")
        console.screen.query_one(Input).value = file
        await pilot.press("enter")
        await until(lambda: sentence in screen_text(console))
        assert not list(Path().iterdir()), "nothing was begun"
