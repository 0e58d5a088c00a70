"""The colours: themes for dark and light terminals, for eyes that see colours otherwise, and with high contrast.

A theme has a colour for each role of a chart or a log. None is the only sign of anything: lines, marks and states differ in
shape too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from textual.color import Color
from textual.theme import Theme


def _theme(
    name: str,
    ground: str,
    text: str,
    panel: str,
    border: str,
    primary: str,
    roles: str,
    others: str,
    *,
    accent: str,
    good: str,
    warn: str,
    bad: str,
    dark: bool = True,
    faint: float = 0.45,
    label: float = 0.65,
    ghost: float = 0.55,
) -> Theme:
    """`roles` are the colours of training, validation and marks, `others` of the runs beside the first; the shares say how much
    of its colour faint things keep on the ground."""
    train, val, mark = roles.split()
    back, front = Color.parse(ground), Color.parse(text)
    colors = {
        "train": train,
        "val": val,
        "mark": mark,
        "ghost": back.blend(Color.parse(train), ghost).hex6,
        "faint": back.blend(front, faint).hex6,
        "label": back.blend(front, label).hex6,
        "other": back.blend(front, 0.5).hex6,  # the run that one is compared with
        **{f"run{n}": color for n, color in enumerate(others.split(), 1)},
    }
    return Theme(
        name=name, primary=primary, secondary=back.blend(front, label).hex6, accent=accent, warning=warn, error=bad,
        success=good, foreground=text, background=ground, surface=ground, panel=panel, dark=dark,
        variables={
            "border": border, "border-blurred": border, "block-cursor-text-style": "none", "frame": border,
            "text-muted": back.blend(front, label).hex6, "text-success": good, "text-warning": warn, "text-error": bad,
            "text-accent": accent, **colors,
        },
    )  # fmt: skip


THEMES: Mapping[str, tuple[Theme, str]] = {
    theme.name: (theme, words)
    for theme, words in (
        (
            _theme(
                "epochal", "#0d1117", "#d3dae3", "#161b22", "#30363d", "#6cb6ff", "#22d3ee #f472d0 #facc15",
                "#a3e635 #fb923c #818cf8 #f87171 #e2e8f0", accent="#9ecbff", good="#7ee2a8", warn="#e3b341", bad="#ff7b72",
            ),
            "for dark terminals",
        ),
        (
            _theme(
                "epochal-light", "#ffffff", "#1f2328", "#f2f4f7", "#d0d7de", "#0550ae", "#0e7490 #a21caf #946200",
                "#4d7c0f #c2410c #4338ca #b91c1c #334155", accent="#0969da", good="#1a7f37", warn="#946200", bad="#b42318",
                dark=False, faint=0.56, label=0.72, ghost=0.72,
            ),
            "for light terminals",
        ),
        (
            _theme(
                "colour-blind", "#0d1117", "#d3dae3", "#161b22", "#4a525c", "#56b4e9", "#56b4e9 #e08214 #f5ef7a",
                "#cc79a7 #00b488 #f0e442 #e8702a #ffffff", accent="#9ecbff", good="#00b488", warn="#f0e442", bad="#ee7733",
            ),
            "blue, orange and yellow: told apart by all eyes",
        ),
        (
            _theme(
                "colour-blind-light", "#ffffff", "#1f2328", "#f2f4f7", "#aab2bc", "#005a8e", "#0072b2 #b84a00 #000000",
                "#9c3f73 #00795a #5c5300 #8a3500 #334155", accent="#005a8e", good="#00795a", warn="#7a5c00", bad="#9e3a00",
                dark=False, faint=0.56, label=0.72, ghost=0.72,
            ),
            "the same on white",
        ),
        (
            _theme(
                "high-contrast", "#000000", "#ffffff", "#000000", "#ffffff", "#00ffff", "#00ffff #ff8cff #ffff00",
                "#a6ff4d #ffb366 #a6b8ff #ff9999 #ffffff", accent="#ffff00", good="#4dffa6", warn="#ffd24d", bad="#ff8a80",
                faint=0.68, label=0.85, ghost=0.68,
            ),
            "white on black",
        ),
        (
            _theme(
                "high-contrast-light", "#ffffff", "#000000", "#ffffff", "#000000", "#00308f", "#004a5f #8a0068 #5c3d00",
                "#2f4f00 #7a2900 #2a1f99 #800000 #222222", accent="#00308f", good="#00501f", warn="#5c3d00", bad="#8b0000",
                dark=False, faint=0.68, label=0.85, ghost=0.85,
            ),
            "black on white",
        ),
    )
}  # fmt: skip
DARK, LIGHT = "epochal", "epochal-light"
ROLES = ("train", "val", "mark", "ghost", "faint", "label", *(f"run{n}" for n in range(1, 6)))


def usual(environment: Mapping[str, str] = os.environ) -> str:
    """The theme where none was chosen: as light as the terminal says that it is."""
    ground = environment.get("COLORFGBG", "").rpartition(";")[2]
    return LIGHT if ground in ("7", "15") else DARK


def chosen(kept: str, known: Mapping[str, object], environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The theme to begin with, of $EPOCHAL_THEME or the settings; and a sentence where that is none."""
    from engine.errors import nearest, plain

    for source, name in (("EPOCHAL_THEME", environment.get("EPOCHAL_THEME", "")), ("the theme in the settings", kept)):
        if name in known:
            return name, ""
        if name:
            said = f"{source} is {plain(repr(name))} and must be one of {', '.join(THEMES)}{nearest(name, THEMES)}"
            return usual(environment), said
    return usual(environment), ""
