"""The command line of the engine: train, resume, attach, steer, look. Torch loads with the first command that needs it."""

from __future__ import annotations

import sys
import traceback

from engine.cli.output import Stream, lasting, open_streams
from engine.cli.parser import make_parser
from engine.distributed.launched import record
from engine.errors import EpochalError


def main(argv: list[str] | None = None, *, prog: str = "epochal") -> int:
    """Run one command and return its exit status.

    0: done; 1: the training, or a program, failed, or standard output could not be written; 2: a mistake in what was asked,
    one sentence each on standard error; 130 and 143: stopped by Ctrl-C (SIGINT) or SIGTERM.
    """
    open_streams()
    with lasting(sys.stdout, sys.stderr) as (out, err):
        status = _run(argv, prog, out, err)
    return status or int(out.lost)


def _run(argv: list[str] | None, prog: str, out: Stream, err: Stream) -> int:
    parser = make_parser(prog)
    try:
        arguments = parser.parse_args(argv)
        arguments.argv = sys.argv[1:] if argv is None else argv
    except SystemExit as exit:  # --help, --version, or a mistake that is told already
        return int(exit.code or 0)
    if arguments.run_command is None:
        parser.print_help(err)
        return 2
    try:
        status: int = arguments.run_command(arguments, out, err)
    except EpochalError as error:
        for sentence in str(error).splitlines():
            err.line(f"epochal: {sentence}")
        return error.status
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        record(error)
        return 1
    return status
