"""The plain PyTorch script of a recipe and the command that repeats its run, to be read, copied or written to a file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer, Vertical
from textual.timer import Timer
from textual.widgets import Static

from engine.errors import EpochalError
from engine.export import write
from engine.recipe import Recipe
from tui.door import Engine
from tui.screens.base import Dialog
from tui.writing import Writing, Written


def repeating(values: Mapping[str, Any]) -> str:
    """The one command that trains these values, with all in which they differ from the default recipe."""
    usual = dict(_flat(Recipe().to_dict(complete=False)))
    said = [f"{key}={_inline(value)}" for key, value in _flat(values) if key not in usual or usual[key] != value]
    return " ".join(["epochal train", *(f"--set {shlex.quote(setting)}" for setting in said)])


def _flat(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{section}{key}.")
        else:
            yield f"{section}{key}", value


def _inline(value: Any) -> str:
    """A value as `--set` reads it: TOML in one line, a text as it is."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else _inline(value)


class ScriptScreen(Dialog[None]):
    """Waits for the script, shows it, and writes it where `where` says."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,Y", "close", "Close", show=False),
        Binding("w", "write", "Write it to a file", show=False),
        Binding("c", "copy", "Copy the script", show=False),
        Binding("m", "copy_command", "Copy the command", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("up,k", "move(-1)", show=False),
        Binding("right,l", "move(0, 8)", show=False),
        Binding("left,h", "move(0, -8)", show=False),
        Binding("pagedown,space", "move(12)", show=False),
        Binding("pageup", "move(-12)", show=False),
    ]

    def __init__(self, engine: Engine, values: Mapping[str, Any], where: Path, command: str, edited: str = "") -> None:
        super().__init__()
        self._writing: Writing | None = engine.script(values)
        self._written = Written()
        self._where, self._command, self._edited = where, command, edited
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide") as box:
            box.border_title = "The plain PyTorch of it"
            box.border_subtitle = "w writes it · c copies it · m copies the command · Esc closes"
            yield Static(self._command, classes="line command", markup=False)
            yield Static(self._edited, classes="line note", markup=False)
            with ScrollableContainer(can_focus=False):
                yield Static(
                    "the data are loaded and the model is built to know their shapes …", classes="script", markup=False
                )

    def on_mount(self) -> None:
        self.query_one(".note").display = bool(self._edited)
        self._timer = self.set_interval(0.1, self._look)

    def on_unmount(self) -> None:
        if self._writing is not None:
            self._writing.cancel()

    def _look(self) -> None:
        written = self._writing.poll() if self._writing is not None else None
        if written is None:
            return
        self._writing, self._written = None, written
        shown = self.query_one(".script", Static)
        if written.failure:
            shown.update(written.failure)
        else:
            from rich.syntax import Syntax

            shown.update(Syntax(written.text, "python", theme="ansi_light" if not self.app.current_theme.dark else "ansi_dark"))
        if self._timer is not None:
            self._timer.stop()  # cancels the task that this runs in: last

    def action_write(self) -> None:
        """Write the script to a file that is not there yet."""
        if not self._written.text:
            self.notify("there is no script to write" if self._written.failure else "the script is still being made")
            return
        try:
            write(self._where, self._written.text)
        except EpochalError as error:
            self.notify(str(error), severity="error", markup=False)
        else:
            self.notify(f"written: {self._where}", markup=False)

    def action_copy(self) -> None:
        """The script to the terminal's clipboard."""
        if self._written.text:
            self.app.copy_to_clipboard(self._written.text)
            self.notify("copied; where the terminal takes no copies, w writes a file")

    def action_copy_command(self) -> None:
        """The command to the terminal's clipboard."""
        self.app.copy_to_clipboard(self._command)
        self.notify("copied: " + self._command, markup=False)

    def action_move(self, lines: int, cells: int = 0) -> None:
        """Scroll."""
        self.query_one(ScrollableContainer).scroll_relative(x=cells, y=lines, animate=False)

    def action_close(self) -> None:
        """Back."""
        self.dismiss()
