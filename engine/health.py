"""The health of layers: what norms of gradients and updates say, by rules with a source.

- **vanishing**: the gradient of a layer, per weight, is below a ten-thousandth of that of a layer after it. A sigmoid
  passes on a quarter of a gradient at most (Glorot and Bengio 2010): seven of them in a row leave as little.
- **exploding**: a gradient is not finite; or a step changes a layer by more than a tenth of its norm, a hundred times the
  thousandth that cs231n and Karpathy give as the rule of thumb; or the gradient's norm is a thousand times that of the
  weights, so that plain gradient descent at the usual 1e-3 would replace them in one step.
- **dead**: at least 40 % of a layer's units had no gradient at all for any sample of the last batches looked at: the share that
  cs231n names for ReLUs after too large steps. A unit is a row of the weights; what it is followed by does not matter. The last
  layer is left out: its units are the outputs.

A layer is named only where the rule held in each of the last three samples. What is zero or small by design has no rule:
embeddings (most rows rest), normalizations, single biases, and layers that are frozen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.events import Sampled

VANISHING = 1e-4
EXPLODING = 0.1
STEEP = 1e3
DEAD = 0.4
LASTING = 3  # samples in a row
SMALL, LARGE = 1e-6, 1e-2  # ratios beyond which an update is worth a word, and no more


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` is "vanishing", "exploding" or "dead"; `text` names the layers, with the evidence."""

    kind: str
    layers: tuple[str, ...]
    text: str


def kind(sample: Sampled, i: int) -> str:
    """What a sample says of its layer `i`: "vanishing", "exploding", "dead", or nothing."""
    gradient, weight, ratio, silent = sample.gradient[i], sample.weight[i], sample.ratio[i], sample.silent[i]
    if math.isinf(gradient) or (math.isnan(gradient) and not math.isnan(silent)):
        return "exploding"
    if math.isnan(silent):  # it has no units
        return ""
    last = max(_judged(sample), default=i)  # the outputs: where nothing is left to learn they have no gradient either
    if silent >= DEAD and i != last and any(value > 0 for value in sample.gradient):
        return "dead"
    if weight > 0 and (EXPLODING < ratio < math.inf or gradient > STEEP * weight):
        return "exploding"
    later = max((_each(sample, j) for j in _judged(sample) if j > i), default=0.0)
    return "vanishing" if _each(sample, i) < VANISHING * later else ""


def words(sample: Sampled, i: int) -> str:
    """What is to be said of the layer `i` in a table."""
    found, ratio, silent = kind(sample, i), sample.ratio[i], sample.silent[i]
    if found == "dead":
        return "dead" if silent == 1 else f"{silent:.0%} dead"
    if found:
        return found
    if math.isnan(sample.gradient[i]):
        return "no gradient"
    if silent > 0:
        return f"{silent:.0%} silent"
    return "hardly moves" if ratio < SMALL else "large steps" if LARGE < ratio < math.inf else ""


def findings(samples: Sequence[Sampled]) -> list[Finding]:
    """What has held in each of the last samples, the worst first."""
    last = samples[-LASTING:]
    if len(last) < LASTING or len({sample.layers for sample in last}) > 1:
        return []
    now = last[-1]
    kinds = [{kind(sample, i) for sample in last} for i in range(len(now.layers))]
    found = []
    for name, tell in (("exploding", _exploding), ("dead", _dead), ("vanishing", _vanishing)):
        of = [i for i, seen in enumerate(kinds) if seen == {name}]
        if of:
            found.append(Finding(name, tuple(now.layers[i] for i in of), tell(now, of)))
    return found


def _exploding(sample: Sampled, of: list[int]) -> str:
    worst = max(of, key=lambda i: sample.ratio[i] if math.isfinite(sample.ratio[i]) else math.inf)
    gradient, ratio = sample.gradient[worst], sample.ratio[worst]
    if not math.isfinite(gradient):
        return f"exploding gradient: not finite in {_named(sample, of)}"
    if ratio > EXPLODING:
        return f"exploding: a step changes {_named(sample, of)} by {ratio:.0%} of its norm" + " at most" * (len(of) > 1)
    return f"exploding gradient in {_named(sample, of)}: {gradient:.2g}, weights {sample.weight[worst]:.2g}"


def _dead(sample: Sampled, of: list[int]) -> str:
    worst = max(of, key=lambda i: sample.silent[i])
    most = "up to " * (len(of) > 1 and sample.silent[worst] < 1)
    return f"dead units in {_named(sample, of)}: {most}{sample.silent[worst]:.0%} had no gradient in any of the last batches"


def _vanishing(sample: Sampled, of: list[int]) -> str:
    worst = min(of, key=lambda i: _each(sample, i))
    later = max(_each(sample, j) for j in _judged(sample) if j > worst)
    share = _each(sample, worst) / later
    return f"vanishing gradient in {_named(sample, of)}: {share:.0e} of a later layer's, per weight"


def _named(sample: Sampled, of: list[int]) -> str:
    names = [sample.layers[i] for i in of]
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} others"


def _judged(sample: Sampled) -> list[int]:
    """The layers with units and a gradient."""
    return [i for i, silent in enumerate(sample.silent) if not math.isnan(silent) and math.isfinite(sample.gradient[i])]


def _each(sample: Sampled, i: int) -> float:
    """The gradient of a single weight, in the mean square."""
    return sample.gradient[i] / math.sqrt(max(1, sample.sizes[i]))
