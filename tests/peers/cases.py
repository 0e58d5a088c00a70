"""The cases, each once for all trainers: how it is set up, what is measured, and what is right."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tests.peers.common import LENGTH, SCHEDULERS, Fitted, Plan, network, samples

Fit = Callable[[Plan], Fitted]
Outcome = tuple[str, bool]  # what was measured, and whether it is right
CROSS_ENTROPY = nn.CrossEntropyLoss()


def apart(one: nn.Module, other: nn.Module) -> float:
    """The largest difference between two models' weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs)


def stepped(plan: Plan, *windows: slice) -> nn.Module:
    """The model after one plain SGD step on each of these ranges of samples as one batch."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=plan.lr)
    for window in windows:
        optimizer.zero_grad()
        CROSS_ENTROPY(net(plan.data[0][window]), plan.data[1][window]).backward()
        optimizer.step()
    return net


def a1(fit: Fit) -> Outcome:
    """The epoch's loss of batches of 4, 4 and 2 samples is the mean over samples"""
    plan = Plan(samples(10), batch_size=4, lr=0.0)
    with torch.no_grad():
        right = float(CROSS_ENTROPY(network()(plan.data[0]), plan.data[1]))
    loss = fit(plan).loss
    return f"{loss:.5f} for {right:.5f}", abs(loss - right) < 1e-5


def a5(fit: Fit) -> Outcome:
    """Accumulation over two batches with 4 and 1 valid targets is the one big batch"""
    inputs, targets = samples(8)
    targets[5:] = -100  # ignored: the second batch has one target that counts
    plan = Plan((inputs, targets), batch_size=4, lr=1.0, accumulate=2)
    off = apart(fit(plan).model, stepped(plan, slice(0, 8)))
    return f"off by {off:.0e}", off < 1e-6


def a6(fit: Fit) -> Outcome:
    """7 batches, window 4: the second step divides by 3"""
    plan = Plan(samples(28), batch_size=4, lr=1.0, accumulate=4)
    off = apart(fit(plan).model, stepped(plan, slice(0, 16), slice(16, 28)))
    return f"off by {off:.0e}", off < 1e-6


def a7(fit: Fit) -> Outcome:
    """7 batches, window 4, two epochs: 4 steps, the trailing window never leaks into the next epoch"""
    steps = fit(Plan(samples(28), batch_size=4, accumulate=4, epochs=2)).steps
    return f"{steps} steps", steps == 4


def c1(fit: Fit) -> Outcome:
    """Learning rates of a resumed run, 9 schedulers of torch, stopped after step 7 of 15"""
    right = 0
    for name in SCHEDULERS:
        with tempfile.TemporaryDirectory() as place:
            plan = Plan(samples(25), batch_size=5, epochs=3, momentum=0.9, scheduler=name, place=Path(place))
            whole = fit(plan).rates
            saved = fit(plan.__class__(**{**vars(plan), "save_at": 7})).saved
            resumed = fit(plan.__class__(**{**vars(plan), "resume": True})).rates
            right += len(whole) == LENGTH and resumed == whole[saved:]
    return f"{right} of {len(SCHEDULERS)}", right == len(SCHEDULERS)


def d1(fit: Fit) -> Outcome:
    """Stopped after step 7 of 15 and resumed, with dropout and shuffling: the same weights to the last bit"""
    with tempfile.TemporaryDirectory() as place:
        plan = Plan(samples(25), batch_size=5, epochs=3, momentum=0.9, shuffle=True, dropout=0.5, place=Path(place))
        whole = fit(plan)
        saved = fit(plan.__class__(**{**vars(plan), "save_at": 7})).saved
        resumed = fit(plan.__class__(**{**vars(plan), "resume": True}))
        off = apart(whole.model, resumed.model)
    at = "" if saved == 7 else f", from step {saved}"
    return f"off by {off:.0e}{at}", off == 0.0 and saved == 7


def d4(fit: Fit) -> Outcome:
    """Validation on or off changes neither the training order nor dropout"""
    plans = [
        Plan(samples(25), batch_size=5, epochs=3, shuffle=True, dropout=0.5, validation=held) for held in (None, samples(10, 2))
    ]
    off = apart(*(fit(plan).model for plan in plans))
    return f"off by {off:.0e}", off == 0.0


CASES: dict[str, Callable[[Fit], Outcome]] = {"A1": a1, "A5": a5, "A6": a6, "A7": a7, "C1": c1, "D1": d1, "D4": d4}
