"""Evaluation: how good a trained model was found to be, and where it is wrong; as a run keeps it. Nothing heavy is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.run import strict_json

FILE = "evaluation.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found, as plain values.

    `metrics` by name, "loss" among them, as the run measures them. `confusion`: a row for each class of the targets, a column
    for each predicted one. `report`: "class", "precision", "recall", "f1" and "support" of each class; `averages`: "accuracy",
    "macro avg" and "weighted avg". `residuals`: of each number that is predicted a summary of output minus target, in the units
    of the data. `worst`: "index" (in `data`), "target", "output" and "loss" of the samples with the largest losses.
    """

    run: str
    step: int
    data: str
    samples: int
    task: str
    metrics: dict[str, float]
    classes: tuple[str, ...] = ()
    confusion: list[list[int]] | None = None
    report: tuple[dict[str, Any], ...] = ()
    averages: dict[str, Any] = dataclasses.field(default_factory=dict)
    residuals: tuple[dict[str, float], ...] = ()
    worst: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    made: float = 0.0  # when, in seconds since 1970

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """What `as_dict` gave."""
        if values["format"] != _FORMAT:
            raise ValueError(f"it has format {values['format']!r}, not {_FORMAT}")
        given = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        lists = ("classes", "report", "residuals", "worst", "notes")
        return cls(**given | {name: tuple(given[name]) for name in lists})

    @classmethod
    def kept(cls, directory: Path) -> Evaluation | None:
        """The last one of the run in this directory; None without any. RunError where it can't be read."""
        return strict_json.kept(directory / FILE, cls.from_dict, "evaluate the run again")
