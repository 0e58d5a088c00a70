"""Histories of runs that never ran: events written by hand, the same on every machine. And what a screen says."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from textual.app import App

from engine.events import (
    CheckpointWritten,
    EpochEnded,
    Event,
    Message,
    Progress,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    Sampled,
    Trained,
)
from engine.history import History

START = 1_795_356_192.0  # 2026-11-22 14:03:12 UTC
STEPS = 390  # an epoch
SECONDS = 9.25  # an epoch, validation included
PATH = "runs/20261122-140312-digits-mlp"
WIDE = {"train/loss": 0.5, "val/loss": 0.4, "val/准确率": 0.9}  # values of a metric whose name is in characters of two cells


def loss_at(step: int, noise: random.Random) -> float:
    """A training loss that falls from 2.3 to about 0.35, noisily."""
    return (0.35 + 1.95 * math.exp(-step / 600)) * math.exp(noise.gauss(0, 0.16))


def started(
    epochs: int = 20, *, steps: int | None = STEPS, step: int = 0, device: str = "cpu", device_name: str = ""
) -> RunStarted:
    """The first event of a run."""
    return RunStarted(
        time=START, name="digits-mlp", path=PATH, device=device, device_name=device_name, precision="float32",
        execution="eager",
        epochs=epochs, steps_per_epoch=steps, total_steps=None if steps is None else steps * epochs, parameters=9610,
        step=step, epoch=step // STEPS, monitor="val/loss", mode="min",
    )  # fmt: skip


def metrics_at(epoch: int) -> dict[str, float]:
    """An epoch's metrics; the validation loss is best in epoch 6 of any seven."""
    worse = 0.03 if epoch % 7 == 0 else 0.0
    return {
        "train/loss": 0.35 + 1.95 * math.exp(-(epoch * STEPS) / 600),
        "val/loss": 0.36 + 1.6 * math.exp(-(epoch * STEPS) / 700) + worse,
        "val/accuracy": 0.96 - 0.5 * math.exp(-(epoch * STEPS) / 800) - worse,
    }


def trained(epoch: int, first: int, last: int, noise: random.Random, every: int = 10) -> Trained:
    """The steps `first` to `last` of an epoch as points of `every` steps."""
    means, lows, highs = [], [], []
    for start in range(first, last + 1, every):
        losses = [loss_at(step, noise) for step in range(start, min(start + every, last + 1))]
        means.append(math.fsum(losses) / len(losses))
        lows.append(min(losses))
        highs.append(max(losses))
    return Trained(
        time=START + last / STEPS * SECONDS, epoch=epoch, first=first, step=last, every=every, loss=tuple(means),
        low=tuple(lows), high=tuple(highs), lr=tuple([learning_rate(epoch)] * len(means)),
    )  # fmt: skip


def learning_rate(epoch: int) -> float:
    return 6e-4 if epoch < 6 else 3e-4


def epoch_events(epoch: int, noise: random.Random) -> list[Event]:
    """One whole epoch."""
    step = epoch * STEPS
    now = START + epoch * SECONDS
    metrics = metrics_at(epoch)
    best = all(metrics["val/loss"] < metrics_at(before)["val/loss"] for before in range(1, epoch))
    return [
        trained(epoch, step - STEPS + 1, step, noise),
        EpochEnded(
            time=now, epoch=epoch, step=step, metrics=metrics, lr=learning_rate(epoch), seconds=SECONDS, best=best,
            notes=("lr x0.5",) if epoch == 6 else (),
        ),
        CheckpointWritten(time=now, step=step, epoch=epoch, path=f"{PATH}/checkpoints/step-{step:08}", best=best, seconds=0.02),
    ]  # fmt: skip


def progress(epoch: int, batch: int, *, epochs: int = 20, phase: str = "train", batches: int | None = STEPS) -> Progress:
    """Where the run is after `batch` batches of `epoch`."""
    step = (epoch - 1) * STEPS + (batch if phase == "train" else STEPS)
    return Progress(
        time=START + step / STEPS * SECONDS, phase=phase, step=step, epoch=epoch, batch=batch, batches=batches,
        loss=metrics_at(epoch)["train/loss"] + 0.01, lr=learning_rate(epoch), steps_per_second=12_040.0,
        samples_per_second=385_280.0, elapsed=step / STEPS * SECONDS, left=(epochs * STEPS - step) / STEPS * SECONDS,
    )  # fmt: skip


def history_of(*events: Event) -> History:
    """A history that has seen `events`."""
    history = History()
    for event in events:
        history.apply(event)
    return history


def empty_history() -> History:
    """A run that has not stated anything."""
    return History()


def running_history(epochs: int = 20, at: int = 7, batch: int = 238) -> History:
    """In the middle of epoch `at`."""
    noise = random.Random(1)
    history = history_of(started(epochs))
    for epoch in range(1, at):
        for event in epoch_events(epoch, noise):
            history.apply(event)
    first = (at - 1) * STEPS + 1
    history.apply(trained(at, first, first + batch - 1, noise))
    history.apply(progress(at, batch, epochs=epochs))
    return history


