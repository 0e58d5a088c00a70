"""Completion for bash, zsh and fish: a few lines for the shell, which asks this program for the words that fit.

What can be said is read from the parser itself, so that it is never behind it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.cli.output import Stream
from engine.errors import EpochalError, nearest

Word = tuple[str, str]  # and what it is
# Commands besides those of the parser, put in by who has them: what each is, and its own parser.
more: dict[str, tuple[str, Callable[[], argparse.ArgumentParser]]] = {}

SHELLS = ("bash", "zsh", "fish")
_FILES = ("FILE", "DATA")
_BASH = r"""_epochal() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("$line"); done \
        < <("${COMP_WORDS[0]}" completion line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -o nosort -F _epochal epochal 2>/dev/null || complete -o default -F _epochal epochal"""
_ZSH = r"""#compdef epochal
_epochal() {
    local name about
    local -a whole whole_shown open open_shown
    while IFS=$'\t' read -r name about; do
        if [[ $name == *[=./] ]]; then open+=("$name"); open_shown+=("$name${about:+  -- $about}")
        else whole+=("$name"); whole_shown+=("$name${about:+  -- $about}"); fi
    done < <("${(Q)words[1]}" completion words "${(@Q)words[1,CURRENT]}" 2>/dev/null)
    (( $#whole + $#open )) || { _files; return }
    (( $#whole )) && compadd -l -d whole_shown -a whole
    (( $#open )) && compadd -l -S '' -d open_shown -a open
}
if [[ $funcstack[1] == _epochal ]]; then _epochal "$@"; else compdef _epochal epochal; fi"""
_FISH = r"""function __epochal_words
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    $words[1] completion words $words "$current" 2>/dev/null
end
complete -c epochal -f -k -a '(__epochal_words)'"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Print what a shell is to run; or, for that, the words with which a line can go on."""
    if arguments.shell in _SCRIPTS:
        out.line(_SCRIPTS[arguments.shell])
    elif arguments.shell == "words":
        for word, about in complete(arguments.words):
            out.line(f"{word}\t{about}" if about else word)
    elif arguments.shell == "line":
        out.lines(_for_bash(arguments.words[0]))
    else:
        raise EpochalError(f"{arguments.shell!r} is no shell of {', '.join(SHELLS)}{nearest(arguments.shell, SHELLS)}")
    return 0


def complete(words: Sequence[str]) -> list[Word]:
    """The words that can stand in the place of the last of `words`, which begin as it does. The first is the program."""
    from engine.cli.parser import make_parser

    *before, current = words[1:] or [""]
    other = more.get(before[0]) if before else None
    place = _Place(other[1](), before[1:]) if other else _Place(make_parser("epochal"), before)
    found = list(place.words(current))
    if not before:
        found += [(name, about) for name, (about, _) in more.items()]
        found += _paths(current, ".toml") if not current.startswith("-") else []
    return [(word, about) for word, about in found if word.startswith(current)]


def _for_bash(line: str) -> list[str]:
    """The same for a line up to the cursor. bash takes = and : for ends of words, and the part before them for written."""
    try:
        words = shlex.split(line)
    except ValueError:  # within quotes: the shell's own completion of file names does that
        return []
    if line[-1:].isspace() or not words:
        words.append("")
    kept = max(words[-1].rfind("="), words[-1].rfind(":")) + 1
    return [re.sub(r"([^\w@%+=:,./~-])", r"\\\1", word[kept:]) for word, _ in complete(words)]


class _Place:
    """Where in a command line the next word stands: after `before`."""

    def __init__(self, parser: argparse.ArgumentParser, before: Sequence[str]) -> None:
        self._parser = parser
        self._before = before
        self._command = ""
        self._value_of: argparse.Action | None = None  # an option whose value comes next
        self._used: set[str] = set()
        self._at = 0  # positional arguments so far
        for word in before:
            self._pass(word)

    def words(self, current: str) -> Iterator[Word]:
        """What can be said here."""
        option, equals, _ = current.partition("=")
        if self._value_of is not None:
            yield from self._values(self._value_of, current)
        elif current.startswith("-") and equals:
            if action := self._parser._option_string_actions.get(option):
                for word, about in self._values(action, current[len(option) + 1 :]):
                    yield f"{option}={word}", about
        elif current.startswith("-"):
            yield from self._options()
        elif positional := self._positional():
            yield from self._values(positional, current)

    def _pass(self, word: str) -> None:
        if self._value_of is not None:
            self._value_of = None
        elif word.startswith("-") and len(word) > 1:
            option, equals, _ = word.partition("=")
            action = self._parser._option_string_actions.get(option)
            if action is not None:
                self._used.update(action.option_strings if not isinstance(action, argparse._AppendAction) else ())
                self._value_of = action if action.nargs != 0 and not equals else None
        else:
            positional = self._positional()
            if isinstance(positional, argparse._SubParsersAction) and word in positional.choices:
                self._parser, self._command, self._at, self._used = positional.choices[word], word, 0, set()
            else:
                self._at += 1

    def _positional(self) -> argparse.Action | None:
        actions = [action for action in self._parser._actions if not action.option_strings]
        if self._at < len(actions):
            return actions[self._at]
        return actions[-1] if actions and actions[-1].nargs in ("*", "+") else None

    def _options(self) -> Iterator[Word]:
        for action in self._parser._actions:
            long = [option for option in action.option_strings if option.startswith("--")]
            if long and action.help != argparse.SUPPRESS and not self._used & set(long):
                yield long[0], _short(action.help)

    def _values(self, action: argparse.Action, current: str) -> Iterator[Word]:
        """What may stand for this argument; nothing where only the person knows."""
        if isinstance(action, argparse._SubParsersAction):
            yield from ((choice.dest, _short(choice.help)) for choice in action._choices_actions)
            return
        if action.choices is not None:
            yield from ((str(choice), "") for choice in action.choices)
        what = action.metavar if isinstance(action.metavar, str) else ""
        name = (action.option_strings or [f"{self._command} {action.dest}"])[0]
        if "RUN" in what:
            yield from self._runs()
        if "FIELD" in what or "KEY" in what:
            yield from self._fields(current)
        if what not in _FILES and (named := _NAMED.get(name)):
            yield from ((word, "") for word in named(self._before))
        if "DIR" in what:
            yield from _paths(current, None)
        elif "RECIPE" in what:
            yield from _paths(current, ".toml")
        elif what in _FILES:
            yield from _paths(current, "")
        elif name == "--data":
            from engine.cli.recipes import DATA_FILES

            yield from _paths(current, tuple(DATA_FILES))

    def _runs(self) -> Iterator[Word]:
        from engine.run import runs_root

        root = runs_root(_after("--runs", self._before))
        try:
            names = sorted((path.name for path in root.iterdir() if (path / "status.json").is_file()), reverse=True)
        except OSError:
            names = []
        yield from ((name, "") for name in names if name not in self._before)
        if names and "last" not in self._before:
            yield "last", "the newest"

    def _fields(self, current: str) -> Iterator[Word]:
        """Fields of the recipe, and behind their = what is allowed. torch is loaded only for fields that depend on it."""
        if self._command == "set":
            from engine.changes import FIELDS

            yield from ((f"{field}=", "") for field in FIELDS)
            return
        from engine.catalog import KINDS, sections

        key, equals, _ = current.partition("=")
        kind, dot, _ = key.partition(".")
        for section in sections(_recipe(self._before), light=not (dot and kind in KINDS and kind != "data")):
            prefix = f"{section.key}." if section.key else ""
            if not dot and section.key in KINDS and not equals:
                yield prefix, ""
                continue
            fields = {
                f"{prefix}{field.key}": (field.choices or _BOOLEAN.get(field.kind, ()), field.help) for field in section.fields
            }
            if section.names:
                fields = {f"{prefix}name": (section.names, "which one"), **fields}
            if not equals:
                yield from ((f"{name}=", _short(about)) for name, (_, about) in fields.items())
            elif key in fields:
                yield from ((f"{key}={value}", "") for value in fields[key][0])


_BOOLEAN = {"boolean": ("true", "false")}


def _catalog_names(kind: str) -> list[str]:
    from engine.catalog import entries

    return [entry.name for entry in entries(kind) if not entry.refusal]


def _of_kind(before: Sequence[str]) -> list[str]:
    from engine.catalog import KINDS

    return _catalog_names(before[-1]) if before[-1] in KINDS else []


def _kinds(_: Sequence[str]) -> tuple[str, ...]:
    from engine.catalog import KINDS

    return KINDS


def _examples(_: Sequence[str]) -> list[str]:
    from engine.examples import examples

    return [example.name for example in examples()]


def _sorts(_: Sequence[str]) -> tuple[str, ...]:
    from engine.run.choose import SORTS

    return tuple(SORTS)


# By option, or by command and argument: what it can be, from the words before.
_NAMED: dict[str, Callable[[Sequence[str]], Sequence[str]]] = {
    "--model": lambda _: _catalog_names("model"),
    "--data": lambda _: _catalog_names("data"),
    "--device": lambda _: ("auto", "cpu", "cuda", "mps"),
    "--sort": _sorts,
    "catalog kind": _kinds,
    "catalog name": _of_kind,
    "examples name": _examples,
    "completion shell": lambda _: SHELLS,
}


def _recipe(before: Sequence[str]) -> dict[str, object]:
    """The values of the recipe that the line means so far, by its file and the names that are set."""
    from engine.catalog.check import with_defaults
    from engine.recipe_text import apply_settings, read_toml

    named = next((word for word in before if word.endswith(".toml")), None)
    chosen = [word.removeprefix("--set=") for word in before if re.fullmatch(r"(--set=)?\w+\.name=\S+", word)]
    try:
        return with_defaults(apply_settings(read_toml(named) if named else {}, chosen))
    except EpochalError:
        return with_defaults({})


def _after(option: str, before: Sequence[str]) -> str | None:
    """The value of an option among these words."""
    for word, following in zip(before, [*before[1:], ""], strict=True):
        if word == option:
            return following or None
        if word.startswith(f"{option}="):
            return word.partition("=")[2] or None
    return None


def _paths(current: str, suffix: str | tuple[str, ...] | None) -> list[Word]:
    """Files with this suffix, or one of these, and directories to find some in; directories alone for None."""
    typed, _, _ = current.rpartition("/")
    typed = f"{typed}/" if "/" in current else ""
    try:
        there = sorted(Path(typed or ".").expanduser().iterdir())
    except OSError:
        return []
    shown = [path for path in there if current.rpartition("/")[2].startswith(".") or not path.name.startswith(".")]
    directories = [(f"{typed}{path.name}/", "") for path in shown if path.is_dir()]
    files = [
        (f"{typed}{path.name}", "") for path in shown if suffix is not None and path.name.endswith(suffix) and path.is_file()
    ]
    return [*files, *directories]


def _short(help: str | None) -> str:
    """The first words of a help text, on one line."""
    text = " ".join((help or "").replace("%%", "%").split())
    return textwrap.shorten(re.split(r"[;:(.] |, such", text)[0].strip(), 70, placeholder=" …")
