"""What of this machine helps or hinders: each finding is a line, with the remedy where there is something to be done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Finding", "findings"]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`area` is "versions", "devices", "compiler", "terminal", "runs", "settings" or "extras"."""

    area: str
    level: Level
    text: str
    remedy: str = ""


def findings(root: Path) -> list[Finding]:
    """All of them. Runs are kept in `root`, which need not be there.

    torch is asked in a process of its own: one that is broken, or brings the process down, is a finding like any other.
    """
    from engine.doctor import devices, disk, software, terminal

    asked = devices.ask_torch()  # imports it meanwhile
    others = [*terminal.findings(), *disk.findings(root), *software.settings(), *software.extras()]
    return [*software.versions(), *devices.findings(asked), *software.compiler(), *others]
