from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: inputs (1797, 64) in 0..1, targets (1797,)."""
    data = load_digits()
    return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)


@pytest.fixture
def in_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and the environment of commands that are run as processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside a busy process more threads are many times slower
    return tmp_path
