"""Which panes of a run are shown and how large they are: changed by key, and kept for good."""

from __future__ import annotations

from textual.widget import Widget

from engine.preferences import PANES, SETTINGS
from tui.screens.base import Base
from tui.widgets.device import DevicePane
from tui.widgets.epochs import EpochLog
from tui.widgets.output import OutputPane
from tui.widgets.recipe_pane import RecipePane
from tui.widgets.step import StepPane

HIDEABLE: dict[str, type[Widget]] = dict(zip(PANES, (RecipePane, EpochLog, DevicePane, OutputPane), strict=True))
STEPS = {"layout.right": 4, "layout.epochs": 2, "layout.output": 1}  # cells or lines at a time
LAST = 6  # the summary, which is there once the run has ended
BESIDE = (LAST, 7, 8)  # one of them is beside the epochs
ENDED, LOW_ENDED = 14, 12  # lines that the summary needs beside the epochs
WIDE, WIDER = 160, 48  # cells of a screen from which what is right of the chart has more of them, and how many
LOWER = {"layout.epochs": 8, "layout.output": 3}  # on a screen of few rows


class Arranging(Base):
    """Its actions are for the pane that has the keyboard. On a small screen panes are tabs, and nothing of this holds."""

    _beside: int | None = None  # what is beside the epochs: as chosen, else the step, and at the end the summary

    def put_beside(self, pane: int | None) -> None:
        """Show this pane beside the epochs; None: the usual one."""
        self._beside = pane
        now = pane or (LAST if self.has_class("-ended") else 7)
        for n in BESIDE:
            self.set_class(n == now, f"-beside{n}")
        self.lay_out()

    def lay_out(self) -> None:
        """Show the panes as they were chosen."""
        kept, small = self.console_app.preferences, self.has_class("-small")
        hidden = set() if small else set(kept["layout.hidden"])
        for name, pane in HIDEABLE.items():
            self.query_one(pane).set_class(name in hidden, "-hidden")
        right, middle, output = self.query_one("#right"), self.query_one("#middle"), self.query_one(OutputPane)
        ended = self.has_class("-ended")
        right.set_class({"recipe", "device"} <= hidden, "-hidden")
        middle.set_class("epochs" in hidden and not ended and self._beside is None, "-hidden")
        width = (
            WIDER
            if self.size.width >= WIDE and kept["layout.right"] == SETTINGS["layout.right"].default
            else kept["layout.right"]
        )
        right.styles.width = self.query_one(StepPane).styles.width = None if small else width
        summary = (LOW_ENDED if self.has_class("-low") else ENDED) if ended else 0
        middle.styles.height = None if small else max(self._height("layout.epochs"), summary)
        output.styles.height = None if small else self._height("layout.output")

    def _height(self, key: str) -> int:
        """As the person chose it; else as usual, and less where there are few rows: the chart and the recipe need them."""
        kept: int = self.console_app.preferences[key]
        return LOWER[key] if self.has_class("-low") and kept == SETTINGS[key].default else kept

    def show_pane(self, pane: type[Widget]) -> None:
        """Bring it back where it was hidden."""
        kept = self.console_app.preferences
        kept["layout.hidden"] = [name for name in kept["layout.hidden"] if HIDEABLE[name] is not pane]
        self.lay_out()

    def _side_by_side(self) -> bool:
        if self.has_class("-small"):
            self.notify("on a small screen the panes are tabs: 1 to 8 shows them")
        return not self.has_class("-small")

    def action_hide_pane(self) -> None:
        """Hide the pane that has the keyboard."""
        name = next((name for name, pane in HIDEABLE.items() if isinstance(self.focused, pane)), None)
        if not self._side_by_side():
            return
        if name is None:
            self.notify("2 to 5 chooses a pane that can be hidden, its number brings it back")
            return
        kept = self.console_app.preferences
        self.set_focus(None)
        kept["layout.hidden"] = [*kept["layout.hidden"], name]
        self.lay_out()
        self.notify(f"the pane is hidden: {list(HIDEABLE).index(name) + 2} brings it back")

    def action_size_pane(self, step: int) -> None:
        """Make the pane that has the keyboard larger (1) or smaller (-1); without one, the chart."""
        if not self._side_by_side():
            return
        key = {RecipePane: "layout.right", DevicePane: "layout.right", OutputPane: "layout.output"}.get(
            type(self.focused), "layout.epochs"  # type: ignore[arg-type]
        )  # fmt: skip
        kept, setting = self.console_app.preferences, SETTINGS[key]
        if key == "layout.epochs" and not isinstance(self.focused, EpochLog):
            step = -step  # what the epochs leave is the chart's
        kept[key] = int(min(max(kept[key] + step * STEPS[key], setting.minimum), setting.maximum))
        self.lay_out()

    def action_layout(self) -> None:
        """All panes as at first."""
        kept = self.console_app.preferences
        for key in ("layout.hidden", *STEPS):
            kept[key] = SETTINGS[key].default
        self.lay_out()
