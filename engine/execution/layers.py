"""Layers: norms of gradients, weights and updates of each layer, computed where they are and read late.

Nothing here draws a random number, touches a gradient or a weight, or waits for the device, but for `read`.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

ELEMENTS = 1 << 16  # of a parameter that are compared with themselves after a step: more are looked at with gaps
REMEMBERED = 8  # samples in all of which a unit must have had no gradient to be silent
_NO_UNITS = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)  # most rows rest, or no rows


class Layers:
    """The modules of a model that have parameters of their own, in its order."""

    def __init__(self, module: nn.Module) -> None:
        owned = {name: list(part.parameters(recurse=False)) for name, part in module.named_modules()}
        seen: set[int] = set()
        own = {name: [p for p in held if not (id(p) in seen or seen.add(id(p)))] for name, held in owned.items()}  # type: ignore[func-returns-value]
        kinds = dict(module.named_modules())
        kept = [(name, held) for name, held in own.items() if held]
        self.names = tuple(name or "model" for name, _ in kept)
        self.kinds = tuple(type(kinds[name]).__name__ for name, _ in kept)
        self.sizes = tuple(sum(p.numel() for p in held) for _, held in kept)
        self._parameters = [p for _, held in kept for p in held]
        self._layer = [i for i, (_, held) in enumerate(kept) for _ in held]
        self._with_units = [
            (i, p, isinstance(kinds[name], _ConvTransposeNd))
            for i, (name, held) in enumerate(kept)
            for p in held
            if p.dim() > 1 and not isinstance(kinds[name], _NO_UNITS)
        ]
        self._silent: deque[Tensor] = deque(maxlen=REMEMBERED)  # for each sample, which units had no gradient
        self._units = [0] * len(self.names)  # that were looked at
        self._before: list[Tensor] = []
        self._found: dict[str, Tensor] = {}

    def gradients(self, gradients: list[Tensor | None]) -> None:
        """Look at these, one for each parameter."""
        self._found = {}
        there = [(i, self._here(g)) for i, g in enumerate(gradients) if g is not None]
        norms = _norms([g for _, g in there])
        self._found["gradient"] = self._joined([(i, norm) for (i, _), norm in zip(there, norms, strict=True)])
        self._count_silent({id(self._parameters[i]): g for i, g in there})

    def look(self) -> None:
        """Before a step: look at the gradients that stand in the parameters, and remember the weights."""
        self.gradients([p.grad for p in self._parameters])
        self.before()

    def derive(self, loss: Tensor) -> None:
        """Look at the gradients of `loss`, and leave those that stand in the parameters alone."""
        asked = [p for p in self._parameters if p.requires_grad]
        found = dict(zip(map(id, asked), torch.autograd.grad(loss, asked, allow_unused=True), strict=True))
        self.gradients([found.get(id(p)) for p in self._parameters])

    def before(self) -> None:
        """Remember the weights as they are before a step."""
        self._before = [_some(self._here(p)).clone() for p in self._parameters]

    def after(self) -> None:
        """Compare them with what they are after it."""
        here = [self._here(p) for p in self._parameters]
        now, old = [_some(p) for p in here], self._before
        every = [p.numel() / max(1, len(some)) for p, some in zip(here, now, strict=True)]
        changes = [after - before for after, before in zip(now, old, strict=True)]
        for name, parts in (("weight", old), ("change", changes)):
            norms = [norm * math.sqrt(each) for norm, each in zip(_norms(parts), every, strict=True)]
            self._found[name] = self._joined(list(enumerate(norms)))
        self._before = []

    def finish(self) -> None:
        """After the step, whatever became of looking at it: put together what several processes have found."""

    def read(self) -> dict[str, tuple[float, ...]]:
        """The columns of a sample. Waits for the device."""
        found, self._found = self._found, {}
        names = list(found)
        rows = dict(zip(names, torch.stack([found[name].float() for name in names]).tolist(), strict=True))
        unknown = [math.nan] * len(self.names)
        weight, change = rows.get("weight", unknown), rows.get("change", unknown)
        ratio = [c / w if w else math.inf if c else math.nan for c, w in zip(change, weight, strict=True)]
        silent = [n / of if of else math.nan for n, of in zip(rows.get("silent", unknown), self._units, strict=True)]
        columns = {"gradient": rows["gradient"], "weight": weight, "ratio": ratio, "silent": silent}
        return {name: tuple(_short(value) for value in values) for name, values in columns.items()}

    def _here(self, tensor: Tensor) -> Tensor:
        """Of a parameter or a gradient what this process holds, without its graph."""
        return tensor.coalesce()._values() if tensor.is_sparse else tensor.detach()

    def _joined(self, norms: list[tuple[int, Tensor]]) -> Tensor:
        """From the norms of single parameters those of the layers; NaN where there is none."""
        of: list[list[Tensor]] = [[] for _ in self.names]
        for i, norm in norms:
            of[self._layer[i]].append(norm)
        missing = torch.full((), math.nan, device=self._parameters[0].device)
        return torch.stack(
            [missing if not few else few[0].float() if len(few) == 1 else torch.stack(few).float().norm() for few in of]
        )

    def _count_silent(self, gradients: dict[int, Tensor]) -> None:
        """How many of a layer's units have had no gradient in the last samples. A unit is a row of the weights."""
        there = [(i, p, turned) for i, p, turned in self._with_units if id(p) in gradients]
        self._units = [0] * len(self.names)
        if not there:
            return
        found = [(gradients[id(p)], turned) for _, p, turned in there]
        rows = [(gradient.transpose(0, 1) if turned else gradient).flatten(1) for gradient, turned in found]
        silent = torch.cat([torch.linalg.vector_norm(row, math.inf, dim=1) == 0 for row in rows])
        if self._silent and len(self._silent[0]) != len(silent):
            self._silent.clear()  # other layers are trained than before
        self._silent.append(silent)
        always = torch.stack(tuple(self._silent)).all(0)
        counts = torch.zeros(len(self.names), device=silent.device)
        for (i, p, turned), part in zip(there, always.split([len(row) for row in rows]), strict=True):
            counts[i] += part.sum()
            self._units[i] += p.shape[int(turned)]
        self._found["silent"] = counts


def _some(tensor: Tensor) -> Tensor:
    """Equally spaced elements of a tensor, as many as are to be compared; all, where they are few."""
    flat = tensor.reshape(-1)
    return flat[:: -(-len(flat) // ELEMENTS)] if len(flat) > ELEMENTS else flat


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """Of each; those of short numbers in float32."""
    if not tensors:
        return []
    if {t.dtype for t in tensors} <= {torch.float32} and len({t.device for t in tensors}) == 1:
        return list(torch._foreach_norm(tensors))
    wide = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
    return [torch.linalg.vector_norm(t, dtype=wide.get(t.dtype)) for t in tensors]


def _short(value: Any) -> float:
    """Four digits: it is a measurement, and it is kept."""
    return float(f"{value:.4g}")
