"""The best that a run reached in any of its metrics, read from its journal: from the part that is new, where it grew."""

from __future__ import annotations

import json
import math
from pathlib import Path

from engine.track.foreign import extremes

_KINDS = (b'"epoch_ended"', b'"validated"')


class Scores:
    """Of any number of runs. One thread uses it."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, int]] = {}  # file and bytes read
        # By metric its least and its largest value, each with its epoch.
        self._found: dict[Path, dict[str, list[tuple[float, int]]]] = {}

    def best(self, path: Path, metric: str, *, smaller: bool) -> tuple[float, int] | None:
        """The best value of a run's metric ("val/accuracy") and the epoch it was in; None where there is none."""
        self._read(path)
        found = self._found[path].get(metric)
        return None if found is None else found[0 if smaller else 1]

    def metrics(self, path: Path) -> list[str]:
        """What the run measured, as far as it was read."""
        return list(self._found.get(path, ()))

    def _read(self, path: Path) -> None:
        if path.suffix == ".csv" or not (path / "journal.jsonl").exists():
            self._found[path] = extremes(path)
            return
        journal = path / "journal.jsonl"
        try:
            with journal.open("rb") as file:
                stat = journal.stat()
                before, at = self._seen.get(path, (0, 0))
                if before != stat.st_ino or at > stat.st_size:
                    at = 0
                if at == 0:
                    self._found[path] = {}
                file.seek(at)
                for line in file:
                    if not line.endswith(b"\n"):  # half written
                        break
                    at += len(line)
                    if any(kind in line for kind in _KINDS):
                        self._take(path, line)
                self._seen[path] = stat.st_ino, at
        except OSError:
            self._found.setdefault(path, {})

    def _take(self, path: Path, line: bytes) -> None:
        try:
            values = json.loads(line)
            epoch, metrics = int(values["epoch"]), dict(values["metrics"])
        except (ValueError, KeyError, TypeError):
            return
        for metric, value in metrics.items():
            if isinstance(value, int | float) and math.isfinite(value):
                found = self._found[path].setdefault(metric, [(value, epoch), (value, epoch)])
                if value < found[0][0]:
                    found[0] = value, epoch
                if value > found[1][0]:
                    found[1] = value, epoch
