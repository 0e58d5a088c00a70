"""What `run.log` costs a loop, the thread that writes included: a table in Markdown. `make bench-log`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from engine import Run

CALLS, WORK = 200_000, 30e-6  # seconds that a step of the loop takes without it


def main() -> None:
    """Each case in a loop that does something else between two calls, and in one that only logs."""
    torch.set_num_threads(1)
    loss, norm = torch.tensor(0.5), torch.tensor(1.5)
    cases: list[tuple[str, Callable[[int], Mapping[str, Any]], dict[str, Any]]] = [
        ("one float", lambda step: {"train/loss": 0.5}, {}),
        ("one tensor on the CPU", lambda step: {"train/loss": loss}, {}),
        ("three floats, an epoch", lambda step: {"train/loss": 0.5, "lr": 1e-3, "norm": 1.5}, {"epoch": 1}),
        ("two tensors and a float, an epoch", lambda step: {"train/loss": loss, "norm": norm, "lr": 1e-3}, {"epoch": 1}),
    ]
    print(
        "| logged at each step | the call alone, µs | in a loop of 30 µs a step, all told, µs | should_stop, µs | journal, MB |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, values, more in cases:
        idle = _stepping(lambda step: None)
        with tempfile.TemporaryDirectory() as root, Run.create(root, "bench") as run:
            call = min(_calls(run, values, more) for _ in range(5))
            stop = min(_stops(run) for _ in range(5))
            busy = _stepping(lambda step, run=run, values=values, more=more: run.log(step, values(step), **more))  # type: ignore[misc]
            run.finish()
            size = sum((at / "journal.jsonl").stat().st_size for at in Path(root).iterdir())
        print(f"| {name} | {call * 1e6:.2f} | {(busy - idle) * 1e6:.2f} | {stop * 1e6:.2f} | {size / 1e6:.1f} |", flush=True)


def _calls(run: Run, values: Callable[[int], Mapping[str, Any]], more: dict[str, Any]) -> float:
    logged = values(0)
    began = time.perf_counter()
    for step in range(2000):
        run.log(step, logged, **more)
    return (time.perf_counter() - began) / 2000


def _stops(run: Run) -> float:
    began = time.perf_counter()
    for _ in range(2000):
        run.should_stop  # noqa: B018
    return (time.perf_counter() - began) / 2000


def _stepping(log: Callable[[int], object]) -> float:
    """Processor time of this process for a step, the writing thread's included."""
    began = time.process_time()
    for step in range(CALLS):
        until = time.perf_counter() + WORK
        while time.perf_counter() < until:
            pass
        log(step)
    return (time.process_time() - began) / (CALLS)


if __name__ == "__main__":
    main()
