"""Where a step's time goes, in the words of the training loop; from the samples of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from engine.events import Sampled

RECENT = 8  # samples whose median is told
WORDS = {
    "data": "waiting for the next batch",
    "forward": "the model: inputs to outputs",
    "loss": "outputs against targets",
    "backward": "the gradients of all weights",
    "all-reduce": "gradients of the other processes",
    "clip": "gradients: finite? too large?",
    "step": "the optimizer moves the weights",
    "other": "reports, the screen, other programs",
    "validation": "its share of each step",
}
WHOLE = {**WORDS, "step": "forward, backward, update: one graph"}  # where one compiled function takes whole steps


@dataclass(frozen=True, slots=True)
class Phase:
    """`share` is that of the time a step takes, validation spread over all steps."""

    name: str
    seconds: float
    share: float
    words: str


def phases(samples: Sequence[Sampled]) -> list[Phase]:
    """In the order of the loop, by the last samples; empty without any."""
    if not samples:
        return []
    recent = [sample for sample in samples if sample.whole == samples[-1].whole][-RECENT:]
    words = WHOLE if recent[-1].whole else WORDS
    seconds = {name: median(_sound(sample, name) for sample in recent) for name in WORDS if name in recent[-1].seconds}
    total = sum(seconds.values())
    return [Phase(name, took, took / total if total else 0.0, words[name]) for name, took in seconds.items()]


def a_step(samples: Sequence[Sampled]) -> float:
    """Seconds of a step, by the last samples, validation left out; 0 without any."""
    return sum(phase.seconds for phase in phases(samples) if phase.name != "validation")


def _sound(sample: Sampled, name: str) -> float:
    seconds = sample.seconds.get(name, 0.0)
    return seconds if 0 <= seconds < math.inf else 0.0


def in_short(seconds: float) -> str:
    """How long a part of a step took: 12 µs, 1.25 ms, 3.1 s."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
