"""How often the screen is drawn: no more often than its cost to the training allows, nor than the terminal's link does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

SHARE = 0.015  # of the time that the screen may take from the training
LINKS = ("auto", "fast", "slow")


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between two looks at a run; what ticks by itself does so every `tick` seconds."""

    least: float
    most: float
    bytes_per_second: float  # that drawing may send
    tick: float
    frames: int  # a second at most, after keys
    colors: str  # TEXTUAL_COLOR_SYSTEM

    def after(self, cost: float, sent: int) -> float:
        """How long to wait when drawing since the last look took `cost` seconds of processor time and sent so many bytes."""
        return min(max(self.least, cost / SHARE, sent / self.bytes_per_second), self.most)

    def textual(self) -> dict[str, str]:
        """What Textual reads from the environment when it is imported. Nothing moves by itself."""
        return {"TEXTUAL_FPS": str(self.frames), "TEXTUAL_ANIMATIONS": "none", "TEXTUAL_COLOR_SYSTEM": self.colors}


FAST = Pace(0.25, 3.0, 25_000, 1.0, 60, "auto")
SLOW = Pace(1.0, 15.0, 4_000, 10.0, 10, "256")  # whose codes are half as long


def pace(link: str, environment: Mapping[str, str] = os.environ) -> tuple[Pace, str]:
    """For the setting `link` ($EPOCHAL_LINK goes before it): "auto" is slow over SSH. And a sentence where that is none."""
    said = ""
    asked = environment.get("EPOCHAL_LINK") or link
    if asked not in LINKS:
        from engine.errors import nearest, plain

        said = f"EPOCHAL_LINK is {plain(repr(asked))} and must be one of {', '.join(LINKS)}{nearest(asked, LINKS)}"
        asked = link
    if asked == "auto":
        asked = "slow" if environment.get("SSH_CONNECTION") else "fast"
    return SLOW if asked == "slow" else FAST, said
