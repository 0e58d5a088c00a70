"""What befell a run on its way, in a few words: changes of its settings, and rewinds."""

from __future__ import annotations

from engine.changes import EXECUTIONS
from engine.events import Rewound, SettingChanged
from engine.history import History
from tui.widgets.formats import rate

_ROUND = (0.1, 0.2, 0.25, 0.5, 2, 4, 5, 10)  # factors that a person gives


def note(event: SettingChanged | Rewound) -> str:
    """`lr x0.5`, `lr 3.0e-4`, `patience none`, `rewound to 1,200`."""
    if isinstance(event, Rewound):
        return f"rewound to {event.to:,}"
    name = event.field.rpartition(".")[2]
    if name == "execution":
        return EXECUTIONS[int(event.value or 0)]
    if event.value is None:
        return f"{name} none"
    if name == "lr" and event.before:
        factor = next((f for f in _ROUND if abs(event.value / event.before - f) < 1e-6 * f), None)
        if factor is not None:
            return f"{name} x{factor:g}"
    return f"{name} {rate(event.value)}"


def befell(history: History) -> list[tuple[int, str]]:
    """(step after which it holds, its note), in order of time."""
    events: list[SettingChanged | Rewound] = sorted([*history.settings, *history.rewinds], key=lambda event: event.time)
    return [(event.to if isinstance(event, Rewound) else event.step, note(event)) for event in events]


def notes_between(history: History, first: int, last: int | None = None) -> list[str]:
    """What holds from a step after `first` up to `last` on, each thing once."""
    return list(dict.fromkeys(text for step, text in befell(history) if step >= first and (last is None or step < last)))
