"""`epochal`: the console, or the command line for every subcommand. Decides which before anything heavy is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

Asked = dict[str, str | None]  # recipe, runs, attach


def main(argv: list[str] | None = None) -> int:
    """`epochal [RECIPE.toml]`, `epochal console [RECIPE.toml] [--runs DIR]`, `epochal attach [RUN] [--runs DIR]` and
    `epochal view [DIR]` open the console; without a terminal, or with `attach --plain`, the same is done with plain rows.
    `epochal plot RUN…` draws the chart as text, `epochal serve` shows the console in a browser. Everything else is the command
    line's. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from engine.cli.output import open_streams

        open_streams()
    if arguments[:1] == ["plot"]:
        from tui.plot_command import main as plot

        return plot(arguments[1:])
    if arguments[:1] == ["serve"]:
        from tui.serving import main as serve

        return serve(arguments[1:])
    if arguments[:1] == ["completion"]:
        _tell_completion()
    terminal = os.isatty(0) and os.isatty(1)
    asked = _attach(arguments) if arguments[:1] == ["attach"] else _console(arguments)
    if asked is None or (("attach" in asked or "view" in asked) and (not terminal or os.environ.get("TERM") == "dumb")):
        return _command_line([argument for argument in arguments if arguments[0] != "attach" or argument != "--plain"])
    recipe, runs = asked.get("recipe"), asked.get("runs")
    if recipe is not None and not Path(recipe).is_file():
        from engine.recipe_text import absent

        print(f"epochal: {absent(recipe)}", file=sys.stderr)
        return 2
    if not terminal:
        print("epochal: no terminal for the console; training without it", file=sys.stderr)
        return _command_line(["train", *([recipe] if recipe else []), *(["--runs", runs] if runs else [])])
    if os.environ.get("TERM") == "dumb":
        print("epochal: TERM=dumb can't show the console: epochal train RECIPE.toml trains without it", file=sys.stderr)
        return 2
    from tui.launch import Launcher, launch

    def console(launcher: Launcher) -> int:
        from tui.console import open_console

        return open_console(launcher, **asked)

    return launch(console)


def _console(arguments: list[str]) -> Asked | None:
    """What the console is asked for; None when it is not."""
    if arguments[:1] == ["console"]:
        from engine.cli.output import told

        asked: Asked = {}
        status = told(lambda out: asked.update(vars(_console_parser().parse_args(arguments[1:]))))
        if not asked:
            sys.exit(status)
        return asked
    if arguments[:1] == ["view"] and (len(arguments) == 1 or (len(arguments) == 2 and not arguments[1].startswith("-"))):
        return {"view": arguments[1] if len(arguments) == 2 else "."}
    if len(arguments) == 2 and arguments[0] == "--runs":
        return {"runs": arguments[1]}
    if not arguments:
        return {}
    if len(arguments) == 1 and arguments[0].endswith(".toml"):
        return {"recipe": arguments[0]}
    return None


def _console_parser() -> ArgumentParser:
    from engine.cli.options import Formatter, Parser

    about = "Open the console, with a recipe filled in."
    parser = Parser(prog="epochal console", allow_abbrev=False, formatter_class=Formatter, description=about)
    parser.add_argument("recipe", metavar="RECIPE.toml", nargs="?", help="the recipe; left out: an MLP on the digits")
    parser.add_argument("--runs", metavar="DIR", help="where runs are kept; left out: $EPOCHAL_RUNS, else ./runs")
    return parser


def _tell_completion() -> None:
    """Of the commands that the command line's parser does not know."""
    from engine.cli.completion import more

    def plot() -> ArgumentParser:
        from tui.plot_command import make_parser

        return make_parser()

    def serve() -> ArgumentParser:
        from tui.serving import make_parser

        return make_parser()

    more["console"] = "open the console", _console_parser
    more["plot"] = "draw the chart of runs as text", plot
    more["serve"] = "show the console in a browser", serve


def _attach(arguments: list[str]) -> Asked | None:
    """The run that the console is to open on; None when the command line is meant, or has to explain itself."""
    import argparse

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("attach", nargs="?", default="")
    parser.add_argument("--runs")
    try:
        known, unknown = parser.parse_known_args(arguments[1:])
    except argparse.ArgumentError:
        return None
    return None if unknown else dict(vars(known))


def _command_line(arguments: list[str]) -> int:
    from engine.cli import main as command_line

    return command_line(arguments)


if __name__ == "__main__":
    sys.exit(main())
