"""`python -m tests.benchmarks.profile`: where the time of one step goes, in the tutorial's loop and in epochal's eager one.

Both are the same mathematics on the same data, on one CPU thread, an epoch of each in turn. The clock is the thread's processor
time, read before and after each part; what reading it costs is measured and taken off. The table shows the medians of the
epochs' means; "the loop itself" is the rest of the whole step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from tests.benchmarks.cases import Case, cases

PARTS = ("the batch", "clear gradients", "forward", "loss", "backward", "look for NaN", "optimizer")
Clock = time.thread_time  # what other processes do to the machine is hardly seen in it


class Clocks:
    """Seconds by part, of the epoch under way."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def wrap(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*arguments: Any) -> Any:
            began = Clock()
            result = call(*arguments)
            self.seconds[part] += Clock() - began
            return result

        return clocked

    def iterate(self, part: str, items: Iterable[Any]) -> Iterator[Any]:
        step = self.wrap(part, iter(items).__next__)
        while True:
            try:
                item = step()
            except StopIteration:
                return
            yield item


def tutorial(case: Case, clocks: Clocks) -> Iterator[None]:
    """An epoch for each time it is asked for the next."""
    model, loss_fn, optimizer = case.begin()
    loader = case.loader()
    forward, criterion = clocks.wrap("forward", model), clocks.wrap("loss", loss_fn)
    clear, update = clocks.wrap("clear gradients", optimizer.zero_grad), clocks.wrap("optimizer", optimizer.step)
    backward = clocks.wrap("backward", torch.Tensor.backward)
    model.train()
    while True:
        for inputs, targets in clocks.iterate("the batch", loader):
            clear()
            loss = criterion(forward(inputs), targets)
            backward(loss)
            update()
        yield


def epochal(case: Case, clocks: Clocks) -> Iterator[None]:
    """The steps of the trainer's own loop, an epoch each time."""
    from engine import Trainer
    from engine.execution.chain import Chain
    from engine.loop import windows

    model, loss, optimizer = case.begin()
    trainer = Trainer(
        model=model,
        loss=loss,
        optimizer=optimizer,
        train=case.data,
        batch_size=case.batch_size,
        device="cpu",
        execution="eager",
    )
    loop, hands = trainer.loop, trainer.loop.hands
    for part, name in (("forward", "forward"), ("loss", "criterion"), ("backward", "backward")):
        setattr(Chain, name, clocks.wrap(part, getattr(Chain, name)))  # before one is made
    for part, name in (("clear gradients", "clear"), ("look for NaN", "finite"), ("optimizer", "update")):
        setattr(hands, name, clocks.wrap(part, getattr(hands, name)))
    epoch = 0
    while True:
        epoch += 1
        for taken in loop.train_epoch(windows(clocks.iterate("the batch", trainer.parts.train.epoch(epoch)), 1)):
            trainer.meter.add(taken)
        trainer.meter.read()
        yield


def clock_costs(times: int = 20_000) -> tuple[float, float]:
    """Seconds that a clocked call of nothing takes: seen by its own clock, and in all."""
    clocks = Clocks()
    nothing = clocks.wrap("nothing", lambda: None)
    began = Clock()
    for _ in range(times):
        nothing()
    return clocks.seconds["nothing"] / times, (Clock() - began) / times


def profile(case: Case, epochs: int) -> dict[str, dict[str, float]]:
    """Microseconds a step by part, of each loop; and of "the whole step"."""
    clocks = {"tutorial's loop": Clocks(), "epochal eager": Clocks()}
    loops = [tutorial(case, clocks["tutorial's loop"]), epochal(case, clocks["epochal eager"])]
    inside, outside = clock_costs()
    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in clocks}
    for number in range(epochs + 1):
        for (name, clock), loop in zip(clocks.items(), loops, strict=True):
            clock.seconds.clear()
            began = Clock()
            next(loop)
            whole = (Clock() - began) / case.steps - len(clock.seconds) * outside
            if number:  # the first is for warming up
                found[name]["the whole step"].append(1e6 * whole)
                for part, seconds in clock.seconds.items():
                    found[name][part].append(1e6 * (seconds / case.steps - inside))
    return {name: {part: statistics.median(times) for part, times in parts.items()} for name, parts in found.items()}


def table(case: Case, found: dict[str, dict[str, float]]) -> Iterator[str]:
    names = list(found)
    yield f"| one step of the {case.title} | " + " | ".join(names) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for part in PARTS:
        yield f"| {part} | " + " | ".join(f"{found[name][part]:.0f} µs" if part in found[name] else "" for name in names) + " |"
    rest = {name: parts["the whole step"] - sum(parts.get(part, 0.0) for part in PARTS) for name, parts in found.items()}
    yield "| the loop itself | " + " | ".join(f"{rest[name]:.0f} µs" for name in names) + " |"
    yield "| **the whole step** | " + " | ".join(f"**{found[name]['the whole step']:.0f} µs**" for name in names) + " |"


def main() -> None:
    known = cases("cpu")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=known, default="mlp")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for line in table(known[options.case], profile(known[options.case], options.epochs)):
        print(line)


if __name__ == "__main__":
    main()
