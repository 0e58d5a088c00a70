"""The tests of a GPU on a simulated one: a part of them, in a process of its own that keeps the device to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu.simulated.build import compiler

ROOT = Path(__file__).parents[2]
QUICK = [
    "test_launches.py",
    "test_hands.py",
    "test_captured.py::test_b5_what_is_not_finite_does_not_reach_the_weights[Adam-captured]",
    "test_captured.py::test_a_layer_that_is_frozen_for_two_epochs_is_trained_after_them[captured]",
    "test_captured.py::test_accumulation_averages_and_clipping_are_in_the_graph[captured]",
    "test_captured.py::test_what_a_loss_counts_is_counted_on_the_device",
]


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
@pytest.mark.skipif(torch.version.cuda is not None, reason="a torch that was built with CUDA has kernels of its own")
def test_what_runs_on_a_gpu_runs_on_a_simulated_one() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "tests.gpu.simulated.plugin", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"tests/gpu/{name}" for name in QUICK]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout
