"""How numbers look wherever a person reads them: rows, tables, charts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.errors import plain


def value(number: float | None) -> str:
    """A loss or metric with 4 significant digits: 0.6122, 12.35, 1.235e-5. None, not known, is a dash."""
    if number is None:
        return "–"
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "inf" if number > 0 else "-inf"
    return _exponent(f"{number:#.4g}".rstrip("."))


def lr(number: float) -> str:
    """A learning rate: 3.0e-4; a dash for NaN, which is not known."""
    if math.isnan(number):
        return "–"
    if number == 0 or not math.isfinite(number):
        return "0" if number == 0 else value(number)
    return _exponent(f"{number:.1e}")


def clock(seconds: float | None) -> str:
    """Time as 0:09 or 1:02:03."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def duration(seconds: float | None) -> str:
    """How long something took: 84 ms, 1.38 s, 1:02:03."""
    if seconds is not None and round(seconds, 1) < 60:
        return f"{seconds * 1000:.0f} ms" if round(seconds, 3) < 1 else f"{seconds:#.3g} s"
    return clock(seconds)


def rate(number: float | None) -> str:
    """Something per second, 3 significant digits: 0.520, 38.4, 384, 12.0k, 1.20M."""
    if number is None or not math.isfinite(number):
        return "–"
    for limit, divisor, unit in ((999.5, 1, ""), (999.5e3, 1e3, "k"), (999.5e6, 1e6, "M")):
        if abs(number) < limit:
            return f"{number / divisor:#.3g}".rstrip(".") + unit
    return f"{number / 1e9:#.3g}".rstrip(".") + "G"


def bar(share: float, width: int) -> str:
    """A bar of `width` cells, `share` of it (0 to 1) full."""
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def counted(number: int, thing: str) -> str:
    """ "1 step", "45 steps"."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def metric_name(key: str) -> str:
    """What a person calls a metric: "train loss" for "train/loss", "accuracy" for "val/accuracy"."""
    split, _, name = key.partition("/")
    return name if split == "val" and name != "loss" else f"{split} {name}".strip()


def table(rows: Sequence[Sequence[str]], right: str = "") -> list[str]:
    """Lines of `rows`, the first being the heads, with columns aligned; those whose head is in `right` (split at
    commas) to the right."""
    rows = [tuple(map(plain, row)) for row in rows]
    heads = rows[0]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    to_right = [head in right.split(",") for head in heads]
    return [
        "  ".join(
            cell.rjust(width) if turned else cell.ljust(width)
            for cell, width, turned in zip(row, widths, to_right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _exponent(text: str) -> str:
    """Python's 1.0e-05 as 1.0e-5, and no exponent where it is 0."""
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e and int(exponent) else mantissa
