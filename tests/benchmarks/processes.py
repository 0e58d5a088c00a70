"""`python -m tests.benchmarks.processes`: steps a second of 1, 2 and 4 processes over gloo, beside the tutorial's loop with
torch's DDP, and what they tell each other comes to with many GPUs, computed.

Each measurement is a torchrun of its own, in turns; the median of the rounds. The global batch is the same for all.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
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
        print(steps / seconds[0])


def tutorial(name: str, steps: int) -> None:
    """The same model on the same data by the tutorial's loop, which sums no loss and asks nobody anything."""
    import torch
    from sklearn.datasets import load_digits
    from torch import distributed, nn
    from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

    torch.set_num_threads(1)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    images, classes = load_digits(return_X_y=True)
    dataset = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(classes))
    sizes = [64, *CASES[name]["model"]["hidden"], 10]
    layers = [part for ends in itertools.pairwise(sizes) for part in (nn.Linear(*ends), nn.ReLU())]
    model: nn.Module = nn.Sequential(*layers[:-1])
    sampler = None
    if count > 1:
        distributed.init_process_group("gloo")
        model, sampler = nn.parallel.DistributedDataParallel(model), DistributedSampler(dataset)
    loader = DataLoader(dataset, CASES[name]["data"]["batch_size"] // count, shuffle=sampler is None, sampler=sampler)
    optimizer, loss = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    began = time.perf_counter()
    for inputs, targets in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    if int(os.environ.get("RANK", "0")) == 0:
        print(steps / (time.perf_counter() - began))
    if count > 1:
        distributed.destroy_process_group()


def measured(name: str, count: int, steps: int, how: str) -> float:
    command = [sys.executable, "-m"]
    if count > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
    command += ["tests.benchmarks.processes", how, name, "--steps", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.splitlines()[-1])


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
    parser.add_argument("--tutorial", choices=CASES)
    arguments = parser.parse_args()
    if arguments.worker or arguments.tutorial:
        (worker if arguments.worker else tutorial)(arguments.worker or arguments.tutorial, arguments.steps)
        return
    turns = [(count, how) for count in COUNTS for how in ("--worker", "--tutorial")]
    for name in CASES:
        rounds = [{turn: measured(name, turn[0], arguments.steps, turn[1]) for turn in turns} for _ in range(arguments.rounds)]
        print(name)
        for count in COUNTS:
            rate, plain = (statistics.median(found[count, how] for found in rounds) for how in ("--worker", "--tutorial"))
            share = statistics.median(found[count, "--worker"] / found[1, "--worker"] for found in rounds)
            print(f"  {count} processes  {rate:8,.0f} steps/s  {share:5.2f} of one  the tutorial's loop {plain:8,.0f}")
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
