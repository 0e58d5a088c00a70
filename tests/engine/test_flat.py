"""What a run keeps does not grow with its length: curves and rows in memory, and points in the journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import EpochEnded, History, Message, Trained, Trainer, history
from engine.loop import Taken
from engine.measure import LossMeter
from engine.run import Journal
from engine.training import trainer_state
from tests.benchmarks import memory


def ended(epoch: int) -> EpochEnded:
    return EpochEnded(epoch=epoch, step=7 * epoch, metrics={"train/loss": 1.0 / epoch}, lr=0.1, seconds=1.0, best=False)


def test_a_history_keeps_the_newest_epochs_one_by_one_and_thins_out_the_older_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ROWS", 100)
    held = History()
    for epoch in range(1, 5001):
        held.apply(ended(epoch))
        held.apply(Message(text=str(epoch)))
        kept = [row.epoch for row in held.epochs]
        assert len(kept) <= 100 and kept[0] == 1 and kept == sorted(set(kept))
        assert kept[-min(epoch, 50) :] == list(range(max(1, epoch - 49), epoch + 1))
    assert len(held.messages) <= 100 and held.messages[-1].text == "5000"


def test_up_to_the_bound_every_epoch_is_there() -> None:
    held = History()
    for epoch in range(1, history.ROWS + 1):
        held.apply(ended(epoch))
    assert [row.epoch for row in held.epochs] == list(range(1, history.ROWS + 1))


def points(steps_an_epoch: int, epochs: int, most: int) -> Iterator[Trained]:
    """What a meter states of a run whose length is not known."""
    meter = LossMeter(2, most)
    for epoch in range(epochs):
        for _ in range(steps_an_epoch):
            meter.add(Taken(torch.tensor(1.0), 1, 1, 1, 0.1))
        meter.read()
        meter.end_epoch()
        stated = meter.take_points(epoch + 1)
        assert stated is not None
        yield stated
        meter.start_epoch((epoch + 1) * steps_an_epoch)


def test_the_points_of_an_endless_run_become_rarer_and_cover_every_step_once() -> None:
    stated = list(points(50, 400, most=100))  # 20,000 steps
    assert sum(len(event.loss) for event in stated[:4]) == 100
    rarer = [event.every for event in stated]
    assert rarer[0] == 2 and rarer == sorted(rarer) and rarer[-1] >= 128
    assert all(before.step + 1 == after.first for before, after in itertools.pairwise(stated))
    curve = History()
    for event in stated:
        curve.apply(event)
    assert curve.curve("train/loss").newest == (len(curve.curve("train/loss")), (20_000, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("samples", [64, 640])
def test_ten_times_the_steps_an_epoch_make_no_longer_a_journal(
    samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_state, "POINTS", 40)
    net = nn.Linear(1, 1)
    x: Tensor = torch.randn(samples, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    plan: dict[str, Any] = {"batch_size": 2, "epochs": 10, "device": "cpu", "run_dir": tmp_path / "run"}
    result = Trainer(model=net, loss=nn.MSELoss(), optimizer=optimizer, train=(x, x), **plan).fit()
    assert result.run is not None
    events, problems = Journal.read(result.run.path / "journal.jsonl")
    trained = [event for event in events if isinstance(event, Trained)]
    assert not problems and trained[-1].step == 10 * samples // 2
    assert 40 <= sum(len(event.loss) for event in trained) <= 40 + 10  # and one more where an epoch ends in the middle of one


def test_the_benchmark_of_it_looks_three_times() -> None:
    for name in memory.RUNS:
        looks = memory.train(name, 300, "eager")
        assert [look["step"] >= share * 300 for look, share in zip(looks, memory.MARKS, strict=True)] == [True] * 3
        assert looks[-1]["step"] == 300 and looks[-1]["rss"] > 0 and looks[-1]["journal"] > 0
