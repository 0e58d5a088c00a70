"""A run as a person reads it in a terminal or a log file: a header, a row an epoch, a live line, what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from engine.changes import EXECUTIONS
from engine.cli import format
from engine.cli.output import Stream
from engine.errors import plain
from engine.events import (
    CheckpointFailed,
    CheckpointWritten,
    EpochEnded,
    Event,
    Message,
    Progress,
    Rewound,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    SettingChanged,
    Validated,
)


class Rows:
    """Writes events to `out`; their messages go elsewhere (`say`). With `quiet` only the closing lines are written."""

    def __init__(self, out: Stream, command: str, quiet: bool = False) -> None:
        self._out = out
        self._command = command  # how the program was called: "epochal"
        self._quiet = quiet
        self._started: RunStarted | None = None
        self._columns: tuple[str, ...] = ()  # the metrics of the rows above
        self._rows: set[int] = set()  # the steps that they are of
        self._saved = False  # there is a checkpoint to go on from

    def __call__(self, event: Event) -> None:
        match event:
            case Progress():
                self._live(event)
            case EpochEnded():
                self._row(event)
            case RunStarted():
                self._header(event)
            case Validated():
                self._line(f"validated at step {event.step:,}: {metric_values(event.metrics)}")
            case CheckpointWritten():
                self._saved = True
                if event.step not in self._rows:  # that each epoch has one goes without saying
                    self._line(f"checkpoint of step {event.step:,}")
            case SettingChanged():
                self._line(changed(event))
            case Rewound():
                self._line(f"at step {event.step:,} {event.reason}: back to the checkpoint of step {event.to:,}")
            case RunPaused():
                self._line(f"paused at step {event.step:,}")
            case RunContinued():
                self._line("continued")
            case RunEnded():
                self._out.live.clear()
                self._closing(event)

    def _line(self, text: str) -> None:
        if not self._quiet:
            self._out.line(plain(text))

    def _header(self, event: RunStarted) -> None:
        self._started = event
        self._saved = event.step > 0
        device = event.device if event.device_name in ("", event.device) else f"{event.device} ({event.device_name})"
        facts = [fact for fact in (event.name, device, event.precision, event.execution) if fact]
        if event.processes > 1:
            facts.append(f"{event.processes} processes ({event.strategy})")
        if event.parameters:
            facts.append(event.trains)
        if event.steps_per_epoch is not None:
            facts.append(f"{format.counted(event.steps_per_epoch, 'step')} an epoch")
        if event.path is not None:
            facts.append(event.path)
        self._line(" · ".join(facts))
        if event.step > 0:
            self._line(f"goes on from step {event.step:,} after epoch {event.epoch:,} of {event.epochs:,}")

    def _row(self, event: EpochEnded) -> None:
        self._rows.add(event.step)
        notes = ["best ★"] * event.best + list(event.notes)
        columns = tuple(event.metrics)
        heads = [format.metric_name(name) for name in columns]
        if columns != self._columns:
            self._columns = columns
            self._line(_aligned("epoch", heads, heads, "lr", "time", "note"))
        values = [format.value(event.metrics[name]) for name in columns]
        time = format.duration(event.seconds)
        self._line(_aligned(str(event.epoch), values, heads, format.lr(event.lr), time, " · ".join(notes)))

    def _live(self, event: Progress) -> None:
        if not self._quiet and self._out.live.due:
            self._out.live.draw(lambda width: live_line(self._started, event, width))

    def _closing(self, event: RunEnded) -> None:
        epochs = self._started.epochs if self._started else 0
        epoch = f"epoch {event.epoch:,}{f' of {epochs:,}' if epochs else ''}, " if epochs or event.epoch else ""
        lines = [
            (event.state, event.reason),
            ("trained", f"{epoch}step {event.step:,}, in {format.duration(event.seconds)}"),
        ]
        if event.best:
            values = {name: value for name, value in event.best.items() if "/" in name}
            lines.append(("best", f"{best_place(event.best)}: {metric_values(values)}"))
        started = self._started
        if started is not None and started.path is not None:
            lines.append(("run", started.path))
            more = f" --epochs {2 * event.epoch}" if event.state == "finished" else ""
            if self._saved and (not more or event.epoch == started.epochs):  # more epochs don't help after an early stop
                lines.append(("go on", f"{self._command} resume {shlex.quote(started.path)}{more}"))
        if event.proposal:
            lines.append(("try", " ".join(f"--set {key}={value:g}" for key, value in event.proposal.items())))
        for label, text in lines:
            self._out.line(plain(f"{label:<8}  {text}"))


def live_line(started: RunStarted | None, event: Progress, width: int) -> str:
    """Where the run is, in at most `width` cells. What has no room goes: first the total of the steps, then the last facts."""
    facts = _facts(started, event, totals=True)
    if _length(facts) + _BAR > width:
        facts = _facts(started, event, totals=False)
    while len(facts) > 1 and _length(facts) + _BAR > width:
        facts.pop()
    room = min(width - _length(facts) - 2, 30)
    return "  ".join([format.bar(_share(started, event) or 0.0, room), *facts] if room > 0 else facts)


_BAR = 7  # cells for the smallest bar and the blanks after it


def _facts(started: RunStarted | None, event: Progress, *, totals: bool) -> list[str]:
    """The most important first."""
    share = _share(started, event)
    facts = [] if share is None else [f"{share:4.0%}"]
    epochs = started.epochs if started else 0
    if epochs or event.epoch:
        facts.append(f"epoch {event.epoch}" + (f"/{epochs}" if epochs else ""))
    if event.phase == "train":
        total = started.total_steps if started and totals else None
        facts.append(f"step {event.step}" + (f"/{total}" if total else ""))
    elif event.phase == "validate":
        facts.append(f"validating {event.batch}" + (f"/{event.batches}" if event.batches else ""))
    else:
        facts.append({"save": "saving"}.get(event.phase, event.phase))
    if event.loss is not None:
        facts.append(f"loss {format.value(event.loss)}")
    if event.left is not None:
        facts.append(f"left {format.clock(event.left)}")
    if event.steps_per_second is not None:
        facts.append(f"{format.rate(event.steps_per_second)} steps/s")
    return facts


def _share(started: RunStarted | None, event: Progress) -> float | None:
    """How much of the run is done, by its steps."""
    total = started.total_steps if started else None
    return min(event.step / total, 1.0) if total else None


def _length(facts: Iterable[str]) -> int:
    return len("  ".join(facts))


def _aligned(epoch: str, values: list[str], heads: list[str], lr: str, time: str, note: str) -> str:
    cells = [value.rjust(max(len(head), 9)) for value, head in zip(values, heads, strict=True)]
    return "  ".join([epoch.rjust(5), *cells, lr.rjust(7), time.rjust(7), note]).rstrip()


def metric_values(metrics: Mapping[str, float]) -> str:
    """ "val loss 0.4120, accuracy 0.8530"."""
    return ", ".join(f"{format.metric_name(name)} {format.value(value)}" for name, value in metrics.items())


def best_place(row: Mapping[str, float]) -> str:
    """Where a run was best: "epoch 6", or "step 1,200" where no epochs are told."""
    return f"epoch {row['epoch']:.0f}" if row["epoch"] or "step" not in row else f"step {row['step']:,.0f}"


def changed(event: SettingChanged) -> str:
    """A change of the plan as one line: "optimizer.lr 1.0e-3 → 5.0e-4 after step 812"."""
    if event.field == "training.execution":
        return f"{EXECUTIONS[int(event.value or 0)]} from step {event.step + 1:,} on"
    show = format.lr if event.field in ("optimizer.lr", "optimizer.weight_decay") else "{:g}".format
    before, value = ("none" if number is None else show(number) for number in (event.before, event.value))
    return f"{event.field} {before} → {value} after step {event.step:,}"


def say(event: Event, err: Stream, quiet: bool = False) -> None:
    """A message, or word of a checkpoint that could not be written, as one line on standard error."""
    match event:
        case CheckpointFailed():
            err.line(plain(f"epochal: error: the checkpoint of step {event.step:,} was not written: {event.reason}"))
        case Message(level="info"):
            if not quiet:
                err.line(plain(f"epochal: {event.text}"))
        case Message():
            err.line(plain(f"epochal: {event.level}: {event.text}"))
