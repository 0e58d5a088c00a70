"""Calling the person who looks elsewhere: at a run's end, when it fails, when its loss is not a number, when it stands still.

The terminal is asked to ring and to show a notification, by escape codes that travel through SSH and tmux, unless somebody is
at the keyboard. A command or a webhook, where one is set, is told in any case.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from tui.widgets.formats import clock, number, place

if TYPE_CHECKING:
    from engine.history import History

PRESENT = 60.0  # seconds after a key for which somebody is taken to be at the keyboard
STALL = 120.0  # seconds without a word, at least, and ten times as long as the run was ever silent
TIMEOUT = 30.0  # of the command and the webhook
WAYS = ("auto", "off", "always", "bell", "osc9", "osc777")


@dataclass(frozen=True, slots=True)
class Call:
    """`kind` is "end", "failure", "nan" or "stall"; `text` one sentence."""

    kind: str
    run: str
    text: str


class Watched(Protocol):
    """A run that may call."""

    @property
    def history(self) -> History: ...

    @property
    def alive(self) -> bool: ...


class Watch:
    """Finds what is worth a call in one run: each thing once. What was so when the watch began is old news."""

    def __init__(self, history: History, now: float, stall: float = STALL) -> None:
        self._stall = stall
        self._ended = history.ended is not None
        self._rewinds = len(history.rewinds)
        self._nan = self._is_nan(history)
        self._version, self._heard, self._longest = history.version, now, 0.0
        self._stalled = False

    def look(self, history: History, alive: bool, now: float) -> Iterator[Call]:
        """What came to be since the last look."""
        name = history.started.name if history.started else "the run"
        ended = history.ended
        if ended is not None and not self._ended:
            if ended.state in ("failed", "died"):
                yield Call("failure", name, f"{name} failed: {ended.reason}")
            else:
                yield Call("end", name, f"{name} {ended.state}: {ended.reason}{_best(history)}")
        self._ended = ended is not None
        yield from self._numbers(history, name)
        yield from self._silence(history, name, alive, now)

    def _numbers(self, history: History, name: str) -> Iterator[Call]:
        nan = self._is_nan(history)
        if len(history.rewinds) > self._rewinds:
            last = history.rewinds[-1]
            yield Call("nan", name, f"{name}: {last.reason} at step {last.step:,}; it goes on from step {last.to:,}")
        elif nan and not self._nan and history.ended is None:
            yield Call("nan", name, f"{name}: the loss is not a finite number")
        self._rewinds, self._nan = len(history.rewinds), self._nan or nan

    def _silence(self, history: History, name: str, alive: bool, now: float) -> Iterator[Call]:
        silent = now - self._heard
        if history.version != self._version or history.state in ("starting", "paused") or not alive:
            if history.progress is not None and not history.paused and not self._stalled:
                self._longest = max(self._longest, silent)
            self._version, self._heard, self._stalled = history.version, now, False
        elif not self._stalled and silent > max(self._stall, 10 * self._longest):
            self._stalled = True
            yield Call("stall", name, f"{name} has not said a word for {clock(silent)} ({history.state})")

    @staticmethod
    def _is_nan(history: History) -> bool:
        curve = history.series.get("train/loss")
        newest = curve.newest if curve is not None else None
        return newest is not None and not math.isfinite(newest[1][1])


def _best(history: History) -> str:
    best, monitor = history.best, history.started.monitor if history.started else ""
    if best is None or monitor not in best.metrics:
        return ""
    return f"; best {monitor} {number(best.metrics[monitor])} at {place(best)}"


class Attention:
    """Watches runs and calls. `write` takes what goes to the terminal; `present` says whether somebody is at the keyboard.

    `problems` are sentences about a command or webhook that failed.
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
        said = environment.get("EPOCHAL_NOTIFY")
        self._told = [said] if said else [kept[key] for key in ("command", "webhook") if kept.get(key)]
        self._stall = float(kept.get("stall_seconds", STALL))
        self.problems: deque[str] = deque()
        self.write = write
        self.present = present
        self._environment = environment
        self._now = now
        self._watches: WeakKeyDictionary[Watched, Watch] = WeakKeyDictionary()
        self._telling: list[threading.Thread] = []
        self._ways = {
            way.strip() for way in (environment.get("EPOCHAL_ATTENTION") or kept.get("terminal") or "auto").lower().split(",")
        } - {""}
        if unknown := sorted(self._ways - set(WAYS)):
            self.problems.append(f"EPOCHAL_ATTENTION is {', '.join(unknown)}, which is none of {', '.join(WAYS)}")

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

    def call(self, call: Call) -> None:
        """Tell it in every way that is set."""
        if "off" not in self._ways and ("always" in self._ways or not self.present()):
            self.write(escapes(call, self._ways, self._environment))
        for whom in self._told:
            thread = threading.Thread(target=self._tell, args=(whom, call), name="epochal-notify", daemon=True)
            self._telling.append(thread)
            thread.start()

    def finish(self) -> None:
        """Wait until all is told, before the process ends."""
        for thread in self._telling:
            thread.join(TIMEOUT)

    def _tell(self, notify: str, call: Call) -> None:
        try:
            if re.match(r"https?://", notify):
                _post(notify, call)
            else:
                _run(notify, call, self._environment)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.problems.append(
                f"{'EPOCHAL_NOTIFY' if self._environment.get('EPOCHAL_NOTIFY') else 'the notification'} failed: {error}"
            )


def _post(url: str, call: Call) -> None:
    """`text` is what Slack and its kind show."""
    import urllib.request

    body = json.dumps({"text": call.text, "event": call.kind, "run": call.run}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=TIMEOUT).close()


def _run(command: str, call: Call, environment: Mapping[str, str]) -> None:
    """The command with the sentence as its last argument."""
    subprocess.run(
        [*shlex.split(command), call.text], check=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT,
        env={**environment, "EPOCHAL_EVENT": call.kind, "EPOCHAL_RUN": call.run},
    )  # fmt: skip


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
