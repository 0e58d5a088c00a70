"""`pause`, `continue`, `checkpoint`, `validate`, `stop` and `set`: steer a run that another process trains."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable

from engine.changes import Change, parse_change
from engine.cli import format
from engine.cli.output import Stream
from engine.cli.rows import changed, metric_values
from engine.errors import RunError
from engine.events import (
    CheckpointFailed,
    CheckpointWritten,
    EpochEnded,
    Event,
    Message,
    RunContinued,
    RunEnded,
    RunPaused,
    SettingChanged,
    Validated,
)

PATIENCE_SECONDS = 5.0  # a step may take long: then what was asked is left to itself
LET_GO_SECONDS = 60.0  # a lock that stays is that of somebody who trains it again
POLL_SECONDS = 0.05

Answer = tuple[bool, str]  # whether it was done, and the sentence that says so
Reading = Callable[[Event], Answer | None]  # what an event says to the question, if anything
_NOT_YET = "asked; it will be done after the step under way"


def pause(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Hold a run after the step under way."""

    def read(event: Event) -> Answer | None:
        return (True, f"paused at step {event.step:,}") if isinstance(event, RunPaused) else None

    talk = Talk(arguments, out, err)
    if talk.paused:
        return talk.say(True, "is paused already")
    talk.ask("pause")
    return talk.hear(read)


def continue_(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Let a paused run go on."""

    def read(event: Event) -> Answer | None:
        return (True, f"goes on from step {event.step:,}") if isinstance(event, RunContinued) else None

    talk = Talk(arguments, out, err)
    talk.ask("resume")  # even where it isn't paused: it may be about to
    return talk.hear(read) if talk.paused else talk.say(True, "is not paused")


def checkpoint(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Have a checkpoint written after the step under way."""

    def read(event: Event) -> Answer | None:
        match event:
            case CheckpointWritten() if event.step >= talk.step:  # not one that was being written already
                return True, f"checkpoint of step {event.step:,} written in {format.duration(event.seconds)}"
            case CheckpointFailed() if event.step >= talk.step:
                return False, f"the checkpoint of step {event.step:,} was not written: {event.reason}"
        return None

    talk = Talk(arguments, out, err)
    talk.ask("checkpoint")
    return talk.hear(read)


def validate(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Have the run validated after the step under way."""

    def read(event: Event) -> Answer | None:
        if isinstance(event, Validated | EpochEnded):
            measured = {name: value for name, value in event.metrics.items() if name.startswith("val/")}
            return (True, f"validated at step {event.step:,}: {metric_values(measured)}") if measured else None
        return None

    talk = Talk(arguments, out, err)
    talk.ask("validate")
    return talk.hear(read)


def stop(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """End a run after the step under way, with a checkpoint."""

    def read(event: Event) -> Answer | None:
        if isinstance(event, RunEnded):
            return event.state in ("stopped", "finished"), f"{event.state} at step {event.step:,}: {event.reason}"
        return None

    talk = Talk(arguments, out, err)
    talk.ask("stop")
    status = talk.hear(read, patience=float("inf") if arguments.wait else PATIENCE_SECONDS)
    if arguments.wait:
        talk.let_go()
    return status


def set_(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Change values of the plan after the step under way. All of them are checked before the first is sent."""
    changes = [parse_change(text) for text in arguments.changes]
    talk = Talk(arguments, out, err)
    for change in changes:
        talk.ask("set", **dataclasses.asdict(change))
    return talk.hear(*map(_reading, changes))


def _reading(change: Change) -> Reading:
    def read(event: Event) -> Answer | None:
        match event:
            case SettingChanged(field=change.field, cause="asked"):
                return True, changed(event)
            case Message(level="warning") if change.field in event.text:
                return False, event.text
        return None

    return read


class Talk:
    """Asks a run for something and hears from its journal what came of it."""

    def __init__(self, arguments: argparse.Namespace, out: Stream, err: Stream) -> None:
        from engine.run import Run, runs_root
        from engine.run.follow import Follower

        self._out, self._err = out, err
        self._run = Run.open(arguments.run, runs_root(arguments.runs))
        self._run.refuse_if_foreign()
        self._heard: list[Event] = []
        self._follower = Follower(self._run, self._heard.append)
        self._follower.poll()
        self._heard.clear()
        progress = self._follower.history.progress
        self.step = 0 if progress is None else progress.step  # where the run is, or was a moment ago

    @property
    def paused(self) -> bool:
        return self._follower.alive and self._follower.history.paused

    def ask(self, ask: str, **options: object) -> None:
        """RunError, in one sentence, where nobody trains the run."""
        self._run.tell(ask, **options)

    def hear(self, *readings: Reading, patience: float = PATIENCE_SECONDS) -> int:
        """Wait until each reading has found its answer, and say it. Returns the exit status: 0, or 1 where one is a no."""
        waiting, status = list(readings), 0
        deadline = time.monotonic() + patience
        while waiting:
            self._follower.poll()
            for event in self._heard:
                for reading in list(waiting):
                    answer = reading(event)
                    if answer is not None:
                        waiting.remove(reading)
                        status |= self.say(*answer)
            self._heard.clear()
            ended = self._follower.history.ended
            if waiting and ended is not None:
                return self.say(False, f"{ended.state} before that was done: {ended.reason}")
            if waiting and time.monotonic() > deadline:
                self.say(True, _NOT_YET)
                break
            time.sleep(POLL_SECONDS)
        return status

    def let_go(self) -> None:
        """Wait until the one who trained the run holds it no longer, soon after its end: then it can be resumed."""
        deadline = time.monotonic() + LET_GO_SECONDS
        while time.monotonic() < deadline:
            try:
                self._run.refuse_if_training()
                self._run.lock.acquire()
            except RunError:
                time.sleep(POLL_SECONDS)
            else:
                self._run.lock.release()
                return

    def say(self, done: bool, sentence: str) -> int:
        """One line; returns the exit status."""
        if done:
            self._out.line(f"{self._run.name}: {sentence}")
        else:
            self._err.line(f"epochal: {self._run.name}: {sentence}")
        return int(not done)
