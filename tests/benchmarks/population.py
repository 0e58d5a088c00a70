"""A sweep of digits MLPs trained together, beside the same runs one after another: `python -m tests.benchmarks.population`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

MEMBERS = (2, 8, 32)
ROUNDS = 3
EPOCHS = 30
ONE_AFTER_ANOTHER = "eager"  # what a sweep does where it is asked for eager execution


def seconds(members: int, execution: str) -> tuple[float, float]:
    """From the checked recipes to the last result, and the mean of the best validation losses."""
    import torch

    from engine import Sweep
    from engine.execution import population, whole  # noqa: F401  # what is imported is not counted
    from engine.sweep import expand
    from engine.trainer import Trainer  # noqa: F401

    torch.set_num_threads(1)
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
        pairs = [(measured(members, "auto"), measured(members, ONE_AFTER_ANOTHER)) for _ in range(ROUNDS)]
        ratio = statistics.median(alone[0] / together[0] for together, alone in pairs)
        together, alone = (statistics.median(pair[i][0] for pair in pairs) for i in (0, 1))
        losses = f"mean best val loss {pairs[0][0][1]:.5f} and {pairs[0][1][1]:.5f}"
        print(f"{members:>3} members: together {together:.2f} s, one after another {alone:.2f} s, ratio {ratio:.1f}; {losses}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(*seconds(int(sys.argv[1]), sys.argv[2]))
    else:
        main()
