"""Sinks: what a run states, told to another tool by a thread of its own, which never slows the training and never fails it."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from engine.errors import plain
from engine.events import EpochEnded, Event, Logged, Message, RunEnded, RunStarted, Trained, Validated

WAITING = 10_000  # events that may wait; of a tool that is further behind nothing is expected any more
PATIENCE = 15.0  # seconds that a run waits at its end for what is not told yet


class Tool(Protocol):
    """What a sink tells. Everything is called in the sink's thread, `begin` first."""

    def begin(self, started: RunStarted) -> None: ...

    def log(self, step: int, values: Mapping[str, float], at: float) -> None: ...

    def take(self, event: Event) -> None:
        """Any event, after its values."""

    def end(self, ended: RunEnded) -> None: ...


class Sink:
    """Listens to all events of one run: `reporter.on(Event, Sink("MLflow", tool, reporter.emit).take)`.

    What goes wrong is told once, as a warning of the run, and the tool is then left alone.
    """

    def __init__(self, name: str, tool: Tool, emit: Callable[[Event], None]) -> None:
        self._name, self._tool, self._emit = name, tool, emit
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._points = Points()
        self._thread: threading.Thread | None = None
        self._problem = ""
        self._over = False

    def take(self, event: Event) -> None:
        """One event, in the training thread."""
        if self._over:
            return
        if self._thread is None:
            if not isinstance(event, RunStarted):
                return
            self._thread = threading.Thread(target=self._work, name=f"epochal-{self._name.lower()}", daemon=True)
            self._thread.start()
        self._events.put(event)
        if self._events.qsize() > WAITING:
            self._problem = self._problem or f"it is {WAITING:,} events behind"
        if isinstance(event, RunEnded):
            self._thread.join(PATIENCE)
            if self._thread.is_alive():
                self._problem = f"it was not done {PATIENCE:g} seconds after the end"
        if self._problem:
            self._over = True
            text = plain(f"{self._name} is told nothing more of this run: {self._problem}")
            if isinstance(event, RunEnded):  # nothing comes into the journal after its last line
                print(f"epochal: warning: {text}", file=sys.stderr, flush=True)
            else:
                self._emit(Message(text=text, level="warning"))

    def _work(self) -> None:
        try:
            while not self._over:
                event = self._events.get()
                if isinstance(event, RunStarted):
                    self._tool.begin(event)
                for step, values in self._points.of(event):
                    self._tool.log(step, values, event.time)
                self._tool.take(event)
                if isinstance(event, RunEnded):
                    self._tool.end(event)
                    return
        except Exception as error:
            self._problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]


class Points:
    """The values of events, step by step: each once, whether they come by steps or with an epoch's row."""

    def __init__(self) -> None:
        self._by_step = {"train/loss"}

    def of(self, event: Event) -> Iterator[tuple[int, Mapping[str, float]]]:
        """(step, values) in ascending order."""
        match event:
            case Trained():
                for k, step in enumerate(event.steps):
                    more = {"gradient norm": event.norm[k]} if event.norm else {}
                    yield step, {"train/loss": event.loss[k], "lr": event.lr[k], **more, "epoch": event.epoch}
            case Logged():
                self._by_step |= event.steps.keys()
                rows: dict[int, dict[str, float]] = {}
                for name, steps in event.steps.items():
                    for step, value in zip(steps, event.values[name], strict=True):
                        rows.setdefault(step, {})[name] = value
                yield from sorted(rows.items())
            case EpochEnded():
                if fresh := {name: value for name, value in event.metrics.items() if name not in self._by_step}:
                    yield event.step, fresh
            case Validated():
                yield event.step, event.metrics
