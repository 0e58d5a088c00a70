"""What the command line tells of a run, its own or one that it follows: rows for a person, lines of JSON for a program."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from engine.cli.output import Live, Stream
from engine.cli.rows import Rows, say
from engine.events import Event, to_dict


@contextmanager
def telling(arguments: argparse.Namespace, out: Stream, err: Stream) -> Iterator[Callable[[Event], None]]:
    """What tells an event as `--json` and `--quiet` ask for: on `out`, and messages on `err`."""
    if arguments.json:
        with redirect_stdout(err):  # nothing but events on standard output
            yield _both(Lines(out), err)
        return
    if out.isatty() and not arguments.quiet:
        out.live = err.live = Live(out.terminal)
    try:
        yield _both(Rows(out, arguments.prog, arguments.quiet), err, arguments.quiet)
    finally:
        out.live.clear()


def _both(tell: Callable[[Event], None], err: Stream, quiet: bool = False) -> Callable[[Event], None]:
    def both(event: Event) -> None:
        tell(event)
        say(event, err, quiet)

    return both


class Lines:
    """Writes each event that a journal holds as the line that the journal holds."""

    def __init__(self, out: Stream) -> None:
        self._out = out

    def __call__(self, event: Event) -> None:
        if event.in_journal:
            line = json.dumps(to_dict(event), allow_nan=False, ensure_ascii=False)
            try:
                line.encode(self._out.encoding or "utf-8")
            except UnicodeEncodeError:  # the same values in ASCII
                line = json.dumps(to_dict(event), allow_nan=False)
            self._out.line(line)
