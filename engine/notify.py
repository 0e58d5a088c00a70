"""Telling a person who looks elsewhere, by a command or a webhook: at a run's end, when it fails, when its loss is not a
number, when it stands still.

Each process tells of the runs that it trains. Who only watches one tells what its process no longer can.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from engine.preferences import NAME, Preferences

if TYPE_CHECKING:
    from engine.history import History

STALL = 120.0  # seconds without a word, at least, and ten times as long as the run was ever silent
LOOK_SECONDS = 1.0  # between two looks at runs that may say nothing
TIMEOUT = 30.0  # of the command and the webhook
PATIENCE = 5.0  # seconds that a process waits at its end for those that are not done
KEYS = ("command", "webhook", "stall_seconds")  # of the settings' section "attention"


@dataclass(frozen=True, slots=True)
class Call:
    """`kind` is "end", "failure", "nan" or "stall"; `text` one sentence."""

    kind: str
    run: str
    text: str


class Trains(Protocol):
    """A training that can be listened to."""

    @property
    def history(self) -> History: ...

    def on(self, kind: type, listener: Callable[[Any], None], /) -> object: ...


class Watch:
    """Finds what is worth a call in one run: each thing once. What was so when the watch began is old news."""

    def __init__(self, history: History, now: float, stall: float = STALL) -> None:
        self._stall = stall
        self._ended = history.ended is not None
        self._rewinds = len(history.rewinds)
        self._nan = _is_nan(history)
        self._version, self._heard, self._longest = history.version, now, 0.0
        self._stalled = False

    def look(self, history: History, alive: bool, now: float) -> Iterator[Call]:
        """What came to be since the last look."""
        name = history.started.name if history.started else "the run"
        yield from self._numbers(history, name)
        ended = history.ended
        if ended is not None and not self._ended:
            if ended.state in ("failed", "died"):
                yield Call("failure", name, f"{name} failed: {ended.reason}")
            else:
                yield Call("end", name, f"{name} {ended.state}: {ended.reason}{_best(history)}")
        self._ended = ended is not None
        yield from self._silence(history, name, alive, now)

    def _numbers(self, history: History, name: str) -> Iterator[Call]:
        nan = _is_nan(history)
        if len(history.rewinds) > self._rewinds:
            last = history.rewinds[-1]
            yield Call("nan", name, f"{name}: {last.reason} at step {last.step:,}; it goes on from step {last.to:,}")
        elif nan and not self._nan and history.ended is None:  # a failure says why
            yield Call("nan", name, f"{name}: the loss is not a finite number")
        self._rewinds, self._nan = len(history.rewinds), self._nan or nan

    def _silence(self, history: History, name: str, alive: bool, now: float) -> Iterator[Call]:
        silent = now - self._heard
        if history.version != self._version or history.state in ("starting", "paused") or not alive:
            if history.progress is not None and not history.paused and not self._stalled:
                self._longest = max(self._longest, silent)
            self._version, self._heard, self._stalled = history.version, now, False
        elif not self._stalled and silent > max(self._stall, 10 * self._longest):
            from engine.cli.format import clock  # with all of the command line, which the console's start does without

            self._stalled = True
            yield Call("stall", name, f"{name} has not said a word for {clock(silent)} ({history.state})")


class Notifier:
    """Runs the command or posts to the webhook that is set, in threads; without one it does nothing.

    `say` gets a sentence, each once, about what failed; from any thread. As a context manager it waits at the end.
    """

    def __init__(
        self,
        settings: Mapping[str, Any] | None = None,  # of the section "attention"; EPOCHAL_NOTIFY goes before them
        environment: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        kept = settings or {}
        self._environment = os.environ if environment is None else environment
        own = self._environment.get("EPOCHAL_NOTIFY")
        self._whom = [own] if own else [kept[key] for key in ("command", "webhook") if kept.get(key)]
        self._called = "EPOCHAL_NOTIFY" if own else "the notification"
        self._stall = float(kept.get("stall_seconds", STALL))
        self._say = say or _print
        self._said: set[str] = set()
        self._lock = threading.RLock()
        self._watches: dict[Trains, Watch] = {}
        self._telling: dict[str, threading.Thread] = {}  # the newest that tells each
        self._looking: threading.Thread | None = None
        self._over = threading.Event()

    @classmethod
    def of_user(cls, say: Callable[[str], None] | None = None) -> Notifier:
        """As the environment and the person's settings have it."""
        preferences = Preferences.of_user()
        notifier = cls({key: preferences[f"attention.{key}"] for key in KEYS}, say=say)
        for sentence in preferences.problems:
            if f"{NAME}: " not in sentence or f"{NAME}: attention" in sentence:  # the others are about screens
                notifier._problem(sentence)
        return notifier

    def __enter__(self) -> Notifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def watch(self, trainer: Trains) -> None:
        """Tell of this training from its start to its end."""
        if not self._whom:
            return
        from engine.events import RunEnded, RunStarted  # not before there is a run: a console's first frame needs none

        trainer.on(RunStarted, lambda _: self._begin(trainer))
        trainer.on(RunEnded, lambda _: self._end(trainer))

    def call(self, call: Call) -> None:
        """Tell it, after what is being told already, and go on at once."""
        with self._lock:
            for whom in self._whom:
                arguments = whom, call, self._telling.get(whom)
                thread = self._telling[whom] = threading.Thread(
                    target=self._tell, args=arguments, name="epochal-notify", daemon=True
                )
                thread.start()

    def finish(self) -> None:
        """Wait until all is told, but not for long."""
        self._over.set()
        until = time.monotonic() + PATIENCE
        threads = list(self._telling.values())
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            self._problem(f"{self._called} was not done after {PATIENCE:g} seconds; nobody waits for it any longer")

    def _begin(self, trainer: Trains) -> None:
        with self._lock:
            self._watches[trainer] = Watch(trainer.history, time.monotonic(), self._stall)
            if self._looking is None:
                self._looking = threading.Thread(target=self._look_on, name="epochal-watch", daemon=True)
                self._looking.start()

    def _end(self, trainer: Trains) -> None:
        with self._lock:
            self._look(trainer)
            self._watches.pop(trainer, None)

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with self._lock:
                for trainer in self._watches:
                    self._look(trainer)

    def _look(self, trainer: Trains) -> None:
        if (watch := self._watches.get(trainer)) is not None:
            for call in watch.look(trainer.history, True, time.monotonic()):
                self.call(call)

    def _tell(self, whom: str, call: Call, before: threading.Thread | None) -> None:
        if before is not None:  # in their order
            before.join()
        try:
            if re.match(r"https?://", whom):
                _post(whom, call)
            else:
                _run(whom, call, self._environment)
        except Exception as error:  # whatever is wrong with it is no affair of the training
            self._problem(f"{self._called} failed: {' '.join(str(error).split())}")

    def _problem(self, sentence: str) -> None:
        with self._lock:
            if sentence in self._said:
                return
            self._said.add(sentence)
        self._say(sentence)


def _print(sentence: str) -> None:
    print(f"epochal: {sentence}", file=sys.stderr, flush=True)


def _is_nan(history: History) -> bool:
    curve = history.series.get("train/loss")
    newest = curve.newest if curve is not None else None
    return newest is not None and not math.isfinite(newest[1][1])


def _best(history: History) -> str:
    best, monitor = history.best, history.started.monitor if history.started else ""
    if best is None or monitor not in best.metrics:
        return ""
    from engine.cli.format import value

    return f"; best {monitor} {value(best.metrics[monitor])} at {best.place}"


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
