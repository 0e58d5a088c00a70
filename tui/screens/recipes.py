"""The recipes to begin with: those that the person saved, those of earlier runs, and the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import EpochalError
from engine.examples import examples, find_example
from engine.run.about import in_short
from engine.saved_recipes import SavedRecipes, in_which
from tui.door import Engine
from tui.screens.ask import Confirm
from tui.screens.base import Dialog

MOST = 30  # recipes of runs
Chosen = tuple[Mapping[str, Any], str, Mapping[str, str]]  # values, where they are from, fields with several values


class RecipesScreen(Dialog[Chosen | None]):
    """Answers what was chosen; None where the form stays as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,o", "dismiss(None)", "as before"),
        Binding("D,delete", "delete", "delete"),
    ]

    def __init__(self, engine: Engine, saved: SavedRecipes) -> None:
        super().__init__()
        self._engine, self._saved = engine, saved
        self._recent: dict[str, Any] = {}  # runs by the ids of their options

    def compose(self) -> ComposeResult:
        with Vertical(classes="box broad") as box:
            box.border_title = "Recipes"
            box.border_subtitle = "Enter takes it · D deletes a saved one · Esc leaves the form as it is"
            yield OptionList(compact=True)
            yield Static("", classes="error", markup=False)

    def on_mount(self) -> None:
        self._fill()
        self.query_one(OptionList).focus()

    def _fill(self, at: int = 0) -> None:
        choices = self.query_one(OptionList)
        choices.clear_options()
        names = self._saved.names()
        self._head("saved, in " + str(self._saved.where) if names else "none is saved: w in the form does that")
        for name in names:
            try:
                words = _words({**in_which(self._saved.load(name)), **self._saved.several(name)})
            except EpochalError as error:
                words = str(error)
            choices.add_option(_option(f"saved {name}", name, words))
        self._recent = {f"run {run.name}": run for run in self._of_runs()}
        self._head("of earlier runs, the newest first" if self._recent else "no run has been trained yet")
        for key, run in self._recent.items():
            choices.add_option(_option(key, run.name, _words(run.differs)))
        self._head("examples: epochal examples NAME copies one, to be edited")
        for example in examples():
            choices.add_option(_option(f"example {example.name}", example.name, example.about))
        selectable = [i for i, option in enumerate(choices.options) if not option.disabled]
        if selectable:
            choices.highlighted = next((i for i in selectable if i >= at), selectable[-1])

    def _head(self, text: str) -> None:
        self.query_one(OptionList).add_option(Option(Content.styled(text, "$text-muted"), disabled=True))

    def _of_runs(self) -> Sequence[Any]:
        """The newest run of each recipe."""
        try:
            runs = sorted(self._engine.list_runs(), key=lambda run: -run.started)
        except EpochalError as error:
            self.query_one(".error", Static).update(str(error))
            return []
        newest: dict[str, Any] = {}
        for run in runs:
            newest.setdefault(repr(sorted(run.differs.items(), key=lambda item: str(item[0]))), run)
        return list(newest.values())[:MOST]

    def _chosen(self) -> str:
        choices = self.query_one(OptionList)
        return "" if choices.highlighted is None else str(choices.get_option_at_index(choices.highlighted).id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Answer it."""
        kind, _, name = str(event.option.id).partition(" ")
        try:
            if kind == "saved":
                self.dismiss((self._saved.load(name), name, self._saved.several(name)))
            elif kind == "example":
                example = find_example(name)
                self.dismiss((example.values(), f"example {name}", example.several))
            else:
                self.dismiss((self._engine.recipe_of(self._recent[f"run {name}"].path), f"as in {name}", {}))
        except (EpochalError, OSError, ValueError) as error:
            self.query_one(".error", Static).update(str(error))

    def action_delete(self) -> None:
        """Delete the saved recipe under the cursor, after a question."""
        kind, _, name = self._chosen().partition(" ")
        if kind == "saved":
            self.app.push_screen(Confirm("Delete this recipe?", [name]), lambda sure: self._delete(name) if sure else None)
        else:
            words = "examples stay" if kind == "example" else "that is a run's: it goes with its run"
            self.query_one(".error", Static).update(words)

    def _delete(self, name: str) -> None:
        try:
            self._saved.delete(name)
        except EpochalError as error:
            self.query_one(".error", Static).update(str(error))
        self._fill(self.query_one(OptionList).highlighted or 0)


def _words(differs: Mapping[str, Any]) -> str:
    epochs = f"epochs {differs['training.epochs']}" if "training.epochs" in differs else ""
    return " · ".join(filter(None, [in_short(differs), epochs])) or "the default recipe"


def _option(key: str, name: str, words: str) -> Option:
    return Option(Content.assemble((f"  {name}", "bold"), (f"  {words}", "$text-muted")), id=key)
