"""`sweep`: several values for some fields, a run for each, and a table of what came of them."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import format
from engine.cli.background import Background
from engine.cli.output import Live, Log, Stream
from engine.cli.recipes import recipe_values
from engine.cli.rows import live_line, say
from engine.cli.signals import Signals
from engine.errors import EpochalError
from engine.events import Event, Progress, RunEnded, RunStarted
from engine.notify import Notifier
from engine.sweep import Member, expand, ranked, shortened

if TYPE_CHECKING:
    from engine.sweep import Outcome


def sweep(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Train a recipe once for each combination of the values. Returns 0 when all have finished, 1 when one failed, 130 and
    143 stopped by a signal."""
    axes = list(arguments.axes)
    named = "=" not in axes[0] and (axes[0].endswith(".toml") or Path(axes[0]).exists())
    arguments.recipe = axes.pop(0) if named else None
    if stray := [axis for axis in axes if "=" not in axis]:
        raise EpochalError(f"{stray[0]!r} is no field with values; write FIELD=VALUE,VALUE,…, such as optimizer.lr=1e-4,1e-3")
    if arguments.background:
        return _in_background(arguments, axes, out, err)
    members = expand(recipe_values(arguments), axes)
    if arguments.list:
        out.lines(format.table([list(shortened(members[0].differs)), *([*m.differs.values()] for m in members)]))
        return 0
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        from engine.run import runs_root
        from engine.sweep.sweeping import Sweep

        notifier = stack.enter_context(Notifier.of_user(lambda sentence: err.line(f"epochal: {sentence}")))
        made = Sweep(members, runs=runs_root(arguments.runs), notifier=notifier)
        made.on(Event, Telling(members, arguments, out, err, stack))
        signals.watch(made.control)
        outcomes = made.fit()
        out.live.clear()
    if arguments.json:
        out.line(json.dumps([as_values(outcome) for outcome in ranked(outcomes)], ensure_ascii=False))
    else:
        out.lines(as_table(ranked(outcomes)))
    return signals.status or int(any(outcome.state == "failed" for outcome in outcomes))


def _in_background(arguments: argparse.Namespace, axes: list[str], out: Stream, err: Stream) -> int:
    """The sweep in a process of its own, listed and stopped as a job of the queue that did not wait."""
    background = Background(out, err)
    if background.process:
        return background.wait(arguments, out, err)
    with Signals() as signals:
        from engine.cli.queue import job_of
        from engine.jobs import JobTrainer
        from engine.run import runs_root
        from engine.run.queue import Queue

        queue = Queue(runs_root(arguments.runs))
        (job,) = queue.add([replace(job_of(recipe_values(arguments), tuple(axes)), direct=True)])
        return JobTrainer(queue, job.id, lambda run: background.begun(run, job=job.id)).train(signals.watch)


class Telling:
    """A line for each member that has ended, and on a terminal a live line below."""

    def __init__(
        self, members: list[Member], arguments: argparse.Namespace, out: Stream, err: Stream, stack: ExitStack
    ) -> None:
        self._count, self._out, self._err, self._stack = len(members), out, err, stack
        self._quiet: bool = arguments.quiet or arguments.json
        self._started: dict[int, RunStarted] = {}
        self._ended = 0
        if out.isatty() and not self._quiet:
            out.live = err.live = Live(out.terminal)

    def __call__(self, member: Member, event: Event) -> None:
        say(event, self._err, self._quiet)
        match event:
            case RunStarted():
                self._started[id(member)] = event
                self._log(event)
            case Progress():
                if self._out.live.due:
                    done = f"{self._ended + 1}/{self._count} {member.label}  "
                    started = self._started.get(id(member))
                    self._out.live.draw(lambda width: done + live_line(started, event, max(0, width - len(done))))
            case RunEnded():
                self._ended += 1
                if not self._quiet:
                    place = f"{self._ended:>{len(str(self._count))}}/{self._count}"
                    self._out.line(f"{place}  {member.label}  {_said(self._started.get(id(member)), event)}")

    def _log(self, event: RunStarted) -> None:
        """What is printed from here on goes into this run's output.log."""
        if event.path is not None:
            if self._out.log is not None:
                self._out.log.close()
            self._out.log = self._err.log = log = Log()
            log.open(Path(event.path) / "output.log")
            self._stack.callback(log.close)


def _said(started: RunStarted | None, event: RunEnded) -> str:
    best = event.best.get(started.monitor) if started else None
    words = [event.state if event.state == "finished" else f"{event.state}: {event.reason}"]
    if best is not None and started is not None:
        words.append(f"{format.metric_name(started.monitor)} {format.value(best)} in epoch {event.best['epoch']:.0f}")
    return " · ".join([*words, format.duration(event.seconds)])


def as_values(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values; a number that is not finite is a word."""
    best = {key: value if abs(value) < float("inf") else format.value(value) for key, value in outcome.best.items()}
    return {
        "values": dict(outcome.member.differs),
        "state": outcome.state,
        "reason": outcome.reason,
        "monitor": outcome.monitor,
        "best": best,
        "seconds": round(outcome.seconds, 3),
        "run": None if outcome.run is None else str(outcome.run.path),
    }


def as_table(outcomes: list[Outcome]) -> list[str]:
    """The best first; beneath it why a member has not finished."""
    keys = dict.fromkeys(key for outcome in outcomes for key in (outcome.monitor, *outcome.best))
    metrics = [key for key in keys if key.startswith("val/") or key in {outcome.monitor for outcome in outcomes} - {""}]
    names = [format.metric_name(key) for key in metrics]
    rows = [[*shortened(outcomes[0].member.differs), *names, "epoch", "run"]]
    for outcome in outcomes:
        values = [format.value(outcome.best.get(key)) for key in metrics]
        epoch = f"{outcome.best['epoch']:.0f}" if outcome.best else "–"
        run = outcome.state if outcome.run is None else outcome.run.name
        rows.append([*outcome.member.differs.values(), *values, epoch, run])
    whys = [
        f"{outcome.member.label}: {outcome.state}{f', {outcome.reason}' if outcome.reason else ''}"
        for outcome in outcomes
        if outcome.state not in ("finished", "left out")
    ]
    return [*format.table(rows, right=",".join([*names, "epoch"])), *whys]
