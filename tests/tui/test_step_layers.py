"""The panes of the step and of the layers, and what the verdict makes of them on the screen."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from engine.events import Sampled
from tests.tui import scripted
from tests.tui.conftest import ScriptedEngine, drawn, ready, until
from tests.tui.scripted import screen_lines, screen_text
from tui.app import Console
from tui.screens.edit import EditScreen
from tui.screens.form import FormScreen
from tui.screens.train import TrainScreen
from tui.screens.verdict import VerdictScreen
from tui.widgets.layers import LayersPane, layer_rows
from tui.widgets.rows import Row, length
from tui.widgets.step import StepPane, step_rows

SECONDS = {"data": 0.31, "forward": 0.22, "loss": 0.01, "backward": 0.34, "step": 0.08, "other": 0.01, "validation": 0.03}
SAMPLE = Sampled(
    step=2731, each=0.97, seconds=SECONDS, whole=False, cost=1e-3,
    layers=("stem", "block.attention", "head"), kinds=("Conv2d", "Linear", "Linear"), sizes=(100, 1000, 10),
    gradient=(1.2e-3, 4.5e-2, 0.6), weight=(1.0, 1.0, 1.0), ratio=(3e-4, 2e-3, 5e-5), silent=(0.0, 0.55, 0.0),
)  # fmt: skip


def texts(rows: list[Row]) -> list[str]:
    return ["".join(text for text, _ in row).rstrip() for row in rows]


def test_bars_are_as_long_as_the_phases() -> None:
    head, *rows = texts(step_rows((SAMPLE,), 78))
    assert head == " a step 970 ms, at 2,731"
    assert [row.split()[0] for row in rows] == ["data", "forward", "loss", "backward", "step", "other", "validation"]
    assert "31%   310 ms  waiting for the next batch" in rows[0] and "the gradients of all weights" in rows[3]
    filled = {row.split()[0]: row.count("█") for row in rows}
    assert filled["backward"] == max(filled.values()) > filled["data"] > filled["forward"] > filled["step"]
    assert not step_rows((), 78)


def test_one_graph_is_said_to_be_one() -> None:
    whole = replace(SAMPLE, whole=True, seconds={"data": 0.1, "step": 0.9})
    rows = texts(step_rows((SAMPLE, whole), 78))
    assert rows[0] == " a step 1 s in one graph, at 2,731" and len(rows) == 3
    assert "90%" in rows[2] and "forward, backward, update: one graph" in rows[2]


def test_a_row_for_each_layer_with_what_is_wrong() -> None:
    head, *rows = texts(layer_rows(SAMPLE, 78))
    assert head.split() == ["layer", "kind", "gradient", "update"]
    assert [re.sub(r"[█▏▎▍▌▋▊▉·]+", "", row).split() for row in rows] == [
        ["stem", "Conv2d", "1.2e-3", "3.0e-4"],
        ["block.attention", "Linear", "4.5e-2", "2.0e-3", "55%", "dead"],
        ["head", "Linear", "6.0e-1", "5.0e-5"],
    ]
    nothing = replace(SAMPLE, gradient=(math.nan, 0.0, math.inf), ratio=(math.nan, math.inf, 0.0), silent=(math.nan,) * 3)
    assert texts(layer_rows(nothing, 78))[1].split()[-4:] == ["–", "–", "no", "gradient"]


@pytest.mark.parametrize("width", [1, 20, 34, 60, 78, 200])
def test_any_width(width: int) -> None:
    assert all(length(row) <= max(width, 55) for row in [*step_rows((SAMPLE,), width), *layer_rows(SAMPLE, width)])


async def begun(console: Console, pilot) -> TrainScreen:
    await ready(console)
    await pilot.press("r")
    return await drawn(console)


async def test_wide_the_step_is_beside_the_epochs_and_8_puts_the_layers_there(console: Console, engine: ScriptedEngine):
    engine.events = [SAMPLE]
    async with console.run_test(size=(120, 40)) as pilot:
        screen = await begun(console, pilot)
        await until(lambda: "7 Step" in screen_text(console) and "backward" in screen_text(console))
        await pilot.press("8")
        await until(lambda: "block.attention" in screen_text(console))
        assert not screen.query_one(StepPane).is_on_screen and screen.focused is screen.query_one(LayersPane)
        await pilot.press("7")
        await until(lambda: screen.query_one(StepPane).is_on_screen)
        engine.finish.set()
        await until(lambda: "6 Summary" in screen_text(console) and not screen.query_one(StepPane).is_on_screen)
        await pilot.press("8")
        await until(lambda: "block.attention" in screen_text(console))


async def test_small_they_are_tabs_and_scroll(console: Console, engine: ScriptedEngine):
    many = [f"layer{i}" for i in range(60)]
    columns = {"gradient": (1.0,) * 60, "weight": (1.0,) * 60, "ratio": (1e-3,) * 60, "silent": (0.0,) * 60}
    engine.events = [replace(SAMPLE, layers=tuple(many), kinds=("Linear",) * 60, sizes=(9,) * 60, **columns)]
    async with console.run_test(size=(80, 24)) as pilot:
        screen = await begun(console, pilot)
        await pilot.press("7")
        await until(lambda: "waiting for the next batch" in screen_text(console))
        assert screen.query_one(StepPane).region.width == 80
        await pilot.press("8")
        await until(lambda: "layer5" in screen_text(console))
        assert "layer59" not in screen_text(console)
        await pilot.press("end")
        await until(lambda: "layer59" in screen_text(console) and " update " in screen_text(console))
        engine.finish.set()
        await until(lambda: "6 Summary" in screen_lines(console)[3])
        assert "8 Layers" in screen_lines(console)[3]


async def test_a_dead_layer_proposes_a_live_change(console: Console, engine: ScriptedEngine):
    engine.events = [replace(SAMPLE, seconds={})] * 3
    async with console.run_test(size=(120, 40)) as pilot:
        await begun(console, pilot)
        await until(lambda: "dead units in block.attention: 55% had no gradient" in screen_text(console))
        await pilot.press("exclamation_mark")
        await until(lambda: isinstance(console.screen, VerdictScreen))
        await pilot.press("enter")
        await until(lambda: isinstance(console.screen, EditScreen))


async def test_waiting_for_data_proposes_a_new_run_with_workers(console: Console, engine: ScriptedEngine):
    waits = scripted.progress(1, 20)
    engine.events = [SAMPLE, replace(waits, waited=0.3, workers=4)]
    async with console.run_test(size=(120, 40)) as pilot:
        await begun(console, pilot)
        await until(lambda: "32% of each step waits for data: try workers 4" in screen_text(console))
        await pilot.press("exclamation_mark")
        await until(lambda: "Proposed: a new run with data.workers = 4" in screen_text(console))
        await pilot.press("enter")
        await until(lambda: isinstance(console.screen, FormScreen))
        assert console.form.model.values["data"]["workers"] == 4


def test_the_ranks_are_shown_and_the_one_that_is_waited_for() -> None:
    from engine.events import RanksMeasured
    from tui.widgets.step import rank_rows

    hosts, memories = ("a",) * 4, (2**30,) * 4
    measured = RanksMeasured(
        step=9, rates=(50.0, 50.0, 20.0, math.nan), waits=(0.6, 0.6, 0.02, 0.5), memories=memories, hosts=hosts
    )
    text = ["".join(part for part, _ in row) for row in rank_rows(measured, 9)]
    assert [line.split()[0] for line in text] == ["rank", "0", "1", "2", "3", "rank"]
    assert text[3].split() == ["2", "20", "2%", "1.00", "GiB"] and "–" in text[4]
    assert text[-1] == " rank 2 is waited for"
    few = ["".join(part for part, _ in row) for row in rank_rows(measured, 2)]
    assert [line.split()[0] for line in few[:-1]] == ["rank", "0", "2"] and few[-1].endswith("2 more")
    alike = RanksMeasured(step=9, rates=(5.0, 5.0), waits=(0.1, 0.12), memories=(0, 0), hosts=("a", "b"))
    assert len(rank_rows(alike, 9)) == 3
