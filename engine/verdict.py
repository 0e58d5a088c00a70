"""The verdict: what a run's history says of it, in one line with its evidence; nothing where it says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from engine.data.workers import WAITING
from engine.events import EpochEnded
from engine.health import findings
from engine.history import History
from engine.phases import a_step, phases

RECENT = 3  # epochs over which a gain is told
STILL = 6  # epochs without a gain make a plateau
GAIN = 0.01  # share of the loss that counts as one
FEWEST = 40  # points of the training curve before a rise among them is one


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is one of "improving", "plateau", "overfitting", "diverging", "exploding", "dead", "vanishing", "too low",
    "too high", "waiting".

    `text` is the line with its evidence, `why` what it means and what may be done, `change` a live change that does it as it is
    written ("lr=x0.5"), and `recipe` fields of the recipe with which a new run would do better; empty where there is none.
    """

    kind: str
    text: str
    why: str
    change: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)


def verdict(history: History) -> Verdict | None:
    """The first that holds, the worst first."""
    rows = _comparable(history)
    rules = (_diverging(history), _ill(history), _overfitting(history.epochs), _too_high(rows), _waiting(history),
             _too_low(history, rows), _plateau(history, rows), _improving(history))  # fmt: skip
    return next((found for found in rules if found is not None), None)


def _comparable(history: History) -> list[EpochEnded]:
    """The epochs that were trained with one learning rate, as far as a person changed it: those since then."""
    changed = [event.step for event in history.settings if event.field == "optimizer.lr"]
    changed += [event.to for event in history.rewinds]
    per_epoch = history.started.steps_per_epoch if history.started else None
    since = max(changed, default=-1)
    return [row for row in history.epochs if row.step - (per_epoch or 0) >= since]


