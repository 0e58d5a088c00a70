"""On a GPU: what is not finite is kept from the weights without a wait, memory that runs out, and exact resumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Recipe, Trainer
from engine.data.batches import StreamedBatches
from engine.run import Run
from tests.engine import plain

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

RECIPE: dict[str, Any] = {
    "name": "gpu",
    "data": {"name": "digits", "batch_size": 64},
    "model": {"name": "mlp", "hidden": [64], "dropout": 0.2},
    "training": {"epochs": 3, "device": "cuda", "deterministic": True},
    "checkpoint": {"min_seconds": 0.0},
}


def trainer_of(runs: Path, **changes: Any) -> Trainer:
    return Trainer.from_recipe(Recipe.from_dict(RECIPE).replace(**changes), runs=runs)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD", "RMSprop"])
def test_b5_a_loss_that_is_not_finite_does_not_reach_the_weights(tmp_path: Path, optimizer: str) -> None:
    """RMSprop has no fused kernel: the host looks before each of its steps."""
    trainer = trainer_of(tmp_path, **{"optimizer.name": optimizer, "training.execution": "eager"})
    assert (trainer.loop.guard is not None) == (optimizer != "RMSprop")
    calls = 0

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = nn.functional.cross_entropy(output, targets)
        return value * math.nan if calls == 5 else value

    trainer.loop.loss = loss
    result = trainer.fit()
    assert result.state == "failed" and "step 5" in result.reason
    assert all(torch.isfinite(value).all() for value in trainer.parts.model.state_dict().values())


@pytest.mark.parametrize("step", [7, 23, 24, 40])
def test_d1_stopped_and_resumed_is_never_stopped(tmp_path: Path, step: int) -> None:
    whole = trainer_of(tmp_path / "whole")
    whole.fit()
    first = trainer_of(tmp_path / "cut", **{"training.max_steps": step})
    first.fit()
    assert first.run is not None
    second = Trainer.resume(first.run.path, epochs=3)
    second.fit()
    assert plain.same(second.parts.model.state_dict(), whole.parts.model.state_dict())


def test_f6_memory_that_runs_out_leaves_a_checkpoint_of_the_last_step(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, **{"training.execution": "eager"})
    inside, calls = trainer.loop.loss, 0

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            torch.empty(2**45, dtype=torch.uint8, device="cuda")  # more than there is
        return inside(output, targets)

    trainer.loop.loss = loss
    result = trainer.fit()
    assert result.state == "failed" and "out of memory on cuda" in result.reason and "GiB more wanted" in result.reason
    assert result.run is not None and Run.open(result.run.path).checkpoints.read("last").step == 3


@pytest.mark.real("a host is not busy beside its own copies")
def test_streamed_batches_arrive_whole_while_the_device_is_busy() -> None:
    """Each is copied beside the work on the one before; read late, on a busy stream, it still is what was loaded."""
    rows = torch.randn(64 * 32, 4096)
    dataset = torch.utils.data.TensorDataset(rows, torch.arange(len(rows)))
    batches = StreamedBatches(dataset, batch_size=64, shuffle=True, seed=1, device="cuda")
    weights = torch.randn(4096, 4096, device="cuda")
    sums, indices = [], []
    for _ in range(3):
        for inputs, targets in batches.epoch(1):
            for _ in range(20):
                weights = (weights @ weights).clamp(-1, 1)
            sums.append(inputs.double().sum(1))
            indices.append(targets)
    expected = rows.double().sum(1)[torch.cat(indices).cpu()]
    torch.testing.assert_close(torch.cat(sums).cpu(), expected)
