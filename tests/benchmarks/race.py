"""`python -m tests.benchmarks.race`: who trains how fast, as a Markdown table.

Every contender runs in a process of its own with one thread. A round is one epoch of each, one after the other, so that what
else the machine does befalls all of them; a ratio is that of two neighbours of one round, and the table shows the median of
the rounds. The first epochs are not counted; what they took beyond the usual is the start-up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WARM = 2  # epochs before the rounds
BASE = "tutorial's loop"


class Racer:
    """A contender's process. It trains an epoch for each line that it is sent and answers with a JSON line."""

    def __init__(self, case: str, name: str, rounds: int) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.error = ""
        self.loss = float("nan")
        self.start = float("nan")  # from the process's start to the end of the first epoch
        command = [sys.executable, "-m", "tests.benchmarks.race", "--run", case, name, str(rounds + WARM)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def epoch(self) -> float:
        """Seconds of the next epoch; NaN when the process has ended."""
        told = self._ask()
        return told.get("seconds", float("nan"))

    def finish(self) -> None:
        self.loss = self._ask().get("loss", float("nan"))
        self._process.communicate()

    def _ask(self) -> dict[str, Any]:
        if self.error:
            return {}
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except OSError:
            pass
        for line in self._process.stdout:
            if line.startswith('{"'):
                return json.loads(line)  # type: ignore[no-any-return]
        words = self._process.stderr.read().strip().splitlines() if self._process.stderr else []
        self.error = words[-1] if words else "ended without a word"
        return {}


def run(case: str, name: str, epochs: int) -> None:
    """What a contender's process does."""
    from tests.benchmarks.cases import CASES
    from tests.benchmarks.contenders import ALL

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    sys.stdin.readline()
    began = time.perf_counter()

    def ended() -> None:
        nonlocal began
        print(json.dumps({"seconds": time.perf_counter() - began}), file=answers, flush=True)
        sys.stdin.readline()
        began = time.perf_counter()

    model = ALL[name](CASES[case], epochs, ended)
    print(json.dumps({"loss": CASES[case].final_loss(model)}), file=answers, flush=True)


def race(case: str, names: list[str], rounds: int) -> list[Racer]:
    """All contenders in one case."""
    racers = [Racer(case, name, rounds) for name in names]
    for racer in racers:
        racer.start = racer.epoch()
        for _ in range(WARM - 1):
            racer.epoch()
    for _ in range(rounds):
        for racer in racers:
            racer.seconds.append(racer.epoch())
    for racer in racers:
        racer.finish()
    return racers


def ratio(racer: Racer, base: Racer) -> float:
    return statistics.median(b / a for a, b in zip(racer.seconds, base.seconds, strict=True))


def table(cases: list[str], names: list[str], rounds: int) -> str:
    from tests.benchmarks.cases import CASES

    lines = ["| case | contender | steps a second | to the tutorial's loop | asked for | start-up | final loss |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    absent = []
    for key in cases:
        case = CASES[key]
        steps = len(case.data()[0]) // case.batch_size
        racers = race(key, [BASE, *(name for name in names if name != BASE)], rounds)
        for racer in racers:
            if racer.error:
                absent.append(f"{racer.name}, {case.title}: {racer.error}")
                continue
            epoch = statistics.median(racer.seconds)
            asked = {"epochal eager": f"{case.eager:g}", "epochal compiled": f"{case.compiled:g}"}.get(racer.name, "")
            lines.append(
                f"| {case.title} | {racer.name} | {steps / epoch:,.0f} | {ratio(racer, racers[0]):.2f} | {asked} "
                f"| {racer.start - epoch:.1f} s | {racer.loss:.4f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", *(f"Not run here: {sentence}" for sentence in absent)]
    return "\n".join(lines) + f"\n{machine()}"


def machine() -> str:
    names = [line.partition(":")[2].strip() for line in _cpu() if line.startswith("model name")]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", *_installed()))
    here = f"Python {platform.python_version()}, {versions}"
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs, one thread; {here}"


def _cpu() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _installed() -> list[str]:
    found = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    peers = ("accelerate", "fastai", "keras", "lightning", "pytorch-ignite", "skorch", "transformers")
    return [name for name in peers if name in found]


def main() -> None:
    from tests.benchmarks.cases import CASES
    from tests.benchmarks.contenders import OURS, PEERS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", action="store_true", help="the other trainers too, where they are installed")
    parser.add_argument("--only", help="contenders whose name holds one of these words, separated by commas")
    options = parser.parse_args()
    names = [*OURS, *(PEERS if options.peers else [])]
    if options.only:
        names = [name for name in names if any(word in name for word in options.only.split(","))]
    print(table(options.cases.split(","), names, options.rounds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
