"""The recipe pane: what is being trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from tui.widgets.formats import cell_len, cut, rate
from tui.widgets.rows import Pane, Row

_NAMED = ("data", "model", "loss", "optimizer", "scheduler")


class RecipePane(Pane):
    """The running recipe as keys and values; • marks what differs from the default."""

    DEFAULT_CSS = """
    RecipePane { overflow-x: hidden; }
    """
    BORDER_TITLE: ClassVar[str] = "2 Recipe"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._values: Mapping[str, Any] = {}
        self._default: Mapping[str, Any] = {}

    def show_recipe(self, values: Mapping[str, Any], default: Mapping[str, Any] | None = None) -> None:
        """Show the nested `values` of a recipe. `default` has the same shape; nothing is marked without it."""
        self._values, self._default = values, {} if default is None else default
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        if self.is_mounted and self.size.width:
            width, height = self.size
            rows = recipe_rows(self._values, self._default, width)
            if len(rows) > height:  # beside a scrollbar
                rows = recipe_rows(self._values, self._default, width - 1)
            self.set_rows(rows)


def recipe_rows(values: Mapping[str, Any], default: Mapping[str, Any], width: int) -> list[Row]:
    """A line for each section's name and, under it, one for each of its values."""
    rows: list[Row] = []
    room = max((len(key) for depth, key, _, _ in _flat(values, default) if depth), default=0)
    for depth, key, value, differs in _flat(values, default):
        head = f" {key:<{room}} " if depth else f"{key:<9} "
        text = "" if value is None else _write(value)
        spare = len(head) - len(key) - 2  # a long value may begin further left, after its own key
        over = max(0, 2 + len(head) + cell_len(text) - width)
        head = head[: len(head) - min(over, max(spare, 0))]
        cells = max(4, width - 2 - len(head))
        rows.append([("• " if differs else "  ", "mark"), (head, "label"), (cut(text, cells), "" if depth else "strong")])
    return rows or [[(" this run has no recipe", "faint")]]


def _flat(values: Mapping[str, Any], default: Mapping[str, Any]) -> Iterator[tuple[int, str, Any, bool]]:
    """(depth, key, value, differs from the default); a section stands under its part's name."""
    compare = bool(default)
    for key, value in values.items():
        other = default.get(key)
        if not isinstance(value, Mapping):
            yield 0, key, value, compare and value != other
            continue
        section = other if isinstance(other, Mapping) else {}
        named = key in _NAMED and "name" in value
        yield 0, key, value["name"] if named else None, compare and named and value["name"] != section.get("name")
        # Under another part than the default's, its values have no default to differ from.
        same = not named or value["name"] == section.get("name")
        for inner, item in value.items():
            if not (named and inner == "name"):
                yield 1, inner, item, compare and same and inner in section and item != section[inner]


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return rate(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_write(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_write(item)}" for key, item in value.items())
    return str(value)
