"""Where samples come from: functions with typed arguments, each returning what `engine.data.prepare` takes, mostly Samples.

A source's `task` attribute says what it is for, None when that depends on the file. Nothing heavy is imported before a
source is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.data.sources.arrays import npy, npz, safetensors
from engine.data.sources.bundled import breast_cancer, diabetes, digits, iris, wine
from engine.data.sources.generated import line, moons, sine, spirals
from engine.data.sources.hub import huggingface, torchvision
from engine.data.sources.images import images
from engine.data.sources.table import csv, parquet
from engine.data.sources.text import text

SOURCES: dict[str, Callable[..., Any]] = {
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
    "parquet": parquet,
    "npz": npz,
    "npy": npy,
    "safetensors": safetensors,
    "images": images,
    "text": text,
    "torchvision": torchvision,
    "huggingface": huggingface,
}
