"""`examples`: recipes to begin with, listed and copied."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from engine.cli import format
from engine.cli.output import Stream
from engine.examples import examples as all_examples
from engine.examples import find_example


def examples(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """The list, or a copy of one with the command that trains it."""
    if arguments.name is None:
        if arguments.json:
            keys = ("name", "about", "command")
            out.line(json.dumps([{key: getattr(each, key) for key in keys} for each in all_examples()], indent=2))
            return 0
        out.lines(format.table([(each.name, each.about) for each in all_examples()]))
        out.line(f"{arguments.prog} examples NAME [DIR] copies one into a directory of its own")
        return 0
    example = find_example(arguments.name)
    directory = Path(arguments.directory or example.name)
    copies = example.copy(directory)
    go = f"cd {shlex.quote(str(directory))} && " if directory.resolve() != Path.cwd() else ""
    command = example.command.replace("epochal", arguments.prog, 1)
    if arguments.json:
        out.line(json.dumps({"files": [str(path) for path in copies], "command": go + command}, indent=2))
        return 0
    for path in copies:
        out.line(str(path))
    out.line("")
    out.line(go + command)
    return 0