def _diverging(history: History) -> Verdict | None:
    """The training loss rises, far above what it was; or it is no number any more."""
    ended = history.ended
    if ended is not None and ended.state == "failed" and ("NaN" in ended.reason or "not finite" in ended.reason):
        return Verdict("diverging", f"diverged: {ended.reason}", _WHY["diverging"], "lr=x0.3")
    if "train/loss" not in history.series:
        return None
    steps, means, _, _ = history.series["train/loss"].columns()
    sound = max((i for i, loss in enumerate(means, 1) if math.isfinite(loss)), default=0)
    if len(means) - sound >= RECENT:  # fewer may be steps that were skipped
        text = f"diverged: train loss has been {_number(means[-1])} since step {steps[sound]:,}"
        return Verdict("diverging", text, _WHY["diverging"], "lr=x0.3")
    losses = [loss for loss in means if math.isfinite(loss)]
    if len(losses) < FEWEST:
        return None
    size = max(FEWEST // 8, len(losses) // 20)
    blocks = [median(losses[i : i + size]) for i in range(0, len(losses) - size + 1, size)]
    now, before = median(losses[-size:]), blocks[:-1]
    lowest, first = min(before), blocks[0]
    scale = max(abs(lowest), 0.1 * abs(first - lowest), 1e-12)
    if now - lowest < scale or now < max(blocks[-2], blocks[-3]):
        return None
    if lowest >= first - 0.2 * abs(first):  # it hardly fell
        text = f"learning rate too high: train loss {_number(first)} at the start, {_number(now)} now"
        return Verdict("too high", text, _WHY["too high"], "lr=x0.1")
    text = f"diverging: train loss was down to {_number(lowest)} and is {_number(now)} now"
    return Verdict("diverging", text, _WHY["diverging"], "lr=x0.3")


def _overfitting(epochs: Sequence[EpochEnded]) -> Verdict | None:
    """The validation loss has risen from its lowest value for some epochs, and the training loss has fallen further."""
    rows = [row for row in epochs if _finite(row, "val/loss") and _finite(row, "train/loss")]
    if len(rows) < RECENT + 1:
        return None
    at = min(range(len(rows)), key=lambda i: rows[i].metrics["val/loss"])
    best, last, later = rows[at], rows[-1], [row.metrics["val/loss"] for row in rows[at + 1 :]]
    if len(later) < RECENT:
        return None
    low, train = best.metrics["val/loss"], best.metrics["train/loss"]
    tail = sum(later[-RECENT:]) / RECENT
    # Noise goes up and down; what overfits goes up in its later half as against its earlier one.
    half = len(later) // 2 or 1
    rising = sum(later[-half:]) / half >= sum(later[:half]) / half
    if tail - low < 2 * GAIN * abs(low) or not rising or train - last.metrics["train/loss"] < 2 * GAIN * abs(train):
        return None
    text = (
        f"overfitting since epoch {best.epoch}: val loss {_risen(last.metrics['val/loss'], low)}, "
        f"train loss {_share(last.metrics['train/loss'], train)}"
    )
    return Verdict("overfitting", text, _WHY["overfitting"], "patience=3")


def _too_high(rows: Sequence[EpochEnded]) -> Verdict | None:
    """The epochs' training loss goes up and down and comes to nothing; not where that is nothing beside what it has fallen."""
    all_losses = _losses(rows, "train/loss")
    losses = all_losses[-STILL:]
    if len(losses) < STILL:
        return None
    steps = [after - before for before, after in pairwise(losses)]
    level = median(losses)
    rises = [step for step in steps if step > 0]
    swing = median(map(abs, steps))
    least = max(0.05 * abs(level), GAIN * (all_losses[0] - level))
    if len(rises) < 2 or len(rises) == len(steps) or swing < least or losses[0] - losses[-1] > swing:
        return None
    text = f"learning rate too high: train loss swings by {swing / abs(level):.0%} an epoch around {_number(level)}"
    return Verdict("too high", text, _WHY["too high"], "lr=x0.3")


def _ill(history: History) -> Verdict | None:
    """Layers whose gradients or updates are not as they should be, in each of the last samples."""
    found = findings(history.samples)
    if not found:
        return None
    return Verdict(found[0].kind, found[0].text, _WHY[found[0].kind], _CURES.get(found[0].kind, ""))


def _waiting(history: History) -> Verdict | None:
    """A good part of each step goes to waiting for samples."""
    now = history.progress
    each = a_step(history.samples)
    data = [phase.seconds / each for phase in phases(history.samples) if phase.name == "data" and each]
    share = data[0] if data else now.waited if now else None
    if history.ended is not None or now is None or share is None or share < WAITING:
        return None
    text = f"{share:.0%} of each step waits for data"
    if now.waited is None:  # all samples are in memory
        return Verdict("waiting", text, _WHY["gathering"])
    workers = {"data.workers": now.workers} if now.workers else {}
    return Verdict("waiting", f"{text}: try workers {now.workers}" if workers else text, _WHY["waiting"], recipe=workers)


def _too_low(history: History, rows: Sequence[EpochEnded]) -> Verdict | None:
    """The training loss falls in every epoch by a little, as much as at the beginning."""
    losses = _losses(rows, "train/loss")
    if len(losses) < RECENT + 1 or len(losses) < len(history.epochs):  # later a small rate is what is wanted
        return None
    falls = [(before - after) / abs(before) for before, after in pairwise(losses) if before]
    steady = falls and min(falls) > 0 and falls[-1] > 0.7 * falls[0] and max(falls) < 0.03
    if not steady or (losses[0] - losses[-1]) > 0.2 * abs(losses[0]):
        return None
    text = f"learning rate too low: train loss {-falls[-1]:.1%} an epoch, and no slower than at the beginning"
    return Verdict("too low", text, _WHY["too low"], "lr=x3")


def _plateau(history: History, rows: Sequence[EpochEnded]) -> Verdict | None:
    """Neither loss has gained anything for some epochs."""
    if len(rows) <= STILL:
        return None
    gains = {name: _gain(_losses(rows, name)) for name in ("val/loss", "train/loss")}
    seen = {name: gain for name, gain in gains.items() if gain is not None}
    if not seen or any(gain >= GAIN for gain in seen.values()):
        return None
    name, gain = next(iter(seen.items()))
    best = min(_losses(rows, name))
    said = f"{gain:.1%}" if gain > 0 else "nothing"
    text = f"plateau: {name.replace('/', ' ')} {_number(best)} has gained {said} in {STILL} epochs"
    return Verdict("plateau", text, _WHY["plateau"], "lr=x0.3" if history.ended is None else "")


def _gain(losses: Sequence[float]) -> float | None:
    """By which share of itself the lowest loss fell in the last epochs; None where too few are known."""
    if len(losses) <= STILL:
        return None
    before, after = min(losses[:-STILL]), min(losses[-STILL:])
    return (before - after) / abs(before) if before else 0.0


def _improving(history: History) -> Verdict | None:
    """The loss that counts is lower than some epochs ago."""
    rows = history.epochs
    name = "val/loss" if any(_finite(row, "val/loss") for row in rows) else "train/loss"
    losses = _losses(rows, name)
    if len(losses) < 2 or history.ended is not None:
        return None
    span = min(RECENT, len(losses) - 1)
    before, after = losses[-1 - span], losses[-1]
    if before - min(losses[-span:]) < GAIN * abs(before) or after >= before:
        return None
    text = f"still improving: {name.replace('/', ' ')} {_share(after, before)} in {span} epoch{'s' * (span > 1)}"
    return Verdict("improving", text, _WHY["improving"])


def _losses(rows: Sequence[EpochEnded], name: str) -> list[float]:
    return [row.metrics[name] for row in rows if _finite(row, name)]


def _finite(row: EpochEnded, name: str) -> bool:
    return math.isfinite(row.metrics.get(name, math.nan))


def _share(after: float, before: float) -> str:
    """ "+9%" """
    return f"{(after - before) / abs(before) * 100:+.0f}%" if before else f"{after - before:+.3g}"


def _risen(after: float, before: float) -> str:
    """ "+9% from 0.412", or "21 times 0.4056" """
    if before > 0 and after > 3 * before:
        return f"{after / before:.0f} times {_number(before)}"
    return f"{_share(after, before)} from {_number(before)}"


def _number(value: float) -> str:
    return f"{value:.4g}"


_WHY = {
    "improving": "The loss still falls by more than a hundredth in a few epochs. Nothing needs to be done; where the run is "
    "about to end, more epochs will most likely help.",
    "plateau": f"Neither loss has gained a hundredth in {STILL} epochs. A smaller learning rate lets the weights settle lower; "
    "when that gains nothing either, the run can end, or the model is too small for the data.",
    "overfitting": "The model learns the training samples by heart: on others it has become worse since then. The best "
    "checkpoint is kept. More data, augmentation, dropout, weight decay or a smaller model help; for this run patience ends it "
    "at the next validation that brings no new best.",
    "diverging": "The loss rises instead of falling: the steps are too long for the place where the weights are now. A smaller "
    "learning rate may bring it back; training.clip_norm keeps single large gradients from doing this.",
    "too high": "The steps are so long that they jump over what they look for. A smaller learning rate is the first thing to "
    "try; the finder (L in the form, epochal find-lr) measures which.",
    "too low": "The loss falls in each epoch by the same small share: the steps are shorter than they need to be. A larger "
    "learning rate gets there sooner; the finder (L in the form, epochal find-lr) measures which.",
    "waiting": "The model is faster than what loads its samples. More data.workers load in parallel (one's own DataLoader has "
    "num_workers); data that fit into memory as tensors or arrays need no loading at all.",
    "gathering": "The samples are in memory, yet putting a batch together takes this long: larger batches, fewer "
    "augmentations or smaller inputs make less of it.",
    "exploding": "The layer is changed by far more than the thousandth of its norm that a step usually changes: it forgets "
    "what it learned. A smaller learning rate or training.clip_norm holds it; in a new run so do normalization and smaller "
    "first weights.",
    "dead": "These units give the same for every sample, so no gradient reaches their weights and they never come back: mostly "
    "ReLUs after too large a step. A smaller learning rate saves the others; a new run can use another activation (GELU, "
    "LeakyReLU), normalization or warmup.",
    "vanishing": "Almost nothing of the gradient reaches these layers, so they stay as they were made: mostly many sigmoids or "
    "tanhs in a row. ReLU or GELU, normalization, residual connections or fewer layers let it through; no live change does.",
}

_CURES = {"exploding": "clip_norm=1", "dead": "lr=x0.3"}
