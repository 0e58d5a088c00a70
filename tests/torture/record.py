"""What a run directory tells of its training, in a form in which only equal trainings are equal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from engine import EpochEnded, Run, Trained, Validated
from engine.run import Journal
from engine.run.strict_json import decode

TIMES = {"elapsed", "epoch_seconds", "seconds", "applied"}


def steps(run: Run) -> list[tuple[int, float, float]]:
    """(step, loss, learning rate) of every point in the journal, as often and in the order in which they stand there."""
    trained = [event for event in Journal.read(run.journal.path)[0] if isinstance(event, Trained)]
    assert all(event.every == 1 for event in trained)
    return [(event.first + k, event.loss[k], event.lr[k]) for event in trained for k in range(len(event.loss))]


def validations(run: Run) -> list[tuple[Any, ...]]:
    """What was validated, at the end of epochs and on the way."""
    events = Journal.read(run.journal.path)[0]
    kinds = (EpochEnded, Validated)
    return [(type(e).__name__, e.epoch, e.step, dict(e.metrics), e.best) for e in events if isinstance(e, kinds)]


def digests(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of each of its files, the trainer's clocks left out."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(checkpoint.glob("*.safetensors"))}
    state = decode((checkpoint / "state.json").read_bytes())
    return {**found, "state": hashlib.sha256(json.dumps(_timeless(state), sort_keys=True).encode()).hexdigest()}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def litter(run: Run) -> list[str]:
    """Hidden files that a write in progress leaves behind when it is cut off."""
    return sorted(str(path.relative_to(run.path)) for path in run.path.rglob(".*") if path.name != ".lock")
