"""The pane beside the form with what a dry run shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from tui.dry_run import Found


class DryPane(VerticalScroll, can_focus=True):
    """Rows, warnings and, where the person's own code failed, its traceback; arrow keys scroll it."""

    def on_mount(self) -> None:
        self.display = False

    def working(self, seconds: float) -> None:
        """It is under way for so long."""
        self.border_title = f"Dry run · {seconds:.0f} s"

    async def begin(self) -> None:
        """Empty, for a dry run that begins."""
        self.display = True
        self.border_subtitle = "Esc cancels"
        self.working(0.0)
        await self._fill([Static("a few real steps on copies, in a process of its own …", classes="muted")])

    async def show(self, found: Found) -> None:
        """What a dry run without mistakes showed, or how it failed."""
        self.border_title = f"Dry run · {'✗ failed' if found.failure else '✓'} · {found.seconds:.1f} s"
        self.border_subtitle = "Esc closes"
        await self._fill(_contents(found))

    def outdated(self) -> None:
        """The form was changed after the dry run began."""
        self.border_subtitle = "before the last change · Esc closes"

    async def _fill(self, widgets: Iterable[Widget]) -> None:
        await self.remove_children()
        await self.mount_all(list(widgets))
        self.scroll_home(animate=False)


def _contents(found: Found) -> Iterator[Widget]:
    if found.failure:
        yield Static(f"✗ {found.failure}", classes="error", markup=False)
    for sentence in found.warnings:
        yield Static(f"! {sentence}", classes="warning", markup=False)
    for what, value in found.rows:
        yield Horizontal(
            Static(what, classes="what", markup=False), Static(value, classes="value", markup=False), classes="fact"
        )
    if found.printed:
        if not found.failure:
            yield Static("what the code printed", classes="said")
        yield Static(found.printed, classes="printed", markup=False)
