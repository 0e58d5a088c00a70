"""In which format a run's model is to be written, and to which file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import EpochalError
from engine.export import FORMATS, refuse_target
from tui.door import Engine
from tui.exporting import Exporting
from tui.screens.base import Dialog

WORDS = {
    "safetensors": "weights with the recipe inside: load_model takes it",
    "onnx": "for onnxruntime and others",
    "torch": "torch.export: runs where there is torch alone",
    "script": "the plain PyTorch script that trains it",
}
SECONDS = 0.2  # between two looks at the process


class ExportScreen(Dialog[None]):
    """Choose a format, change the file's name where that is wanted, Enter writes it. It says what came of it and stays."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "close"),
        Binding("tab", "other", "to the name and back", show=False, priority=True),
    ]

    def __init__(self, engine: Engine, path: Path) -> None:
        super().__init__()
        self._engine, self._path = engine, path
        self._work: Exporting | None = None
        self._format = next(iter(FORMATS))
        self._there = ""  # the file that was there already, which the same once more replaces

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Content(f"Export {self._path.name}")
            box.border_subtitle = "Enter writes it · Tab changes the name · Esc closes"
            width = max(map(len, FORMATS))
            yield OptionList(
                *(
                    Option(Content.assemble((f"{name:<{width}}  ", "bold"), (WORDS[name], "$text-muted")), id=name)
                    for name in FORMATS
                ),
                compact=True,
            )
            yield Static("")
            yield Input(compact=True)
            yield Static("", classes="said", markup=False)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        choices.focus()
        choices.highlighted = 0
        self.set_interval(SECONDS, self._look)

    def on_unmount(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _look(self) -> None:
        done = self._work.poll() if self._work is not None else None
        if done is None:
            return
        self._work = None
        self._there = ""
        self._say(done.said, "$text-error" if done.failed else "$text-success")

    def _say(self, text: str, style: str) -> None:
        self.query_one(".said", Static).update(Content.styled(f"\n{text}", style))

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._format = str(event.option.id)
        self.query_one(Input).value = f"{self._path.name}{FORMATS[self._format]}"

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def _chosen(self) -> None:
        file = self.query_one(Input).value.strip()
        if self._work is not None:
            self.notify("a file is being written; Esc ends that")
            return
        if not file:
            self._say("the file needs a name", "$text-error")
            return
        with contextlib.suppress(RuntimeError):  # of a user that there is not: then it is a name like any other
            file = str(Path(file).expanduser())
        known = file == self._there
        self._there = "" if known or not Path(file).exists() else file
        try:
            refuse_target(Path(file), bool(self._there) or known, self._format)
        except EpochalError as error:
            self._say(str(error), "$text-error")
            return
        if self._there:
            self._say(f"{file} is there already: Enter once more replaces it", "$text-error")
            return
        self._work = self._engine.export(self._path, file, self._format, force=known)
        self._say("model and data are loaded, the file is written and checked …", "$text-muted")

    def action_other(self) -> None:
        """The keyboard to the other one."""
        field = self.query_one(Input)
        self.set_focus(self.query_one(OptionList) if self.focused is field else field)

    def action_leave(self) -> None:
        """Back; an export under way is ended."""
        self.dismiss()
