"""The parser, and the options that several commands have."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from typing import Any, NoReturn

from engine.errors import nearest

SET = "one field of the recipe, by its dotted name: --set optimizer.lr=3e-4; may be given many times"
_PROCESSES = "so many processes of this machine train together: short for --set training.processes=N"
_RESTARTS = "with --processes: when one of them dies, begin all again from the last checkpoint, N times at most"
RUNS = "where runs are kept; left out: $EPOCHAL_RUNS, else ./runs"
CHECKPOINT = "best, last or a step; left out: best where there is one, else last"


CONSOLE = ("console", "plot", "serve")  # the commands that come with the screen, see tui/__main__.py


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one sentence, with the nearest word that there is."""

    _given: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        missing = re.fullmatch(r"the following arguments are required: (.+)", message)
        if missing:  # because of a misspelt option, perhaps
            options = (word for word in self._given if word[:2] == "--" and len(word) > 2)
            self._refuse_unknown(
                next((word for word in options if word.partition("=")[0] not in self._option_string_actions), None)
            )
            message = f"{self.prog} needs {missing[1]}: {self.prog} --help says what it takes"
        elif valued := re.fullmatch(r"argument (\S+): ignored explicit argument (.+)", message):
            message = f"{valued[1]} takes no value, and {valued[2]} is given"
        elif wrong := re.fullmatch(r"argument (\S+): it is (.+)", message):
            message = f"{wrong[1]} is {wrong[2]}"
        elif typed := re.fullmatch(r"argument (\S+): invalid (int|float) value: (.+)", message):
            message = f"{typed[1]} is {typed[3]} and must be a {'whole ' if typed[2] == 'int' else ''}number"
        self.exit(2, f"epochal: {message}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # a command's options are known to it alone
        self._given = tuple(args or ())
        found, rest = super().parse_known_args(args, namespace)
        if rest and not rest[0].startswith("-"):
            self.error(f"{rest[0]!r} is a word too many: {self.prog} --help says what it takes")
        self._refuse_unknown(rest[0] if rest else None)
        return found, rest

    def _refuse_unknown(self, word: str | None) -> None:
        if word is not None:
            option, options = word.partition("=")[0], [name[2:] for name in self._option_string_actions if name[:2] == "--"]
            meant = nearest(option.lstrip("-"), options).replace("is '", "is '--")
            self.error(f"{self.prog} has no option {option}{meant}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        listed = getattr(action, "_choices_actions", ())  # of commands, those that are not for persons are left out
        names = [choice.dest for choice in listed] or list(action.choices)
        what = (action.metavar if isinstance(action.metavar, str) else action.dest).lower()
        if what == "command":
            names += CONSOLE if self.prog == "epochal" else ()
            more = f": it belongs to the console, epochal {value}" if value in CONSOLE else nearest(value, names)
            self.error(f"there is no command {value!r}{more or f'; {self.prog} --help lists them'}")
        self.error(f"there is no {what} {value!r}{nearest(value, names) or '; there are ' + ', '.join(names)}")


def recipe_options(parser: argparse.ArgumentParser) -> None:
    """What changes the recipe."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=SET)
    parser.add_argument("--model", metavar="M", help="short for --set model.name=M, such as my.py:Net; before other settings")
    parser.add_argument(
        "--data",
        metavar="D",
        help="short for --set data.name=D, such as my.py:load, or for a file's or folder's kind and path, such as my.csv or "
        "pictures/; before other settings",
    )
    parser.add_argument("--epochs", metavar="N", help="short for --set training.epochs=N")
    parser.add_argument("--device", metavar="D", help="short for --set training.device=D")
    parser.add_argument("--name", metavar="N", help="the name of the recipe, and so of the run")
    parser.add_argument("--tensorboard", action="store_true", help="short for --set track.tensorboard=true")


def processes_options(parser: argparse.ArgumentParser) -> None:
    """How many processes train together."""
    parser.add_argument("--processes", metavar="N", type=count, help=_PROCESSES)
    parser.add_argument("--restarts", metavar="N", type=count, default=0, help=_RESTARTS)


def runs_option(parser: Any) -> None:
    """Where runs are kept."""
    parser.add_argument("--runs", metavar="DIR", help=RUNS)


def model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is computed."""
    parser.add_argument("--checkpoint", metavar="C", help=CHECKPOINT)
    parser.add_argument("--device", metavar="D", help="where it is computed; left out: auto")
    parser.add_argument("--batch-size", type=count, default=256, metavar="N", help="samples at a time; left out: 256")
    runs_option(parser)


def output_options(parser: argparse.ArgumentParser) -> None:
    """What a training prints."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--json", action="store_true", help="print the run's events, one JSON object a line, as its journal has them"
    )
    group.add_argument("--quiet", action="store_true", help="print only what came of it")


def sentence(text: str | None) -> str | None:
    """A command's few words as its description."""
    return f"{text[0].upper()}{text[1:]}." if text else None


def count(text: str) -> int:
    """The type of an option that counts, from 1 on."""
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"it is {text!r} and must be a whole number from 1 on")
    return count


class Formatter(argparse.HelpFormatter):
    """Leaves the options' names 30 columns, and lists them below the usage alone."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)  # which takes commands to be as far to the left as options
        names = [len(choice.dest) + self._current_indent + 2 for choice in getattr(action, "_choices_actions", ())]
        self._action_max_length = max([self._action_max_length, *names])

    def _format_usage(self, usage: Any, actions: Iterable[argparse.Action], groups: Any, prefix: str | None) -> str:
        actions = list(actions)
        positional = [action for action in actions if not action.option_strings]
        words = ["usage:" if prefix is None else prefix, self._prog, *["[options]"] * (len(positional) < len(actions))]
        text = " ".join([*words, self._format_actions_usage(positional, [])])
        return textwrap.fill(text, self._width, subsequent_indent=" " * 7, break_on_hyphens=False) + "\n\n"
