"""`epochal`: the console, or the command line for every subcommand. Decides which before anything heavy is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """`epochal [RECIPE.toml]` and `epochal console [RECIPE.toml] [--runs DIR]` open the console; without a terminal the same
    recipe is trained with plain rows. Everything else is the command line's. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wanted = _console(arguments)
    if wanted is None:
        return _command_line(arguments)
    recipe, runs = wanted
    if recipe is not None and not Path(recipe).is_file():
        print(f"epochal: there is no file {recipe}", file=sys.stderr)
        return 2
    if not (os.isatty(0) and os.isatty(1)):
        print("epochal: no terminal for the console; training without it", file=sys.stderr)
        return _command_line(["train", *([recipe] if recipe else []), *(["--runs", runs] if runs else [])])
    # Read when textual is imported: 15 frames a second and nothing that moves by itself, unless the person chose.
    os.environ.setdefault("TEXTUAL_FPS", "15")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    from tui.launch import launch

    return launch(recipe, runs)


def _console(arguments: list[str]) -> tuple[str | None, str | None] | None:
    """(recipe, runs) when the console is asked for, else None."""
    if arguments[:1] == ["console"]:
        import argparse

        parser = argparse.ArgumentParser(prog="epochal console", description="Open the console, with a recipe filled in.")
        parser.add_argument("recipe", nargs="?", help="a TOML file; the default recipe when left out")
        parser.add_argument("--runs", metavar="DIR", help="where runs are kept (else $EPOCHAL_RUNS, else ./runs)")
        chosen = parser.parse_args(arguments[1:])
        return chosen.recipe, chosen.runs
    if not arguments:
        return None, None
    if len(arguments) == 1 and arguments[0].endswith(".toml"):
        return arguments[0], None
    return None


def _command_line(arguments: list[str]) -> int:
    from engine.cli import main as command_line

    return command_line(arguments)


if __name__ == "__main__":
    sys.exit(main())