def sampled(step: int = 2730) -> Sampled:
    """A step of the MLP that was looked at."""
    return Sampled(
        time=START + step / STEPS * SECONDS, step=step, each=8.2e-5, cost=6e-4, whole=False,
        seconds={"data": 4e-6, "forward": 1.7e-5, "loss": 6e-6, "backward": 2.6e-5, "clip": 8e-6, "step": 1.4e-5, "other": 7e-6,
                 "validation": 3e-6},
        layers=("layers.1", "layers.3"), kinds=("Linear", "Linear"), sizes=(8320, 1290), gradient=(0.0712, 0.124),
        weight=(6.61, 2.13), ratio=(1.9e-3, 2.4e-3), silent=(0.0859, 0.0),
    )  # fmt: skip


def running_history_events(at: int) -> list[Event]:
    """What leads to the middle of epoch `at`, without the beginning."""
    noise = random.Random(1)
    whole = [event for epoch in range(1, at) for event in epoch_events(epoch, noise)]
    return [*whole, trained(at, (at - 1) * STEPS + 1, (at - 1) * STEPS + 200, noise), progress(at, 200)]


def paused_history() -> History:
    """As `running_history`, held."""
    history = running_history()
    history.apply(RunPaused(time=START + 70, step=6 * STEPS + 238))
    return history


def continued_history() -> History:
    """As `paused_history`, going on again."""
    history = paused_history()
    history.apply(RunContinued(time=START + 80, step=6 * STEPS + 238))
    return history


def finished_history(epochs: int = 7) -> History:
    """A run that trained all its epochs; of seven, epoch 6 is best."""
    noise = random.Random(1)
    history = history_of(started(epochs))
    for epoch in range(1, epochs + 1):
        history.apply(progress(epoch, STEPS, epochs=epochs))
        for event in epoch_events(epoch, noise):
            history.apply(event)
    history.apply(ended(history, "finished", "all epochs done"))
    return history


def stopped_history() -> History:
    """Stopped by key in the middle of epoch 7 of 20."""
    history = running_history()
    history.apply(Message(time=START + 60, text="stopping after this step"))
    history.apply(ended(history, "stopped", "stopped by the user", step=6 * STEPS + 238, epoch=7))
    return history


def failed_history() -> History:
    """The loss became NaN in epoch 4."""
    noise = random.Random(1)
    history = history_of(started(20))
    for epoch in range(1, 4):
        for event in epoch_events(epoch, noise):
            history.apply(event)
    nan = math.nan
    history.apply(
        Trained(time=START + 30, epoch=4, first=3 * STEPS + 1, step=3 * STEPS + 100, every=10, loss=(nan,) * 10,
                low=(nan,) * 10, high=(nan,) * 10, lr=(6e-4,) * 10)
    )  # fmt: skip
    history.apply(Message(time=START + 31, text="the loss is NaN at step 1171", level="error"))
    history.apply(ended(history, "failed", "the loss is NaN at step 1171", step=3 * STEPS + 1, epoch=4))
    return history


def ended(history: History, state: str, reason: str, *, step: int | None = None, epoch: int | None = None) -> RunEnded:
    """The last event, with the best row of `history`."""
    best, last = history.best, history.epochs[-1] if history.epochs else None
    step = step if step is not None else last.step if last else 0
    return RunEnded(
        time=START + step / STEPS * SECONDS, state=state, reason=reason, epoch=epoch or (last.epoch if last else 0), step=step,
        seconds=step / STEPS * SECONDS, best={"epoch": best.epoch, **best.metrics} if best else {},
    )  # fmt: skip


def history_with(losses, seconds_each: float = 0.5, steps_per_epoch: int = 50) -> History:
    """A run whose journal has one loss a step, a `Trained` every ten."""
    events = [started(8, steps=steps_per_epoch)]
    for first in range(0, len(losses), 10):
        part = tuple(losses[first : first + 10])
        last = first + len(part)
        events.append(
            Trained(time=START + last * seconds_each, epoch=first // steps_per_epoch + 1, first=first + 1, step=last,
                    every=1, loss=part, low=(), high=(), lr=(1e-3,) * len(part))
        )  # fmt: skip
    return history_of(*events)


def wide_history() -> History:
    """A run whose name and metric are in characters of two cells."""
    start = replace(started(1), name="数字-模型-🚀")
    epoch = EpochEnded(time=START, epoch=1, step=10, metrics=WIDE, lr=0.1, seconds=1.0, best=True, notes=())
    history = history_of(start, epoch)
    history.apply(ended(history, "finished", "all epochs done"))
    return history


def screen_lines(app: App) -> list[str]:
    """The lines of the app's screen as a person reads them."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def screen_text(app: App) -> str:
    """The same as one text."""
    return "\n".join(screen_lines(app))


def line_with(app: App, text: str) -> str:
    """The first line of the screen that has this in it."""
    return next(line for line in screen_lines(app) if text in line)
