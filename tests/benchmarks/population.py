"""A sweep of digits MLPs trained together, beside the same runs one after another: `python -m tests.benchmarks.population`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

MEMBERS = (2, 3, 4, 8, 32)
ROUNDS = 3
EPOCHS = 30
ALONE = ("eager", "compiled")  # what a sweep does where it is asked for these: one after another


def seconds(members: int, execution: str) -> tuple[float, float]:
    """From the checked recipes to the last result, and the mean of the best validation losses."""
    import torch

    from engine import Sweep
    from engine.execution import compiled, whole  # noqa: F401  # what is imported is not counted
    from engine.sweep import expand, population
    from engine.trainer import Trainer  # noqa: F401

    torch.set_num_threads(1)
    population.FEWEST["cpu"] = 2
    plan = {"epochs": EPOCHS, "device": "cpu", "execution": execution}
    sweep = Sweep(expand({"training": plan}, [f"optimizer.lr=1e-4..1e-2x{members}"]), runs=None)
    begun = time.perf_counter()
    outcomes = sweep.fit()
    return time.perf_counter() - begun, statistics.fmean(outcome.value for outcome in outcomes)


def measured(members: int, execution: str) -> tuple[float, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.population", str(members), execution]
    took, loss = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(took), float(loss)


def main() -> None:
    print(f"digits MLP 64-128-10, Adam, batch 32, {EPOCHS} epochs with validation, one CPU thread, medians of {ROUNDS} rounds")
    for members in MEMBERS:
        rounds = [{execution: measured(members, execution) for execution in ("auto", *ALONE)} for _ in range(ROUNDS)]
        took = {execution: statistics.median(each[execution][0] for each in rounds) for execution in ("auto", *ALONE)}
        ratios = {execution: statistics.median(each[execution][0] / each["auto"][0] for each in rounds) for execution in ALONE}
        losses = ", ".join(f"{loss:.5f}" for _, loss in rounds[0].values())
        alone = ", ".join(f"{execution} {took[execution]:.2f} s ({ratios[execution]:.1f})" for execution in ALONE)
        print(f"{members:>3} members: together {took['auto']:.2f} s; one after another {alone}; mean best val losses {losses}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(*seconds(int(sys.argv[1]), sys.argv[2]))
    else:
        main()
