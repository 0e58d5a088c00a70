"""Who passes what: `python -m tests.peers.scoreboard` runs the cases against every trainer that is installed.

Each trainer runs in a process of its own and prints one JSON line a case; the table is Markdown.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

PEERS = ("epochal", "tutorial", "lightning", "ignite", "accelerate", "skorch", "transformers", "fastai", "keras")
SECONDS = 300
ROOT = Path(__file__).parents[2]


def run_one(peer: str) -> None:
    """Every case with one trainer: a JSON line each."""
    warnings.simplefilter("ignore")
    from tests.peers.cases import CASES
    from tests.peers.common import Missing

    adapter = importlib.import_module(f"tests.peers.with_{peer}")
    for code, case in CASES.items():
        told: dict[str, Any] = {"code": code, "title": (case.__doc__ or "").strip()}
        try:
            told["number"], passed = case(adapter.fit)
            told["passed"] = bool(passed)
        except Missing as missing:
            told["missing"] = str(missing)
        except Exception as error:  # a peer's own failure is a result
            told["number"], told["passed"] = (
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:90],
                False,
            )
        told["note"] = getattr(adapter, "NOTES", {}).get(code)
        print("\n" + json.dumps(told), flush=True)


def results(peer: str) -> list[dict[str, Any]] | str:
    """What `run_one` printed in a process of its own, or the sentence why there is nothing."""
    command = [sys.executable, "-m", "tests.peers.scoreboard", peer]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} seconds"
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"code"')]
    return found or (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]


def table() -> str:
    names, columns, absent = [], [], []
    for peer in PEERS:
        print(f"{peer} …", file=sys.stderr, flush=True)
        found = results(peer)
        if isinstance(found, str):
            absent.append(f"{peer}: {found}")
            continue
        name, package = NAMES[peer]
        version = metadata.version(package) if package != "epochal" else ""
        names.append(f"{name} {version}".strip())
        columns.append({row["code"]: row for row in found})
    notes: list[str] = []
    lines = [f"| case | {' | '.join(names)} |", f"| --- |{' :---: |' * len(names)}"]
    for code, first in columns[0].items():
        cells = [_cell(column.get(code), notes) for column in columns]
        lines.append(f"| **{code}** {first['title']} | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    lines += [f"Not run here: {sentence}" for sentence in absent]
    versions = f"torch {metadata.version('torch')}, Python {sys.version.split()[0]}, CPU"
    return "\n".join([*lines, "", f"Measured with {versions}, by `make scoreboard`."])


def _cell(row: dict[str, Any] | None, notes: list[str]) -> str:
    if row is None:
        return "did not end"
    said = row.get("missing") or row["note"]
    if said and said not in notes:
        notes.append(said)
    mark = f" [{notes.index(said) + 1}]" if said else ""
    return ("–" if "missing" in row else "✓" if row["passed"] else f"✗ {row['number']}") + mark


NAMES = {
    "epochal": ("epochal", "epochal"),
    "tutorial": ("tutorial's loop, torch", "torch"),
    "lightning": ("Lightning", "lightning"),
    "ignite": ("Ignite", "pytorch-ignite"),
    "accelerate": ("Accelerate", "accelerate"),
    "skorch": ("skorch", "skorch"),
    "transformers": ("HF Trainer", "transformers"),
    "fastai": ("fastai", "fastai"),
    "keras": ("Keras on torch", "keras"),
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_one(sys.argv[1])
    else:
        print(table())
