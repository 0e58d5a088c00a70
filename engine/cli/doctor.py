"""`doctor`: what of this machine helps or hinders, a line each."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import textwrap

from engine.cli.output import Stream
from engine.doctor import Finding, findings
from engine.errors import plain
from engine.run import runs_root


def doctor(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """All findings, by area. Returns 1 where one is a problem."""
    found = findings(runs_root(arguments.runs))
    if arguments.json:
        out.line(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
    else:
        width = shutil.get_terminal_size((100, 24)).columns if out.isatty() else 10_000
        for each in found:
            out.lines(_lines(each, width))
    return 1 if any(each.level == "problem" for each in found) else 0


def _lines(finding: Finding, width: int) -> list[str]:
    text = plain(finding.text) + (f" → {plain(finding.remedy)}" if finding.remedy else "")
    return textwrap.wrap(
        text,
        max(width, 60),
        initial_indent=f"{finding.level:<8} {finding.area:<9} ",
        subsequent_indent=" " * 19,
        break_long_words=False,
        break_on_hyphens=False,
    )
