"""The themes, measured: what each eye can tell apart, what can be read, what is left with 16 colours and with none."""

from __future__ import annotations

import itertools
import math

import pytest
from rich.color import Color as RichColor
from rich.color import ColorSystem
from textual.color import Color

from tests.tui.conftest import ScriptedEngine, drawn, ready
from tests.tui.scripted import screen_text
from tui.app import Console
from tui.screens.theme import ThemeScreen
from tui.themes import DARK, LIGHT, ROLES, THEMES, chosen
from tui.widgets.chart import Chart
from tui.widgets.rows import role_style

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
EYES = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(color: str) -> list[float]:
    parts = (part / 255 for part in Color.parse(color).rgb)
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def lab(color: str, eyes: str) -> tuple[float, float, float]:
    """CIE L*a*b* of what these eyes see."""
    red, green, blue = (
        min(max(sum(weight * part for weight, part in zip(row, linear(color), strict=True)), 0.0), 1.0) for row in EYES[eyes]
    )
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    f = [value ** (1 / 3) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116 for value in (x, y, z)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def contrast(color: str, ground: str) -> float:
    """As WCAG 2 has it."""
    light, dark = sorted(sum(map(math.prod, zip((0.2126, 0.7152, 0.0722), linear(c), strict=True))) for c in (color, ground))[
        ::-1
    ]
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("name", ["colour-blind", "colour-blind-light"])
def test_every_eye_tells_training_validation_and_marks_apart(name: str, eyes: str):
    theme, _ = THEMES[name]
    for one, other in itertools.combinations(("train", "val", "mark"), 2):
        apart = math.dist(lab(theme.variables[one], eyes), lab(theme.variables[other], eyes))
        assert apart > 25, (one, other, apart)
    assert math.dist(lab(theme.success, eyes), lab(theme.error, eyes)) > 20


@pytest.mark.parametrize("name", THEMES)
def test_what_is_written_can_be_read(name: str):
    theme, _ = THEMES[name]
    least = 7.0 if "contrast" in name else 4.5
    written = {role: theme.variables[role] for role in ("train", "val", "mark", "label")}
    written |= {
        "text": theme.foreground,
        "good": theme.success,
        "warn": theme.warning,
        "bad": theme.error,
        "accent": theme.accent,
    }
    for role, color in written.items():
        assert contrast(color, theme.background) >= least, (role, contrast(color, theme.background))
    for role in ROLES:
        assert contrast(theme.variables[role], theme.background) >= (4.5 if "contrast" in name else 2.9), role


@pytest.mark.parametrize("name", THEMES)
def test_sixteen_colours_still_tell_the_curves_apart(name: str):
    theme, _ = THEMES[name]
    seen = {
        role: RichColor.parse(theme.variables[role]).downgrade(ColorSystem.STANDARD).number for role in ("train", "val", "mark")
    }
    assert len(set(seen.values())) == 3, seen


def test_the_theme_that_is_kept_or_asked_for():
    known = dict.fromkeys(THEMES)
    assert chosen("", known, {}) == (DARK, "")
    assert chosen("", known, {"COLORFGBG": "0;15"}) == (LIGHT, "")
    assert chosen("high-contrast", known, {"COLORFGBG": "0;15"}) == ("high-contrast", "")
    assert chosen("high-contrast", known, {"EPOCHAL_THEME": "colour-blind"}) == ("colour-blind", "")
    name, said = chosen("", known, {"EPOCHAL_THEME": "color-blind"})
    assert name == DARK and "'color-blind'" in said and said.endswith("the nearest is 'colour-blind'")


async def test_colours_are_shown_while_one_chooses_kept_by_enter_and_not_by_escape(console: Console):
    async with console.run_test(size=(80, 24)) as pilot:
        await ready(console)
        await pilot.press("T", "down", "down")
        assert isinstance(console.screen, ThemeScreen) and console.theme == "colour-blind"
        await pilot.press("escape")
        assert console.theme == DARK and console.preferences["theme"] == ""
        await pilot.press("T", "down", "enter")
        assert console.theme == LIGHT == console.preferences["theme"]


@pytest.mark.parametrize("name", THEMES)
async def test_the_curves_have_the_colours_of_the_theme(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("EPOCHAL_THEME", name)
    console = Console(engine, {})
    async with console.run_test(size=(120, 40)) as pilot:
        await ready(console)
        await pilot.press("r")
        await drawn(console)
        theme, chart = THEMES[name][0], console.screen.query_one(Chart)
        for role in ROLES[:3]:
            assert role_style(chart.app, role).color == RichColor.parse(theme.variables[role].lower())
        assert "1 Chart" in screen_text(console)
        engine.finish.set()
