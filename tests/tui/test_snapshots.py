"""Every screen as a person reads it, at 80x24 and at 120x40, in `snapshots/`: text, so that a change shows in the diff.

`make snapshots` writes them anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.screen import Screen

from engine.events import Event
from engine.history import History
from engine.run.queue import Job, Part
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, ScriptedFollower, drawn, idle, ready, run_summary, until
from tui import finding
from tui.app import Console
from tui.dry_run import Found
from tui.form import rail
from tui.screens.preview import Preview
from tui.screens.queue import QueueScreen
from tui.widgets.device import DevicePane
from tui.widgets.device_reader import DeviceReader, DeviceReading
from tui.widgets.progress import TitleLine
from tui.writing import Written

HERE = Path(__file__).parent / "snapshots"
WRITE = bool(os.environ.get("EPOCHAL_WRITE_SNAPSHOTS"))
SIZES = ((80, 24), (120, 40))
NAME = "20261122-140312-digits-mlp"
MACHINE = DeviceReading(
    cpu_percent=62.0, process_percent=97.0, process_memory=720 << 20, memory_used=5 << 30, memory_total=16 << 30, cores=8
)


@pytest.fixture(autouse=True)
def _the_same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """One clock, one machine, one zone."""
    now = scripted.START + 71.0
    monkeypatch.setattr(TitleLine.__init__, "__kwdefaults__", {**TitleLine.__init__.__kwdefaults__, "clock": lambda: now})
    monkeypatch.setattr(DeviceReader, "read", lambda reader: MACHINE)
    monkeypatch.setattr(rail, "QUIET_SECONDS", 1e6)  # nothing is measured meanwhile
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EPOCHAL_CONFIG", "config")
    monkeypatch.setattr(ScriptedEngine, "recipe_of", lambda engine, path: {"name": "digits-mlp", **RECIPES.get(path.name, {})})
    for name in ("NO_COLOR", "EPOCHAL_ASCII", "EPOCHAL_THEME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.MonkeyPatch.context() as zone:
        zone.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


Opening = Callable[[Console], Awaitable[object]]
Steps = tuple[tuple[str, tuple[str, ...]], ...]  # the name of each snapshot, and the keys that lead to it


async def form(console: Console) -> None:
    await ready(console)


def run(events: list[Event], *, alive: bool) -> Opening:
    """Opens the console on a run that did this."""

    async def opening(console: Console) -> None:
        engine = console.engine
        assert isinstance(engine, ScriptedEngine)
        engine.followers[NAME] = ScriptedFollower(*events, alive=alive)
        await ready(console)
        console.follow(Path("runs") / NAME)
        await drawn(console)

    return opening


def over(history: History, *, epochs: int, of: int) -> list[Event]:
    """A run of so many epochs that ended as this one did."""
    noise = random.Random(1)
    whole = [event for epoch in range(1, epochs + 1) for event in scripted.epoch_events(epoch, noise)]
    assert history.ended is not None
    return [scripted.started(of), *whole, history.ended]


async def runs(console: Console, *, shown: bool = True) -> None:
    engine = console.engine
    assert isinstance(engine, ScriptedEngine)
    now = {"epoch": 7, "epochs": 20, "seconds": 61.0, "best": {"epoch": 6, "val/loss": 0.412}}
    engine.runs_there = [
        run_summary("20261122-151500-digits-mlp", "running", **now),
        run_summary(NAME, "finished", tag="baseline", differs={"optimizer.lr": 3e-4}),
        run_summary("20261121-140312-iris", "died", best={}, epoch=0, epochs=None),
    ]
    for name in (NAME, "20261122-151500-digits-mlp"):
        engine.followers[name] = ScriptedFollower(*over(scripted.finished_history(), epochs=7, of=7))
    engine.followers["20261121-140312-iris"] = ScriptedFollower(*over(scripted.failed_history(), epochs=1, of=20))
    await ready(console)
    if shown:
        console.action_runs()


class Done(SimpleNamespace):
    """A process that has ended."""

    seconds = 2.0

    def poll(self) -> Any:
        return self.result

    def cancel(self) -> None: ...


async def tried(console: Console) -> None:
    """The form, whose helpers have their answers at once."""
    engine: Any = console.engine
    dry = Found(
        seconds=2.0,
        rows=(("samples", "1,437 training, 360 validation"), ("input", "32 x 64 float32"), ("parameters", "9,610"),
              ("loss", "2.3391; chance is 2.3026"), ("gradient norm", "0.71"), ("a step", "0.31 ms"), ("the run", "0:01")),
        warnings=("the loss of the first batch is far from chance",),
    )  # fmt: skip
    rates = tuple(10 ** (-6 + k / 10) for k in range(60))
    losses = tuple(2.3 - 1.2 / (1 + math.exp(4 - k / 6)) + 3 * max(0, k - 50) ** 2 / 100 for k in range(60))
    suggestions = ((0.012, "steepest descent: where the loss falls most for a growing rate"), (0.03, "a tenth of the lowest"))
    tested = finding.Tested(
        rates=rates, losses=losses, smoothed=losses, ended="the loss diverged at 0.8", suggestions=suggestions
    )
    text = "import torch\nfrom torch import nn\n\ntorch.manual_seed(0)\nmodel = nn.Sequential(nn.Linear(64, 10))\n"
    engine.dry_run = lambda values, axes=(): Done(result=dry)
    engine.find_lr = lambda values: Done(result=tested)
    engine.script = lambda values: Done(result=Written(text))
    engine.saved.save("wide net", {"model": {"name": "mlp", "hidden": [512]}, "optimizer": {"lr": 3e-4}})
    engine.runs_there = [run_summary(NAME, "finished", started=scripted.START)]
    await ready(console)


async def training(console: Console) -> None:
    """A run of this console."""
    engine: Any = console.engine
    engine.events = RUNNING[1:]
    await ready(console)
    console.start({"name": "digits-mlp"})
    await drawn(console)


async def queued(console: Console) -> None:
    """Work for the queue: a sweep under way, one that failed, two that wait."""
    engine: Any = console.engine
    parts = (
        Part(label="lr=0.001", state="finished", run=str((engine.root / NAME).absolute()), how="population of 2"),
        Part(
            label="lr=0.01",
            state="training",
            run=str((engine.root / "20261122-151500-digits-mlp").absolute()),
            how="population of 2",
        ),
    )
    queue = engine.queue
    queue.add(
        [
            Job(name="iris"),
            Job(name="digits-mlp", axes=("optimizer.lr=0.001,0.01",)),
            Job(name="wine", recipe=WINE),
            Job(name="cnn"),
        ]
    )
    queue.claim(1)
    queue.conclude(1, "failed", "data.path is missing")
    queue.claim(2)
    queue.update(2, lambda job: replace(job, parts=parts))
    for number in range(1, 5):
        queue.update(number, lambda job: replace(job, directory="/home/me/digits"))
    await runs(console, shown=False)
    console.action_queue()
    await until(lambda: isinstance(console.screen, QueueScreen) and len(console.screen._drawn[1]) >= 4)


WINE = 'name = "wine"\n[data]\nname = "wine"\nbatch_size = 48\n[training]\nepochs = 30\n'
WAITING = ("nothing to draw yet", "of its own …", "growing rate …", "know their shapes …")  # for what comes in a moment
RECIPES = {
    NAME: {"optimizer": {"name": "Adam", "lr": 3e-4}, "training": {"epochs": 20}},
    "20261121-140312-iris": {"data": {"name": "iris"}, "optimizer": {"name": "SGD", "lr": 0.1}, "training": {"epochs": 20}},
}
RUNNING = [scripted.started(20), *scripted.running_history_events(7), scripted.sampled()]
STORIES: dict[str, tuple[Opening, Steps]] = {
    "form": (
        form,
        (
            ("form", ()),
            ("form-help", ("question_mark",)),
            ("form-filter", ("escape", "slash", "e", "p", "o")),
            ("form-wrong", ("escape", *["tab"] * 9, "q", "u", "i", "c", "k", "tab")),
            ("form-choices", ("shift+tab", "shift+tab", "enter")),
            ("form-palette", ("escape", "escape", "colon", "d", "r", "y")),
            ("form-colours", ("escape", "T")),
            ("form-welcome", ("escape", "i")),
        ),
    ),
    "tried": (
        tried,
        (
            ("form-dry-run", ("P",)),
            ("form-finder", ("escape", "L")),
            ("form-script", ("escape", "Y")),
            ("form-recipes", ("escape", "o")),
            ("form-save", ("escape", "w")),
            ("form-sweep", ("escape", "slash", "l", "r", "enter", *"1e-4,3e-4,1e-3", "escape", "escape")),
        ),
    ),
    "training": (training, (("quit", ("q",)), ("tour", ("escape", "i")), ("copy", ("escape", "escape", "escape", "k")))),
    "queue": (queued, (("queue", ("down",)), ("queue-waits", ("down",)), ("queue-help", ("question_mark",)))),
    "running": (
        run(RUNNING, alive=True),
        (
            ("running", ()),
            ("running-recipe", ("2",)),
            ("running-epochs", ("3",)),
            ("running-device", ("4",)),
            ("running-output", ("5",)),
            ("running-step", ("7",)),
            ("running-layers", ("8",)),
            ("running-cursor", ("7", "1", "left", "left")),
            ("running-zoomed", ("z", "y")),
            ("running-edit", ("e",)),
            ("running-verdict", ("escape", "exclamation_mark")),
            ("running-help", ("escape", "question_mark")),
        ),
    ),
    "finished": (
        run(over(scripted.finished_history(), epochs=7, of=7), alive=False),
        (("finished", ()), ("finished-summary", ("6",))),
    ),
    "failed": (run(over(scripted.failed_history(), epochs=3, of=20), alive=False), (("failed-summary", ("6",)),)),
    "runs": (
        runs,
        (
            ("runs", ()),
            ("runs-tag", ("g",)),
            ("runs-delete", ("escape", "down", "D")),
            ("runs-compare", ("escape", "space", "space", "c")),
            ("runs-overlay", ("escape", "escape", "up", "up", "space", "down", "space", "v")),
            ("runs-filter", ("escape", "escape", "slash", "i", "r", "i", "s")),
        ),
    ),
    "no-runs": (form, (("runs-empty", ("a",)),)),
}


def in_sight(console: Console) -> Iterator[Screen[Any]]:
    """The screen, and those that are seen under it."""
    for screen in reversed(console.screen_stack):
        yield screen
        if not screen.is_modal:
            return


async def settled(console: Console) -> None:
    """Wait until the screen has stopped changing, and the machine has been read."""
    panes = [pane for screen in console.screen_stack for pane in screen.query(DevicePane)]  # also under a dialog
    await until(lambda: all(pane._drawn is not None for pane in panes if pane.is_on_screen))
    previews = [preview for screen in in_sight(console) for preview in screen.query(Preview) if preview.display]
    await until(lambda: all(preview.settled for preview in previews))
    await until(lambda: not any(text in scripted.screen_text(console) for text in WAITING))
    last, now = "", "?"
    while now != last:
        await asyncio.sleep(0.03)
        await idle()
        last, now = now, scripted.screen_text(console)


async def compare(console: Console, path: Path) -> None:
    """With the file; what a busy machine has not drawn yet is waited for."""
    if WRITE:
        path.write_text("\n".join(scripted.screen_lines(console)) + "\n", encoding="utf-8")
    assert path.exists(), f"there is no {path.name}: make snapshots"
    expected = path.read_text(encoding="utf-8").split("\n")[:-1]
    with contextlib.suppress(AssertionError):
        await until(lambda: scripted.screen_lines(console) == expected, 60.0)
    assert scripted.screen_lines(console) == expected, f"{path.name}: if that is wanted, make snapshots"


@pytest.mark.parametrize("story", STORIES)
async def test_each_screen_is_as_it_was_seen_last(story: str, console: Console):
    """Each at both sizes, by a change of the terminal's size."""
    opening, steps = STORIES[story]
    sizes = SIZES
    async with console.run_test(size=SIZES[0]) as pilot:
        await opening(console)
        await settled(console)
        for name, keys in steps:
            for key in keys:
                await pilot.press(key)
            await pilot.pause()
            console.clear_notifications()
            for size in sizes:
                if console.size != size:
                    await pilot.resize_terminal(*size)
                await settled(console)
                await compare(console, path_of(name, size))
            sizes = sizes[::-1]


def path_of(name: str, size: tuple[int, int]) -> Path:
    return HERE / f"{name}-{size[0]}x{size[1]}.txt"


def test_no_snapshot_is_of_a_screen_that_is_gone():
    names = [name for _, steps in STORIES.values() for name, _ in steps]
    assert set(HERE.iterdir()) == {path_of(name, size) for name in names for size in SIZES}
