"""The first frame of the form: drawn before the widgets that edit the fields, and the same to the eye."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from engine.recipe import Recipe
from tests.tui.conftest import until
from tests.tui.scripted import screen_lines
from tui.app import Console
from tui.door import Engine
from tui.form.rows import Group
from tui.form.sketch import Sketch
from tui.screens.form import FormScreen

RECIPES = {
    "default": Recipe().to_dict(complete=False),
    "another": {
        "name": "mine",
        "data": {"name": "csv", "batch_size": 7},
        "model": {"name": "my.py:Net"},
        "scheduler": {"name": "StepLR"},
        "training": {"epochs": 3, "precision": "bf16"},
    },
}


class WithoutTorch(Engine):
    """The real engine, which never gets its torch."""

    def __init__(self, over: threading.Event) -> None:
        super().__init__()
        self.over = over

    def load(self) -> None:
        self.over.wait()


@pytest.fixture
def over() -> Iterator[threading.Event]:
    """Set when the test is."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
@pytest.mark.parametrize("recipe", RECIPES)
async def test_it_looks_as_what_takes_its_place(
    recipe: str, size: tuple[int, int], over: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    screens = []
    for kind in (Sketch, Group):
        engine = WithoutTorch(over)
        with monkeypatch.context() as patch:
            if kind is Sketch:

                async def nothing(screen: FormScreen) -> None: ...

                patch.setattr(FormScreen, "_begin", nothing)
            console = Console(engine, RECIPES[recipe], source="recipe.toml" if recipe == "another" else "")
            async with console.run_test(size=size) as pilot:
                await until(
                    lambda console=console, kind=kind: {type(part) for part in console.screen.query("Sketch, Group")} == {kind}
                )
                await pilot.pause()
                screens.append([line.rstrip("▁▂▃▄▅▆▇█ ") for line in screen_lines(console)])  # without the scroll bar
    for sketched, real in zip(*screens, strict=True):
        assert sketched == real


async def test_a_key_that_comes_before_the_fields_waits_for_them(over: threading.Event, monkeypatch: pytest.MonkeyPatch):
    engine, keys = WithoutTorch(over), []
    began = FormScreen._begin

    async def begin(screen: FormScreen) -> None:
        if not keys:
            keys.append("tab")
            screen.app.simulate_key("tab")
        await began(screen)

    monkeypatch.setattr(FormScreen, "_begin", begin)
    console = Console(engine, RECIPES["default"])
    async with console.run_test(size=(80, 24)) as pilot:
        await until(lambda: console.screen.query(Group))
        await until(lambda: console.screen.focused is not None)
        await pilot.pause()
        assert console.form.line("name").has_focus_within


def test_the_first_frame_needs_neither_torch_nor_the_parts_of_the_engine_that_train():
    """What is imported before it: a list that may only become shorter."""
    code = "import sys, tui.__main__, tui.launch, tui.console, tui.app; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy: list[Any] = ["torch", "numpy", "pandas", "sklearn", "plotext", "psutil", "pygments.lexers", "urllib.request",
                        "engine.run.directory", "engine.run.status", "engine.events", "engine.cli", "tui.screens.train",
                        "tui.screens.runs"]  # fmt: skip
    assert not [name for name in heavy if name in loaded]
