"""A list that draws what is under its cursor below it."""

from __future__ import annotations

from abc import abstractmethod

from tui.screens.base import SMALL
from tui.screens.preview import Preview
from tui.screens.table import TableScreen

SPARE = 18  # rows besides those of the list, from which a screen that is not tall has room for the preview as well


class Previewing(TableScreen):
    """It does so where there is room, and until the person takes it away."""

    @abstractmethod
    def _draw_below(self, preview: Preview) -> bool:
        """Have what is under the cursor drawn; whether there is anything."""

    def _tell(self) -> None:
        super()._tell()
        preview, height = self.query_one(Preview), self.size.height
        room = height >= SMALL[1] or height - len(self._drawn[1]) >= SPARE
        shown = room and self.console_app.listing.preview and self._draw_below(preview)
        if not shown:
            preview.of(None, None)
        preview.display = shown
        self.set_class(shown, "-preview")

    def on_screen_suspend(self) -> None:
        if not self.app.screen.is_modal:  # under a dialog it stays in sight
            self.query_one(Preview).close()

    def action_preview(self) -> None:
        """Draw what is under the cursor below the list, or give that the room."""
        listing = self.console_app.listing
        listing.preview = not listing.preview
        self._tell()
        if self._at() and listing.preview != self.has_class("-preview"):
            self.notify(f"there is no room for it below the list; {SMALL[1]} rows are enough")
