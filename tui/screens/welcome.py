"""For who has never trained a model: three experiments that one key starts, and a tour of what is then on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.screens.base import Dialog

if TYPE_CHECKING:
    from tui.app import Console

# Each takes some seconds: in less there would be nothing to watch.
EXPERIMENTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    (
        "Read handwritten digits",
        "1,797 small pictures; it learns which of ten digits each one shows",
        {"name": "digits", "data": {"name": "digits", "batch_size": 16}, "model": {"name": "mlp", "hidden": [256, 128]},
         "loss": {"name": "CrossEntropyLoss"}, "optimizer": {"name": "Adam", "lr": 1e-4}, "training": {"epochs": 40}},
    ),
    (
        "Tell two half-moons apart",
        "points of two kinds; it learns the curved line between them",
        {"name": "moons", "data": {"name": "moons"}, "model": {"name": "mlp", "hidden": [32, 32]},
         "loss": {"name": "CrossEntropyLoss"}, "optimizer": {"name": "Adam", "lr": 1e-3}, "training": {"epochs": 100}},
    ),
    (
        "Follow a wave",
        "noisy points along a sine; it learns the height at each place",
        {"name": "sine", "data": {"name": "sine"}, "model": {"name": "mlp", "hidden": [64, 64]},
         "loss": {"name": "MSELoss"}, "optimizer": {"name": "Adam", "lr": 1e-3}, "training": {"epochs": 100}},
    ),
)  # fmt: skip
WORDS = """Training a model means: show it examples, measure how wrong it is (the loss), change it a little so that it is less
wrong, and again. You will see the loss fall, on the examples that it learns from (train) and on others that are kept back
(val): the second says what it is worth. Nothing can break: space pauses, s stops and saves, q leaves."""
CARDS = (
    (1, "The chart", "How wrong the model is, from left to right as it learns: lower is better. The thick line is train, the "
     "line with dots is val. ★ is the best so far. m shows another metric, ← → read exact values."),
    (3, "The epochs", "One row for each pass over all examples: the loss on both parts, and how often it is right. When val "
     "rises while train still falls, it begins to learn by heart: then it is time to stop."),
    (2, "The recipe", "All that was chosen: data, model, loss, optimizer. A • marks what is not as usual. e changes the "
     "learning rate while it runs, n goes to the form for another experiment."),
    (4, "The device", "What the computer does for it. 5 is what the training code prints."),
    (1, "What next", "n: change one thing, r: run again, a: all runs with their best. E shows what it gets right and wrong. "
     "? has every key, : finds any of them by name."),
)  # fmt: skip
WAIT = "Let it end, or press s to stop and save it. Then"  # on the last card, while the run trains


class WelcomeScreen(Dialog[Mapping[str, Any] | None]):
    """Answers the recipe that is to be trained; None for the form."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,f,i", "dismiss(None)", "to the form"),
        *(Binding(str(n), f"take({n - 1})", title) for n, (title, _, _) in enumerate(EXPERIMENTS, 1)),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "First steps"
            box.border_subtitle = "1 2 3 or Enter starts one · Esc: the form, for your own"
            yield Static(" ".join(WORDS.split()), classes="line", markup=False)
            yield OptionList(
                *(
                    Option(Content.assemble((f"{n}  {title}\n", "bold"), (f"   {words}", "$text-muted")))
                    for n, (title, words, _) in enumerate(EXPERIMENTS, 1)
                ),
                compact=True,
            )

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()
        self.call_after_refresh(cast("Console", self.app).preload.start)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Start it."""
        self.action_take(event.option_index)

    def action_take(self, at: int) -> None:
        """Start this one."""
        self.dismiss(EXPERIMENTS[at][2])


class TourScreen(Dialog[None]):
    """Goes from pane to pane of the training screen below, which trains on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,i", "dismiss(None)", "ends it"),
        Binding("enter,space,right,down", "turn(1)", "on"),
        Binding("left,up", "turn(-1)", "back"),
    ]

    def __init__(self) -> None:
        super().__init__(classes="-beside")
        self._at = 0

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_subtitle = "Enter goes on · ← back · Esc ends the tour · i shows it again"
            yield Static(markup=False)

    def on_mount(self) -> None:
        self._show()

    def _show(self) -> None:
        pane, title, words = CARDS[self._at]
        self.query_one(".box").border_title = f"{title} ({self._at + 1} of {len(CARDS)})"
        below = self.app.screen_stack[-2]
        last = self._at + 1 == len(CARDS)
        self.query_one(Static).update(f"{WAIT} {words}" if last and not below.has_class("-ended") else words)
        if hasattr(below, "action_pane"):
            below.action_pane(pane)

    def action_turn(self, step: int) -> None:
        """To the next card, or back; after the last one it is over."""
        if self._at + step >= len(CARDS):
            self.dismiss(None)
            return
        self._at = max(0, self._at + step)
        self._show()
