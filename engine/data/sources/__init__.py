"""Where samples come from: functions with typed arguments, each returning Samples.

A source's `task` attribute says what it is for, None when that depends on the file. Nothing heavy is imported before a
source is called.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.data.samples import Samples
from engine.data.sources.bundled import breast_cancer, diabetes, digits, iris, wine
from engine.data.sources.generated import line, moons, sine, spirals
from engine.data.sources.npz import npz
from engine.data.sources.table import csv

SOURCES: dict[str, Callable[..., Samples]] = {
    "digits": digits,
    "iris": iris,
    "wine": wine,
    "breast_cancer": breast_cancer,
    "diabetes": diabetes,
    "line": line,
    "sine": sine,
    "moons": moons,
    "spirals": spirals,
    "csv": csv,
    "npz": npz,
}
