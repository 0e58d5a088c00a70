"""The command palette's entries, made from the table of keys."""

from __future__ import annotations

from functools import partial
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from tui.keys import ALONE, Key, actions
from tui.screens.base import Base
from tui.themes import THEMES

LABEL = 34  # cells


def _line(label: Content, help: str) -> Content:
    """A command and what it does: many of them are on the screen at once."""
    return Content.assemble(label, " " * max(2, LABEL - label.cell_length), (help, "$text-muted"))


def _called(key: Key) -> str:
    return f"{ALONE[key.id]} ({key.shown.split()[0]})" if key.id in ALONE else f"{key.label} ({key.shown})"


class KeyCommands(Provider):
    """The command palette's entries, made from the table of keys."""

    async def discover(self) -> Hits:
        for label, help, act in self._commands():
            yield DiscoveryHit(_line(Content(label), help), act, text=label)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for label, help, act in self._commands():
            if (score := matcher.match(label)) > 0:
                yield Hit(score, _line(matcher.highlight(label), help), act, text=label)

    def _commands(self) -> list[tuple[str, str, Any]]:
        screen = self.screen
        of = screen.NAME if isinstance(screen, Base) else ""
        return [(_called(key), key.help, partial(self.app.run_action, key.action, screen)) for key in actions(of, "app")] + [
            (f"Colours: {name}", words, partial(self.app.run_action, f"app.colours('{name}')", screen))
            for name, (_, words) in THEMES.items()
        ]
