"""Numbers, durations and symbols as the console writes them: short, aligned, one way everywhere."""

from __future__ import annotations

import math
import os
import re
import sys

import rich.cells


def number(value: float | None) -> str:
    """A loss or metric: `0.6122`, `12.35`, `1.23e-3`, `NaN`; `–` for None."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    if value == 0 or 0.01 <= size < 0.99995:
        return f"{value:.4f}"
    if 0.99995 <= size < 9999.5:
        return f"{value:#.4g}".rstrip(".")
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def rate(value: float | None) -> str:
    """A learning rate: `3.0e-4`, `0.05`; up to three significant digits below 0.01, so that no choice is rounded away."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{value:.4g}" if value == 0 or 1e-2 <= abs(value) < 1e4 else _scientific(value)


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa[:-1] if mantissa.endswith('0') else mantissa}e{int(exponent)}"


def clock(seconds: float | None) -> str:
    """`0:09`, `1:06`, `2:03:04`, `3d 04:05`; `–` for what is not known."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    minutes, second = divmod(int(max(seconds, 0)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour:02}:{minute:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def moment(seconds: float, span: float) -> str:
    """A moment within a `span` of so many seconds: as `clock`, but `4.25s` where that would not tell neighbours apart."""
    return f"{seconds:.4g}s" if span < 10 else clock(seconds)


def took(seconds: float) -> str:
    """How long something took: as `clock`, but `0.21s` below a second."""
    return f"{max(seconds, 0):.2f}s" if seconds < 0.995 else clock(max(seconds, 1))


def short(value: float) -> str:
    """A count in three figures: `87`, `950`, `12.0k`, `384k`, `1.25M`."""
    if not math.isfinite(value):
        return number(value)
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.{2 - (abs(scaled) >= 9.995) - (abs(scaled) >= 99.95)}f}{unit}"
    return f"{value:.0f}" if abs(value) >= 99.5 or value == int(value) else f"{value:.1f}"


_NARROW = re.compile("[ -~\u00b0-\u02ff\u2010-\u2027\u2500-\u25fc\u2800-\u28ff]*")


def cell_len(text: str) -> int:
    """The cells that a text takes. Rich's own counts braille one by one, which the chart is made of."""
    return len(text) if _NARROW.fullmatch(text) else rich.cells.cell_len(text)


def cut(text: str, cells: int) -> str:
    """`text` in at most so many cells, with … where it was longer; a wide character has two."""
    return text if cell_len(text) <= cells else f"{rich.cells.set_cell_size(text, max(cells - 1, 0)).rstrip()}…"


def cut_middle(text: str, cells: int) -> str:
    """As `cut`, with the … in the middle: the names of a sweep's runs differ in their ends."""
    if cell_len(text) <= cells:
        return text
    end = max(cells - 1, 0) // 2
    return cut(text, cells - end) + rich.cells.set_cell_size(text[::-1], end)[::-1]


def left(text: str, cells: int) -> str:
    """`text` and blanks up to so many cells."""
    return text + " " * (cells - cell_len(text))


def right(text: str, cells: int) -> str:
    """Blanks and `text`, in so many cells."""
    return " " * (cells - cell_len(text)) + text


_PLAIN = {
    **dict.fromkeys(map(ord, "┌┐└┘├┤┬┴┼╭╮╰╯"), "+"),
    **dict.fromkeys(map(ord, "█▉▊▋▌▍▎▏▂▃▄▅▆▇"), "#"),
    **{ord(fancy): ascii for fancy, ascii in zip("★●◌‖✓■✗▸…–—·─│•×°²▲┊↑↓◆▪", "*oo=+#x>~--.-|*xo2^|^vC.", strict=True)},
    **{ord(fancy): ascii for fancy, ascii in zip("○▾▼▽←→⌫▔▁━µΔ␣", "ovvv<><-_-ud_", strict=True)},
}


def plain_terminal() -> bool:
    """Whether only ASCII may be drawn: asked for by EPOCHAL_ASCII (0: not), the terminal's encoding is not UTF-8, or it is
    Linux's own console, which has no braille."""
    if asked := os.environ.get("EPOCHAL_ASCII"):
        return asked != "0"
    encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "") != "utf8" or os.environ.get("TERM") == "linux"


def plain(text: str) -> str:
    """`text` in ASCII, cell by cell."""
    text = text.translate(_PLAIN)
    return text if text.isascii() else "".join(c if c.isascii() else "?" * rich.cells.cell_len(c) for c in text)
