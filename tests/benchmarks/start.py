"""`python -m tests.benchmarks.start`: how long it takes to begin, each time in a new process.

The median and the best of all rounds, and the processor's time in the best: on a busy machine that is what it takes alone.

From torch's import to the first step counts all there is between: reading the recipe, loading the data, building the model, the
dry run of one batch, the run's directory.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLOCKS = "import sys, time; began = time.perf_counter(), time.process_time()"
TELL = "print(time.perf_counter() - began[0], time.process_time() - began[1], file=sys.stderr)"
IMPORT = f"{CLOCKS}; import engine; {TELL}"
FIRST_STEP = f"""
import torch
{CLOCKS}
from engine.loop import Loop
def step(loop, window, step=Loop.step):
    taken = step(loop, window)
    {TELL}
    raise SystemExit  # one is enough
Loop.step = step
from engine.cli import main
main(["train", *sys.argv[1:]])
"""
RECIPES = {
    "digits MLP": ("--data", "digits"),
    "a straight line": ("--data", "line", "--model", "linear"),
}


def process(*command: str) -> list[float]:
    """What the process said last: seconds of the clock and of the processor."""
    made = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    return [float(word) for word in made.stderr.split()[-2:]]


def importing() -> list[float]:
    return process("-c", IMPORT)


def helping() -> list[float]:
    """The whole process, the interpreter's start included."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "tui", "--help"], stdout=subprocess.DEVNULL, cwd=ROOT, check=True)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return [time.perf_counter() - began, now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime]


def first_step(*arguments: str) -> list[float]:
    with tempfile.TemporaryDirectory() as runs:
        return process("-c", FIRST_STEP, *arguments, "--runs", runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    rows = [("`import engine`, without torch", 0.2, importing), ("`epochal --help`, the whole process", 0.2, helping)]
    rows += [
        (f"`epochal train`, {name}: from torch's import to the first step", 1.0, lambda given=given: first_step(*given))
        for name, given in RECIPES.items()
    ]
    print("| start | asked for | median | best | of the processor |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for title, asked, measure in rows:
        took, used = zip(*(measure() for _ in range(rounds)), strict=True)
        seconds = f"{statistics.median(took):.2f} s | {min(took):.2f} s | {min(used):.2f} s"
        print(f"| {title} | {asked:g} s | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
