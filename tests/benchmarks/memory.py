"""`python -m tests.benchmarks.memory`: what a long run at full speed keeps: memory, journal and history at 10, 50 and 100 %.

Each run is a process of its own, with a run directory, checkpoints and validation, as `epochal train` makes it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MARKS = (0.1, 0.5, 1.0)
RUNS: dict[str, dict[str, Any]] = {
    "straight line, 1,000 steps an epoch": {
        "data": {"name": "line", "samples": 40_000, "validation": 0.2},
        "model": {"name": "linear"},
        "optimizer": {"name": "SGD", "lr": 1e-2},
        "training": {"epochs": 1},
    },
    "digits MLP, 45 steps an epoch": {
        "data": {"name": "digits", "validation": 0.2},
        "model": {"name": "mlp", "hidden": [128]},
        "optimizer": {"name": "Adam", "lr": 1e-3},
        "training": {"epochs": 1},
    },
}


def train(name: str, steps: int, execution: str = "compiled") -> list[dict[str, float]]:
    """Train so many steps; what there was at each mark."""
    import psutil
    import torch

    from engine import Event, Recipe, RunEnded, Trainer

    torch.set_num_threads(1)
    plan = {"max_steps": steps, "execution": execution, "device": "cpu"}
    recipe = Recipe.from_dict({**RUNS[name], "training": plan})
    process, found, marks = psutil.Process(), list[dict[str, float]](), list(MARKS)
    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer.from_recipe(recipe, runs=place)
        assert trainer.run is not None
        journal = trainer.run.path / "journal.jsonl"

        def look(event: Event) -> None:
            while marks and (isinstance(event, RunEnded) or (marks[0] < 1 and trainer.step >= marks[0] * steps)):
                marks.pop(0)
                history = trainer.history
                kept = [history.epochs, history.checkpoints, history.messages, history.holds, history.settings]
                found.append(
                    {
                        "step": trainer.step,
                        "epoch": trainer.epoch,
                        "rss": process.memory_info().rss / 2**20,
                        "journal": journal.stat().st_size / 2**20,
                        "points": sum(map(len, history.series.values())) + len(history.clock),
                        "rows": sum(map(len, kept)),
                        "seconds": trainer.pace.elapsed,
                    }
                )

        trainer.on(Event, look)
        trainer.fit()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    print("| run | step | epoch | seconds | memory | journal | points of curves | rows |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in RUNS:
        command = [sys.executable, "-m", "tests.benchmarks.memory", "--run", name, str(options.steps)]
        made = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
        for at in json.loads(made.stdout.splitlines()[-1]):
            print(
                f"| {name} | {at['step']:,} | {at['epoch']:,} | {at['seconds']:.0f} | {at['rss']:.1f} MiB "
                f"| {at['journal']:.2f} MiB | {at['points']:,} | {at['rows']:,} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(train(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
