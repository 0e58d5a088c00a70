"""How often the screen is drawn, and how much of it is sent."""

from __future__ import annotations

import asyncio

import pytest
from textual._compositor import Compositor

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

    async def still() -> None:
        """Wait for a time in which nothing is painted."""
        before = -1
        while before != len(painted):
            before = len(painted)
            await asyncio.sleep(8 * FRAME)

    async with console.run_test(size=WIDE) as pilot:
        await training(console, pilot)
        await pilot.press(key)
        assert len(console.screen_stack) > 2
        async with asyncio.timeout(60):
            await still()


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
