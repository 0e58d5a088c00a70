"""The benchmarks run: every case, so small that nothing is measured, and what is compared is comparable."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.benchmarks import race
from tests.benchmarks.cases import cases
from tests.benchmarks.contenders import ALL, BASE, takes_part


def trained(key: str, name: str, epochs: int = 2) -> list[Any]:
    models: list[Any] = []
    ALL[name](cases("cpu", tiny=True)[key], epochs, models.append, lambda note: None)
    return models


@pytest.mark.parametrize("key", ["digits", "images", pytest.param("resnet18", marks=pytest.mark.slow), "gpt"])
def test_ours_and_the_tutorials_begin_alike_and_learn(key: str) -> None:
    case = cases("cpu", tiny=True)[key]
    first, second = case.begin()[0], case.begin()[0]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for name in (BASE, "epochal eager", "epochal eager, fused"):
        models = trained(key, name)
        assert len(models) == 2
        assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), models[-1].parameters(), strict=True))
        assert math.isfinite(case.final_loss(models[-1]))


def test_the_final_loss_is_that_of_all_data_at_once() -> None:
    case = cases("cpu", tiny=True)["digits"]
    model, loss, _ = case.begin()
    inputs, targets = case.data
    assert case.final_loss(model) == pytest.approx(loss(model(inputs), targets).item(), rel=1e-5)


def test_the_population_ends_an_epoch_when_all_its_members_have() -> None:
    losses = trained("population", "epochal population", epochs=3)
    assert len(losses) == 3 and losses[2] < losses[0]


def test_on_a_gpu_captured_takes_part_and_bf16_where_the_base_is_float32() -> None:
    on_gpu = cases("cuda")
    assert takes_part(on_gpu["digits"], "epochal captured") and not takes_part(cases("cpu")["mlp"], "epochal captured")
    assert [key for key, case in on_gpu.items() if takes_part(case, "tutorial's loop, bf16")] == ["resnet18"]
    assert takes_part(on_gpu["population"], "epochal population") and not takes_part(on_gpu["population"], "epochal eager")


def test_one_that_fails_is_named_and_the_other_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "WARM", 1)
    known = cases("cpu", tiny=True)
    lines = list(race.table({"digits": known["digits"]}, ["nobody"], 1, 300.0, tiny=True))
    rows = [line.split("|")[2].strip() for line in lines if line.startswith("| digits")]
    assert rows == [BASE]
    assert any("nobody" in line and "not run: KeyError: 'nobody'" in line for line in lines)
    assert f"torch {torch.__version__}" in lines[-1]
