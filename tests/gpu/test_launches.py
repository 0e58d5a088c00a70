"""What a step asks of a GPU, counted on a simulated one: how many kernels it launches, and that the host waits for none."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

from engine import EpochEnded, Trainer
from engine.models import MODELS
from tests.gpu.test_captured import digits

SIMULATED = "tests.gpu.simulated.device" in sys.modules
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not SIMULATED, reason="real GPUs do not count: `make test-gpu-simulated`")]
STEPS = 60  # of each epoch, all of 16 samples


def parts() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = MODELS["mlp"](input_shape=(64,), output_size=10, hidden=(32,)).cuda()
    return model, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters())


def tutorial() -> int:
    """Launches of one step of the tutorial's loop, its batch on the device. torch's foreach counts for each parameter here."""
    from tests.gpu.simulated import device

    model, loss, optimizer = parts()
    inputs, targets = (part.cuda() for part in digits(16))
    for _ in range(2):
        device.launches.clear()
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
    return device.launches.total()


def trained(execution: str) -> tuple[Counter[str], Counter[str]]:
    """Launches and waits of the second epoch of a run that looks at nothing but its losses; in the first one it is made."""
    from tests.gpu.simulated import device

    model, loss, optimizer = parts()
    data: dict[str, Any] = {"train": digits(STEPS * 16), "batch_size": 16, "epochs": 2, "device": "cuda", "health": False}
    trainer = Trainer(model=model, loss=loss, optimizer=optimizer, execution=execution, **data)
    ends: list[tuple[Counter[str], Counter[str]]] = []
    trainer.on(EpochEnded, lambda _: ends.append((Counter(device.launches), Counter(device.waits))))
    assert trainer.fit().state == "finished" and trainer.taking == execution
    (launches, waits), (more_launches, more_waits) = ends
    return more_launches - launches, more_waits - waits


def test_an_eager_step_launches_less_than_the_tutorials_and_waits_for_nothing() -> None:
    launches, waits = trained("eager")
    assert launches.total() < 0.75 * tutorial() * STEPS
    assert all(count < STEPS / 2 for count in waits.values()), waits  # losses are read a few times a second


def test_a_recorded_step_is_all_that_a_captured_run_launches() -> None:
    from tests.gpu.simulated.device import graphs

    graphs.clear()
    launches, waits = trained("captured")
    one, eight = graphs
    assert len(one.entries) < 0.75 * tutorial()
    assert len(eight.entries) < 8 * (len(one.entries) - 3)  # what gathers batches and writes losses down is there once
    assert launches["graph"] < STEPS / 4  # eight at a time, but for the last of an epoch
    assert launches.total() - launches["graph"] < STEPS / 4  # the order of the next epoch, and what the losses are read with
    assert all(count < STEPS / 2 for count in waits.values()), waits


def test_what_waits_cannot_be_recorded() -> None:
    """The simulation is as strict as a GPU."""
    from tests.gpu.simulated.device import Graph, recording

    number = torch.ones((), device="cuda")
    for asks in (number.item, lambda: number.copy_(torch.ones(())), number.cpu, lambda: torch.nonzero(number)):
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), recording(Graph()):
            asks()
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3, device="cuda") + torch.ones(3)


def test_a_graph_knows_addresses_and_numbers_as_they_were() -> None:
    from tests.gpu.simulated.device import Graph, recording

    graph, x, y = Graph(), torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    factor = 2.0
    with recording(graph):
        y.add_(x * factor)
    assert y.tolist() == [0, 0, 0]  # nothing is computed while it is recorded
    kept, x, factor = x, torch.full((3,), 100.0, device="cuda"), 7.0
    graph.replay()
    assert y.tolist() == [2, 2, 2]
    kept.fill_(5)
    graph.replay()
    assert y.tolist() == [12, 12, 12]
