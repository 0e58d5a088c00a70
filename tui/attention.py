"""Calling the person who looks elsewhere: at a run's end, when it fails, when its loss is not a number, when it stands still.

The terminal is asked to ring and to show a notification, by escape codes that travel through SSH and tmux, unless somebody is
at the keyboard. The command or webhook is told by the process that trains: see `engine.notify`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from engine.notify import STALL, Call, Notifier, Watch

if TYPE_CHECKING:
    from engine.history import History

PRESENT = 60.0  # seconds after a key for which somebody is taken to be at the keyboard
WAYS = ("auto", "off", "always", "bell", "osc9", "osc777")


class Watched(Protocol):
    """A run that may call."""

    @property
    def history(self) -> History: ...

    @property
    def alive(self) -> bool: ...


class Attention:
    """Watches runs and calls. `write` takes what goes to the terminal; `present` says whether somebody is at the keyboard.

    `notifier` tells the command or webhook of the runs that this process trains, and of others that died: those have nobody
    else to tell of it. `problems` are sentences about one that failed.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        present: Callable[[], bool],
        environment: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.monotonic,
        settings: Mapping[str, Any] | None = None,  # those of the section "attention"; the environment goes before them
    ) -> None:
        kept = settings or {}
        self._stall = float(kept.get("stall_seconds", STALL))
        self.problems: deque[str] = deque()
        self.notifier = Notifier(kept, environment, self.problems.append)
        self.write = write
        self.present = present
        self._environment = environment
        self._now = now
        self._watches: WeakKeyDictionary[Watched, Watch] = WeakKeyDictionary()
        self._ways = {
            way.strip() for way in (environment.get("EPOCHAL_ATTENTION") or kept.get("terminal") or "auto").lower().split(",")
        } - {""}
        if unknown := sorted(self._ways - set(WAYS)):
            self.problems.append(f"EPOCHAL_ATTENTION is {', '.join(unknown)}, which is none of {', '.join(WAYS)}")

    def expect(self, run: Watched) -> None:
        """Watch a run that is about to begin: it may be over before the first look."""
        self._watches[run] = Watch(run.history, self._now(), self._stall)

    def look(self, *runs: Watched) -> None:
        """Call for what came to be in these runs since the last look."""
        now = self._now()
        for run in runs:
            history = run.history
            if run not in self._watches:
                if not run.alive:  # over long since, or not looked at yet
                    continue
                self._watches[run] = Watch(history, now, self._stall)
            for call in self._watches[run].look(history, run.alive, now):
                self.call(call)
                if call.kind == "failure" and history.state == "died":
                    self.notifier.call(call)

    def call(self, call: Call) -> None:
        """Ring and notify, as it is set."""
        if "off" not in self._ways and ("always" in self._ways or not self.present()):
            self.write(escapes(call, self._ways, self._environment))

    def finish(self) -> None:
        """Wait until all is told, before the process ends; not for long."""
        self.notifier.finish()


def escapes(call: Call, ways: set[str], environment: Mapping[str, str]) -> str:
    """What makes the terminal ring and notify: the ways that are named, or else those it is likely to know."""
    named = ways & {"bell", "osc9", "osc777"} or {"bell", *_likely(environment)}
    text = "".join(character for character in call.text if character.isprintable())[:200]
    sequences = {"osc9": f"\x1b]9;{text}\x07", "osc777": f"\x1b]777;notify;epochal;{text.replace(';', ',')}\x07"}
    codes = "".join(_through(code, environment) for way, code in sequences.items() if way in named)
    return codes + ("\x07" if "bell" in named else "")


def _likely(environment: Mapping[str, str]) -> set[str]:
    """The notification that the terminal understands. One that understands none passes over it, but for the plainest."""
    term = environment.get("TERM", "")
    if term in ("", "dumb", "linux") or term.startswith("vt"):
        return set()
    if "VTE_VERSION" in environment or term.startswith(("rxvt", "foot")):
        return {"osc777"}
    return {"osc9"}


def _through(code: str, environment: Mapping[str, str]) -> str:
    """Wrapped for the multiplexer that stands between, which would swallow it."""
    if environment.get("TMUX"):
        return "\x1bPtmux;" + code.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return f"\x1bP{code}\x1b\\" if environment.get("STY") else code
