"""What a run states about itself: frozen facts, the same in memory, in the journal and on the command line.

Steps are optimizer updates, counted from 1 over the whole run; epochs are counted from 1; times are Unix seconds;
durations are seconds. A loss is a mean over samples. `None` means not known.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `time` is when it was stated, in seconds since 1970. All other times of events are seconds too."""

    time: float = field(default_factory=time.time)

    @property
    def in_journal(self) -> bool:
        """Whether a run directory keeps it."""
        return True


def parameters_in_words(trained: int, frozen: int = 0, freeze_epochs: int = 0) -> str:
    """ "9,000 parameters", "650 of 9,000 parameters, all after 3 epochs"."""
    everything = f"{trained + frozen:,} parameter{'s' * (trained + frozen != 1)}"
    if not frozen:
        return everything
    then = f", all after {freeze_epochs} epoch{'s' * (freeze_epochs != 1)}" if freeze_epochs else ""
    return f"{trained:,} of {everything}{then}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A process began, or with `step` > 0 continues, a run."""

    name: str
    path: str | None  # the run directory, None when nothing is written
    device: str
    device_name: str
    precision: str
    execution: str
    epochs: int  # 0: not known
    steps_per_epoch: int | None
    total_steps: int | None
    parameters: int  # 0: not known
    step: int  # steps already taken: 0, or where a resume starts
    epoch: int  # epochs already ended
    monitor: str  # what decides which epoch is best, "val/loss" for example
    mode: str  # "min" or "max"
    processes: int = 1  # that train together
    strategy: str = ""  # of several: "ddp" or "fsdp"
    frozen: int = 0  # parameters beside those, which are not trained
    freeze_epochs: int = 0  # epochs after which they are; 0: never

    @property
    def trains(self) -> str:
        """How many parameters, in words; of how many where some are frozen."""
        return parameters_in_words(self.parameters, self.frozen, self.freeze_epochs)

    @property
    def own_loop(self) -> bool:
        """Whether somebody's own loop logs it: nobody else can go on with it."""
        return not self.execution

    @property
    def foreign(self) -> bool:
        """Whether another tool wrote it: it is only looked at."""
        return not self.execution and not self.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained(Event):
    """The losses of the steps since the event before.

    Point k covers the `every` steps from `first + k * every` on (the last point of an epoch may cover fewer); `step` is the
    last step covered. `low` and `high` are the extremes of what a point covers, empty when `every` is 1.
    `lr` is the learning rate that the last step of each point used, `norm` the largest gradient norm that it covers (before
    clipping), empty where it is not measured.
    """

    epoch: int
    first: int
    step: int
    every: int
    loss: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    lr: tuple[float, ...]
    norm: tuple[float, ...] = ()

    @property
    def steps(self) -> list[int]:
        """The last step that each point covers."""
        return [min(self.first + (k + 1) * self.every - 1, self.step) for k in range(len(self.loss))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """Where the run is; stated a few times a second, never journalled."""

    @property
    def in_journal(self) -> bool:
        return False

    phase: str  # "train", "validate", "save", "paused"
    step: int
    epoch: int  # the epoch under way
    batch: int  # batches done in this phase of the epoch
    batches: int | None
    loss: float | None  # mean since the last Progress
    lr: float
    steps_per_second: float | None
    samples_per_second: float | None
    elapsed: float  # pauses left out, earlier processes of a resumed run included
    left: float | None  # validation included
    waited: float | None = None  # share of the time that went to loading samples; None where all are held in memory
    workers: int | None = None  # data.workers that would end the waiting; None where it is short, or they would not


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksMeasured(Event):
    """How the processes that train together are doing: one value for each rank, in their order."""

    step: int
    rates: tuple[float, ...]  # steps a second that a rank would take if it never waited for another; NaN: not yet known
    waits: tuple[float, ...]  # share of its time in which it waits for the others: the slowest has the least
    memories: tuple[int, ...]  # bytes: on a GPU the peak that torch has held there, else the process's own now
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled(Event):
    """One step, looked at closely: its time by phase, and the health of each layer that has parameters, in their order.

    `seconds` has what is known of "data", "forward", "loss", "backward", "all-reduce", "clip", "step", "other" and
    "validation": those of this step, and for "data", "validation" and "other" means over the steps since the sample before.
    A layer is a module with its own parameters: `gradient` and `weight` are their norms (the gradient's before clipping),
    `ratio` is the norm of what the step changed over that of what there was, `silent` the share of its units whose weights
    had no gradient in any of the last samples. NaN: not known, or it has no such thing.
    """

    step: int  # of the run when this was stated; the one that was looked at is one of those shortly before
    each: float  # mean seconds of a step since the sample before, validation left out
    seconds: Mapping[str, float]
    whole: bool  # one compiled function takes whole steps: its phases can't be told apart, and the gradients are of a copy
    cost: float  # seconds that looking took
    layers: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()  # the layers' classes
    sizes: tuple[int, ...] = ()  # their parameters
    gradient: tuple[float, ...] = ()
    weight: tuple[float, ...] = ()
    ratio: tuple[float, ...] = ()
    silent: tuple[float, ...] = ()
    kept: bool = True  # whether it is for the journal too: they become rarer there as the run becomes longer

    @property
    def in_journal(self) -> bool:
        return self.kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated(Event):
    """A validation in the middle of an epoch. `metrics` has "val/…" keys. One that a person asked for is never the `best`."""

    epoch: int
    step: int
    metrics: Mapping[str, float]
    best: bool = False

    @property
    def place(self) -> str:
        """In words."""
        return f"step {self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded(Event):
    """An epoch with its validation. `metrics` has "train/loss" and, with validation data, "val/loss", "val/accuracy", …"""

    epoch: int
    step: int
    metrics: Mapping[str, float]
    lr: float  # that the epoch's last step used
    seconds: float  # training and validation
    best: bool  # the best so far by the monitored metric
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """In words."""
        return f"epoch {self.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged(Event):
    """What somebody's own loop logged since the event before, by name.

    Point k of a name ends at `steps[name][k]` and has the mean `values[name][k]` of what it covers; `low` and `high` are the
    extremes of that, for names whose points cover several values. `best`, with "epoch" and "step", are the values of the best
    step so far, where that is new and no epochs are told.
    """

    epoch: int  # under way; 0: not known
    step: int
    steps: Mapping[str, tuple[int, ...]]
    values: Mapping[str, tuple[float, ...]]
    low: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    high: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    epoch_from: int = 1  # what the loop counts its epochs from; `epoch` is counted from 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Event):
    """A checkpoint is whole on the disk, at `path`; `seconds` is how long its writing took. `best`: it is the best so far."""

    step: int
    epoch: int
    path: str
    best: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFailed(Event):
    """The disk did not take a checkpoint; the training goes on, and the one before it is intact."""

    step: int
    reason: str  # one sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChanged(Event):
    """A value of the plan was changed while the run was under way; it holds from the step after `step` on.

    `field` is the recipe's key ("optimizer.lr"), `before` and `value` are None where there is no such limit. `cause` is
    "asked" (by a person), "rewind", or "auto" (of "training.execution": see `changes.EXECUTIONS`).
    """

    step: int
    field: str
    before: float | None
    value: float | None
    cause: str = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewound(Event):
    """After `step` steps the loss was not finite: the run goes on from its checkpoint of step `to`."""

    step: int
    to: int
    reason: str  # one sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPaused(Event):
    """The run waits after this step, as it was asked to."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContinued(Event):
    """A paused run goes on from this step."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Event):
    """A sentence for the person; `level` is "info", "warning" or "error"."""

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """`state` is "finished" (all epochs, or early stopping), "stopped" (asked for) or "failed"."""

    state: str
    reason: str  # one sentence
    epoch: int
    step: int
    seconds: float
    best: Mapping[str, float]  # the best epoch's row: "epoch", "train/loss", "val/loss", …; empty when none ended
    proposal: Mapping[str, float] = field(default_factory=dict)  # fields of the recipe that would have helped


def _key(cls: type[Event]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


KINDS: dict[str, type[Event]] = {_key(cls): cls for cls in Event.__subclasses__()}

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become the words above."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def to_dict(event: Event) -> dict[str, Any]:
    """The event as strict JSON values, with its kind under "event"."""
    values = {item.name: getattr(event, item.name) for item in dataclasses.fields(event)}
    return {"event": _key(type(event)), **{key: _plain(value) for key, value in values.items()}}


def from_dict(values: Mapping[str, Any]) -> Event:
    """The event that `to_dict` wrote. Raises ValueError, in one sentence, for anything else."""
    kind = values.get("event")
    cls = KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise ValueError(f"unknown event {kind!r}")
    known = {item.name for item in dataclasses.fields(cls)}
    arguments = {key: _revive(value, key in _TEXT) for key, value in values.items() if key in known}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ValueError(f"event {kind!r} is incomplete: {error}") from None


# Text fields keep a text that is one of the words above: numbers are written as words in numeric fields only.
_TEXT = {
    item.name for cls in KINDS.values() for item in dataclasses.fields(cls) if str(item.type).startswith(("str", "tuple[str"))
}


def _revive(value: Any, text: bool) -> Any:
    if isinstance(value, str):
        return value if text else _WORDS.get(value, value)
    if isinstance(value, list):
        return tuple(_revive(item, text) for item in value)
    if isinstance(value, dict):
        return {key: _revive(item, text) for key, item in value.items()}
    return value
