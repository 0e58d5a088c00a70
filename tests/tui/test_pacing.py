"""How often the screen is drawn, and how much of it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from textual import events
from textual._compositor import Compositor
from textual.css import stylesheet
from textual.screen import Screen

from tests.tui.conftest import FRAME, ScriptedEngine, ready
from tests.tui.test_app import WIDE, training
from tui.app import Console
from tui.pacing import FAST, SLOW, pace
from tui.widgets.rows import Row, changed


@pytest.mark.parametrize(
    ("link", "environment", "expected"),
    [
        ("auto", {}, FAST),
        ("auto", {"SSH_CONNECTION": "192.0.2.1 5 192.0.2.2 22"}, SLOW),
        ("fast", {"SSH_CONNECTION": "192.0.2.1 5 192.0.2.2 22"}, FAST),
        ("slow", {}, SLOW),
        ("slow", {"EPOCHAL_LINK": "fast"}, FAST),
        ("fast", {"EPOCHAL_LINK": "auto", "SSH_CONNECTION": "192.0.2.1 5 192.0.2.2 22"}, SLOW),
    ],
)
def test_a_link_is_slow_over_ssh_or_as_it_was_said(link: str, environment: dict[str, str], expected: object):
    assert pace(link, environment) == (expected, "")


def test_a_link_that_is_none_is_one_sentence():
    found, said = pace("auto", {"EPOCHAL_LINK": "slwo"})
    assert found is FAST and said == "EPOCHAL_LINK is 'slwo' and must be one of auto, fast, slow; the nearest is 'slow'"


@pytest.mark.parametrize("speed", [FAST, SLOW])
def test_the_wait_pays_for_time_and_bytes(speed):
    assert speed.after(0.0, 0) == speed.least
    assert speed.after(0.0, int(2 * speed.least * speed.bytes_per_second)) == pytest.approx(2 * speed.least)
    assert speed.after(10.0, 0) == speed.after(0.0, 10**9) == speed.most


async def test_a_console_over_ssh_goes_slowly(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 5 192.0.2.2 22")
    console = Console(engine, {"name": "digits-mlp"})
    async with console.run_test():
        await ready(console)
        assert console.pace is SLOW


@pytest.mark.parametrize("key", ["q", "question_mark", "k"])
async def test_under_a_dialog_nothing_is_painted_when_nothing_is_new(console: Console, monkeypatch, key: str):
    painted: list[Compositor] = []
    paint = Compositor.render_update
    monkeypatch.setattr(Compositor, "render_update", lambda self, **how: (painted.append(self), paint(self, **how))[1])

    async with console.run_test(size=WIDE) as pilot:
        await training(console, pilot)
        await pilot.press(key)
        assert len(console.screen_stack) > 2
        async with asyncio.timeout(60):
            await still(painted)


async def test_the_styles_are_parsed_once(console: Console, monkeypatch: pytest.MonkeyPatch):
    parsed: list[str] = []
    parse = stylesheet.parse
    monkeypatch.setattr(
        stylesheet, "parse", lambda scope, css, at, *more, **how: (parsed.append(at[0]), parse(scope, css, at, *more, **how))[1]
    )
    async with console.run_test(size=WIDE):
        await ready(console)
    assert [Path(path).name for path in parsed].count("console.tcss") == 1


async def test_a_screen_is_laid_out_for_another_size_alone_and_painted_as_it_is(
    console: Console, monkeypatch: pytest.MonkeyPatch
):
    done: list[str] = []
    for name in ("reflow", "render_full_update"):
        act = getattr(Compositor, name)
        monkeypatch.setattr(
            Compositor, name, lambda *given, act=act, name=name, **how: (done.append(name), act(*given, **how))[1]
        )

    async def does(act: Callable[[Screen[None]], object]) -> list[str]:
        await still(done)
        done.clear()
        act(console.screen)
        await still(done)
        return done

    async with console.run_test(size=WIDE), asyncio.timeout(60):
        await ready(console)
        while (await does(lambda screen: screen.post_message(events.Resize(screen.size, screen.size)))).count("reflow") > 1:
            pass  # its title is drawn anew; and something else came in between
        while await does(lambda screen: screen.refresh(layout=True)) != ["reflow", "render_full_update"]:
            pass


async def still(done: Sequence[object]) -> None:
    """Wait for a time in which nothing is done."""
    before = -1
    while before != len(done):
        before = len(done)
        await asyncio.sleep(8 * FRAME)


@pytest.mark.parametrize(
    ("old", "new", "span"),
    [
        ([("epoch 7", "")], [("epoch 8", "")], (6, 7)),
        ([("a", "label"), ("12", "strong")], [("a", "label"), ("19", "strong")], (2, 3)),
        ([("abc", "good")], [("abc", "bad")], (0, 3)),
        ([("abc", "")], [("abcd", "")], (3, 4)),
        ([("x", ""), ("middle", "bad"), ("end", "")], [("x", ""), ("MiddlE", "bad"), ("end", "")], (1, 7)),
        ([("汉字 1", "")], [("汉字 2", "")], (5, 6)),
    ],
)
def test_what_changed_of_a_row_is_found_by_its_cells(old: Row, new: Row, span: tuple[int, int]):
    assert changed(old, new) == span
