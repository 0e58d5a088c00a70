"""`python -m tests.benchmarks.processes`: steps a second of 1, 2 and 4 processes over gloo, what they tell each other, and what
that comes to with many GPUs, computed.

Each measurement is a torchrun of its own, in turns; the median of the rounds. The global batch is the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "digits MLP 64-128-10, batch 32": {"data": {"batch_size": 32}, "model": {"name": "mlp", "hidden": [128]}},
    "digits MLP 64-1024-1024-10, batch 512": {"data": {"batch_size": 512}, "model": {"name": "mlp", "hidden": [1024, 1024]}},
}
COUNTS = (1, 2, 4)
MODELS = {
    "GPT of 124 M parameters, 64 x 1,024 tokens a GPU": (124e6, 65536),
    "GPT of 1.3 G, 16 x 1,024 tokens a GPU": (1.3e9, 16384),
}
# Assumed: operations a second of a GPU; GPUs of a node; bytes a second of one GPU in it and to others; seconds of a message.
SPEED, NODE, INSIDE, BETWEEN, LATENCY = 400e12, 8, 300e9, 50e9, 10e-6
FAR = (8, 64, 1024)


def worker(name: str, steps: int) -> None:
    """Train so many steps; rank 0 prints what it measured."""
    from engine import Recipe, RunEnded, Trainer

    plan = {"max_steps": steps, "execution": "eager", "threads": 1, "health": False, "validate_every": 1000}
    trainer = Trainer.from_recipe(Recipe.from_dict({**CASES[name], "training": plan}), runs=None)
    seconds: list[float] = []
    trainer.on(RunEnded, lambda event: seconds.append(event.seconds))
    trainer.fit()
    if int(os.environ.get("RANK", "0")) == 0:
        known = getattr(trainer.loop.model, "_get_ddp_logging_data", dict)()
        print(json.dumps({"rate": steps / seconds[0], "buckets": known.get("bucket_sizes", "")}))


def measured(name: str, count: int, steps: int) -> dict[str, Any]:
    command = [sys.executable, "-m"]
    if count > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
    command += ["tests.benchmarks.processes", "--worker", name, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def computed(parameters: float, tokens: float, count: int) -> tuple[float, float]:
    """Seconds of a step's forward and backward on each of so many GPUs, and of the gradients' way round the ring in float32."""
    slowest = INSIDE if count <= NODE else BETWEEN
    round_the_ring = 2 * (count - 1) / count * 4 * parameters / slowest + 2 * (count - 1) * LATENCY
    return 6 * parameters * tokens / SPEED, round_the_ring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=CASES)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.steps)
        return
    for name in CASES:
        rounds = [{count: measured(name, count, arguments.steps) for count in COUNTS} for _ in range(arguments.rounds)]
        print(name)
        for count in COUNTS:
            rate = statistics.median(found[count]["rate"] for found in rounds)
            share = statistics.median(found[count]["rate"] / found[1]["rate"] for found in rounds)
            buckets = rounds[0][count]["buckets"]
            print(f"  {count} processes  {rate:8,.0f} steps/s  {share:5.2f} of one  gradients in bytes {buckets or '-'}")
    for name, (parameters, tokens) in MODELS.items():
        print(name)
        for count in FAR:
            computing, talking = computed(parameters, tokens, count)
            hidden, beside = computing / max(computing, talking), computing / (computing + talking)
            print(
                f"  {count:5,} GPUs  computing {1e3 * computing:6.0f} ms  gradients {1e3 * talking:6.1f} ms  "
                f"{beside:4.0%} of ideal if nothing overlaps, {hidden:4.0%} if all does"
            )


if __name__ == "__main__":
    main()
