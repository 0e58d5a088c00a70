"""What the verdict means, and the change that it proposes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from engine.verdict import Verdict
from tui.screens.base import Dialog


class VerdictScreen(Dialog[bool]):
    """Answers whether the proposed change is to be made ready."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,exclamation_mark", "dismiss(False)", "Close", show=False),
        Binding("enter,e", "take", "Make the change ready", show=False),
    ]

    def __init__(self, verdict: Verdict, change: str, proposal: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._verdict, self._change = verdict, change
        self._proposal = ", ".join(f"{field} = {value}" for field, value in (proposal or {}).items())

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Verdict"
            opens = f"the change {self._change}" if self._change else "the form" if self._proposal else ""
            box.border_subtitle = f"Enter opens {opens} · Esc closes" if opens else "Esc closes"
            yield Static(self._verdict.text, classes="line said", markup=False)
            yield Static(self._verdict.why, classes="line", markup=False)
            if self._change:
                yield Static(f"Proposed: {self._change}, from the next step on.", classes="keys", markup=False)
            elif self._proposal:
                yield Static(f"Proposed: a new run with {self._proposal}.", classes="keys", markup=False)

    def action_take(self) -> None:
        """Close; what is proposed is to be opened."""
        self.dismiss(bool(self._change or self._proposal))
