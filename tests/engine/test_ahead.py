"""Batches on their way ahead of the step: the logic, with stand-ins for a GPU's streams; and how many workers are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from engine import Message, Progress, RunEnded, Trainer
from engine.data import ahead as ahead_module
from engine.data.ahead import SideStream, ahead
from engine.data.batches import StreamedBatches
from engine.data.nested import leaves
from engine.data.workers import proposed
from engine.training import fitting
from engine.training.pace import Pace


class Recorder:
    """Sends nothing before it is taken, and remembers in which order it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def send(self, batch: int) -> int:
        self.asked.append(("send", batch))
        return batch

    def take(self, sent: int) -> int:
        self.asked.append(("take", sent))
        return sent


@pytest.mark.parametrize("length", range(5))
def test_each_batch_is_taken_once_and_in_order_when_the_one_after_it_has_been_sent(length: int) -> None:
    lane = Recorder()
    assert list(ahead(range(length), lane)) == list(range(length))
    sent = [lane.asked.index(("send", i)) for i in range(length)]
    taken = [lane.asked.index(("take", i)) for i in range(length)]
    assert len(lane.asked) == 2 * length and taken == sorted(taken)
    assert all(sent[i + 1] < taken[i] for i in range(length - 1))


def test_no_more_than_one_is_loaded_that_is_not_used() -> None:
    loaded: list[int] = []
    batches = ahead((loaded.append(i) or i for i in range(100)), Recorder())  # type: ignore[func-returns-value]
    assert [next(batches), next(batches)] == [0, 1] and loaded == [0, 1, 2]


class Cuda:
    """The part of torch.cuda that a copy needs. Work is done when its stream is waited for, and not before."""

    def __init__(self) -> None:
        self.now = self.training = Stream("training")

    def Stream(self, device: Any) -> Stream:
        return Stream("side")

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.now = self.now, stream
        yield
        self.now = before

    def current_stream(self, device: Any) -> Stream:
        return self.now


class Stream:
    def __init__(self, name: str) -> None:
        self.name = name
        self.queued: list[Any] = []

    def record_event(self) -> Any:
        return list(self.queued)

    def wait_event(self, event: Any) -> None:
        for work in event:
            work()


def test_the_training_stream_waits_for_the_copy_and_owns_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, owned = Cuda(), []
    monkeypatch.setattr(ahead_module.torch, "cuda", cuda)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: owned.append((id(tensor), stream.name)))

    def copied_late(batch: Any, device: Any) -> Any:
        assert cuda.now.name == "side"
        copies = [(torch.zeros_like(tensor), tensor) for tensor in leaves(batch)]
        cuda.now.queued.append(lambda: [copy.copy_(tensor) for copy, tensor in copies])
        return {"x": copies[0][0]}, [copies[1][0]]

    monkeypatch.setattr(ahead_module, "to_device", copied_late)
    batches = [({"x": torch.full((2,), float(i))}, [torch.tensor([i])]) for i in range(1, 5)]
    for i, (inputs, (target,)) in enumerate(ahead(batches, SideStream(torch.device("cpu"))), start=1):
        assert inputs["x"].tolist() == [i, i] and target.tolist() == [i]
        assert (id(inputs["x"]), "training") in owned and (id(target), "training") in owned
    assert cuda.now is cuda.training


class Squares(Dataset):
    def __init__(self, length: int, load: Callable[[], None] = lambda: None) -> None:
        self.length, self.load = length, load

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.load()
        return torch.tensor([float(index)]), torch.tensor([float(index) ** 2])


def test_streamed_batches_go_that_way_on_a_gpu_and_are_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = StreamedBatches(Squares(23), batch_size=4, seed=3, augment=())
    ahead_of = StreamedBatches(Squares(23), batch_size=4, seed=3, augment=())
    ahead_of.device = torch.device("cuda")

    class Here(Recorder):
        def take(self, sent: Any) -> Any:
            return tuple(sent)

    ahead_of.__dict__["_lane"] = lane = Here()
    for start in (0, 2):
        expected = list(usual.epoch(2, start))
        found = list(ahead_of.epoch(2, start))
        assert len(found) == len(expected) == 6 - start
        assert all(torch.equal(a, b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True))
    assert ahead_of._lane is lane  # one for all epochs


# How many workers would be enough


@pytest.mark.parametrize("workers", range(5))
@pytest.mark.parametrize("load, step", [(0.5, 10.0), (3.0, 10.0), (10.0, 10.0), (35.0, 10.0), (79.0, 10.0)])
def test_what_is_proposed_is_the_smallest_number_that_ends_the_waiting(load: float, step: float, workers: int) -> None:
    """In a model of it: a batch takes `load` in one worker, a step `step`; without workers they take turns."""
    period = load + step if workers == 0 else max(step, load / workers)
    enough = max(1, -(-load // step))
    found = proposed((period - step) / period, workers, cores=64)
    short = (period - step) / period < 0.25
    assert found == (None if short else enough)


def test_no_more_than_there_are_cpus() -> None:
    assert proposed(0.9, 0, cores=4) == 4
    assert proposed(0.9, 4, cores=4) is None and proposed(1.0, 0, cores=3) == 3 and proposed(None, 0) is None


def test_pace_knows_the_share_of_all_the_waiting() -> None:
    now = 0.0
    pace = Pace(clock=lambda: now)
    assert pace.waited_in_all is None
    for waited, seconds in ((1.0, 4.0), (5.0, 8.0), (2.0, 4.0)):
        pace.waited_for(waited)
        now += seconds
        pace.took(1, 1)
    assert pace.waited == pytest.approx(0.5) and pace.waited_in_all == pytest.approx(0.5)
    pace.begin()
    pace.waited_for(4.0)
    now += 4.0
    pace.took(1, 1)
    assert pace.waited == 1.0 and pace.waited_in_all == pytest.approx(12 / 20)


def fitted(dataset: Dataset, **plan: Any) -> tuple[list[Any], RunEnded]:
    net = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)
    trainer = Trainer(model=net, loss=nn.MSELoss(), optimizer=optimizer, train=dataset, batch_size=8, device="cpu", **plan)
    heard: list[Any] = []
    for kind in (Message, Progress, RunEnded):
        trainer.on(kind, heard.append)
    trainer.fit()
    return heard[:-1], heard[-1]


def test_a_run_that_waited_ends_with_a_word_and_a_proposal(monkeypatch: pytest.MonkeyPatch, clock: Any) -> None:
    monkeypatch.setattr(fitting, "WORTH_A_WORD", 0.0)
    monkeypatch.setattr("engine.data.workers.available_cpus", lambda: 6)
    heard, ended = fitted(Squares(64, load=lambda: clock.sleep(0.005)))
    assert ended.proposal == {"data.workers": 6}
    texts = [event.text for event in heard if isinstance(event, Message)]
    assert len(texts) == 1 and "went to waiting for samples: data.workers = 6" in texts[0]
    assert any(event.workers == 6 for event in heard if isinstance(event, Progress))


def test_one_that_had_its_samples_in_memory_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "WORTH_A_WORD", 0.0)
    x = torch.randn(64, 1)
    heard, ended = fitted((x, x))  # type: ignore[arg-type]
    assert not ended.proposal and not any(isinstance(event, Message) for event in heard)
