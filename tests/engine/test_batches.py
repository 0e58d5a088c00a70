"""Batches against a DataLoader written by hand, bit for bit."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import UserDict, namedtuple

import numpy
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset

from engine.assemble import cast
from engine.data.batches import Batches, LoaderBatches, ResidentBatches, StreamedBatches, make_batches, to_device
from engine.data.order import epoch_seed, order
from engine.data.share import cut
from engine.errors import RecipeError

N, SIZE, SEED = 53, 8, 7


@pytest.fixture(scope="module")
def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, 3, generator=generator), torch.randint(0, 4, (N,), generator=generator)


def by_hand(tensors, epoch, *, seed=SEED, drop_last=False):
    """The tutorial's loader, with the documented order."""
    dataset = TensorDataset(*tensors)
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(epoch_seed(seed, epoch)))
    return list(DataLoader(dataset, SIZE, sampler=sampler, drop_last=drop_last))


def made(kind, tensors, **options) -> Batches:
    if kind == "resident":
        return ResidentBatches(*tensors, batch_size=SIZE, seed=SEED, **options)
    return StreamedBatches(TensorDataset(*tensors), batch_size=SIZE, seed=SEED, workers=int(kind[-1]), **options)


def assert_same(batches, expected):
    batches, expected = list(batches), list(expected)
    assert len(batches) == len(expected)
    for (inputs, targets), (x, y) in zip(batches, expected, strict=True):
        assert torch.equal(inputs, x) and torch.equal(targets, y)
        assert inputs.dtype == x.dtype and targets.dtype == y.dtype


KINDS = ["resident", "streamed 0", "streamed 2"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop_last", [False, True])
def test_epochs_equal_a_dataloader(kind, drop_last, tensors):
    batches = made(kind, tensors, drop_last=drop_last)
    assert (batches.samples, batches.batch_size, batches.length) == (N, SIZE, 6 if drop_last else 7)
    for epoch in (1, 2):
        assert_same(batches.epoch(epoch), by_hand(tensors, epoch, drop_last=drop_last))


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_entered_midway_is_exactly_the_rest(kind, tensors):
    batches = made(kind, tensors)
    whole = by_hand(tensors, 3)
    for start in (0, 1, 4, 6, 7, 9):
        assert_same(batches.epoch(3, start), whole[start:])


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_left_midway_does_not_touch_the_next(kind, tensors):
    batches = made(kind, tensors)
    for _ in zip(range(3), batches.epoch(1), strict=False):
        pass
    assert_same(batches.epoch(2), by_hand(tensors, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_no_global_generator_is_drawn_from(kind, tensors):
    batches = made(kind, tensors)
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    for _ in batches.epoch(1):
        assert torch.equal(torch.get_rng_state(), before[0])
    after = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    assert torch.equal(after[0], before[0]) and after[1:] == before[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_unshuffled_is_the_order_of_the_data(kind, tensors):
    batches = made(kind, tensors, shuffle=False)
    assert_same(batches.epoch(5), DataLoader(TensorDataset(*tensors), SIZE))


def test_a_program_that_leaves_its_workers_alone_still_ends():
    ways = ["next(it)", "list(it)", "next(it); it.close()", "cycle = [batches]; cycle.append(cycle); del batches, it"]
    code = f"""
import os, sys, torch
from torch.utils.data import TensorDataset
from engine.data.batches import StreamedBatches
for way in {ways}:  # each in a program of its own, which has torch from here
    if child := os.fork():
        print(way, os.waitpid(child, 0)[1], flush=True)
        continue
    batches = StreamedBatches(TensorDataset(torch.ones(40, 3), torch.ones(40)), batch_size=8, workers=2)
    it = batches.epoch(1)
    next(it)
    exec(way)
    sys.exit()
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=180, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{way} 0" for way in ways], done.stderr  # it hung for good


def test_d2_epochs_and_seeds_differ_and_each_is_a_permutation():
    orders = {(seed, epoch): order(N, seed, epoch, shuffle=True) for seed in (0, 1) for epoch in (1, 2, 3)}
    for indices in orders.values():
        assert indices.sort().values.tolist() == list(range(N))
    assert len({tuple(indices.tolist()) for indices in orders.values()}) == 6
    assert torch.equal(order(N, 0, 1, shuffle=True), orders[0, 1])


class Counting(Dataset):
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int):
        self.loaded.append(index)
        return torch.tensor([float(index)]), index


def test_d3_samples_before_the_start_are_never_loaded():
    dataset = Counting()
    batches = StreamedBatches(dataset, batch_size=SIZE, seed=SEED)
    list(batches.epoch(2, 5))
    assert dataset.loaded == order(N, SEED, 2, shuffle=True).tolist()[5 * SIZE :]


class Noisy(Dataset):
    """Augments with all three global generators."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int):
        return torch.cat([torch.rand(2), torch.tensor([random.random(), numpy.random.rand()])]), index


class Rarely(Noisy):
    """Draws for one sample only, from one generator only, and remembers what was asked of it."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.loaded: list[int] = []

    def __getitem__(self, index: int):
        self.loaded.append(index)
        return torch.tensor([self.draw() if index == 17 else 0.0]), index


class Many(Noisy):
    """Loads a whole batch at once."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def seen(dataset, epoch, start=0, **options):
    batches = StreamedBatches(dataset, **{"batch_size": SIZE, "seed": SEED, **options})
    return {int(y): x.tolist() for inputs, targets in batches.epoch(epoch, start) for x, y in zip(inputs, targets, strict=True)}


@pytest.mark.parametrize("kind", [Noisy, Many])
def test_what_a_sample_draws_is_a_function_of_seed_epoch_and_index(kind):
    alone = seen(kind(), 1)
    for options in ({"workers": 2}, {"batch_size": 1}, {"batch_size": 50}, {"shuffle": False}, {"drop_last": True}):
        other = seen(kind(), 1, **options)
        assert other == {index: alone[index] for index in other}
    rest = seen(kind(), 1, start=4)
    assert len(rest) == N - 4 * SIZE and rest == {index: alone[index] for index in rest}
    assert len({tuple(values) for values in alone.values()}) == N
    later, reseeded = seen(kind(), 2), seen(kind(), 1, seed=8)
    assert all(later[index] != alone[index] != reseeded[index] for index in alone)


@pytest.mark.parametrize("draw", [random.random, lambda: float(numpy.random.rand()), lambda: float(torch.rand(()))])
def test_a_draw_of_one_sample_is_noticed(draw):
    alone = seen(Rarely(draw), 1)
    assert alone[17] != [0.0] and alone == seen(Rarely(draw), 1, batch_size=1) == seen(Rarely(draw), 1, batch_size=N)
    dataset = Rarely(draw)
    seen(dataset, 1)
    assert len(dataset.loaded) == N + SIZE  # the batch in which it was noticed is read again, and no other


def test_a_data_set_that_draws_nothing_is_read_once():
    dataset = Counting()
    seen(dataset, 1)
    assert sorted(dataset.loaded) == list(range(N))


@pytest.mark.parametrize("make", [ResidentBatches, lambda x, y, **options: StreamedBatches(TensorDataset(x, y), **options)])
def test_d6_more_than_the_data_with_drop_last_makes_no_step(make, tensors):
    with pytest.raises(RecipeError, match=r"data.batch_size = 64 .* 0 steps .* 53") as caught:
        make(*tensors, batch_size=64, drop_last=True)
    assert [problem.field for problem in caught.value.problems] == ["data.batch_size"]
    assert "\n" not in str(caught.value)
    assert len(list(make(*tensors, batch_size=64).epoch(1))) == 1


def test_resident_batches_are_allocations_of_their_own(tensors):
    inputs, targets = tensors
    for x, y in ResidentBatches(inputs, targets, batch_size=SIZE, shuffle=False).epoch(1):
        x.zero_(), y.zero_()
    assert inputs.any() and targets.any()


def test_a_loader_is_used_as_it_is(tensors):
    loader = DataLoader(TensorDataset(*tensors), 10)
    batches = LoaderBatches(loader)
    assert (batches.samples, batches.batch_size, batches.length) == (N, 10, 6)
    assert_same(batches.epoch(1), loader)
    assert_same(batches.epoch(9, 4), list(loader)[4:])


def test_a_loader_draws_as_it_would_in_a_loop_of_ones_own(tensors):
    loader = DataLoader(TensorDataset(*tensors), 10, shuffle=True)
    torch.manual_seed(3)
    expected = list(loader)
    torch.manual_seed(3)
    assert_same(LoaderBatches(loader).epoch(1), expected)


class Stream(IterableDataset):
    def __iter__(self):
        return iter((torch.ones(2), 1) for _ in range(5))


def test_loaders_that_do_not_know_their_length():
    batches = LoaderBatches(DataLoader(Stream(), 2))
    assert batches.length is None and batches.samples is None and batches.batch_size == 2
    assert [len(targets) for _, targets in batches.epoch(1)] == [2, 2, 1]
    pairs = [(torch.ones(3, 1), torch.ones(3, 1))] * 2
    assert LoaderBatches(pairs).length == 2
    assert_same(LoaderBatches(pairs).epoch(2), pairs)


def test_loaders_that_can_not_be_used_are_refused_in_one_sentence():
    with pytest.raises(RecipeError, match="only once"):
        LoaderBatches(iter([(torch.ones(1), torch.ones(1))]))
    with pytest.raises(RecipeError, match="pairs"):
        next(LoaderBatches([torch.ones(1)]).epoch(1))


def test_make_batches_chooses_by_what_it_is_given(tensors):
    dataset = TensorDataset(*tensors)
    assert isinstance(make_batches(tensors, batch_size=4), ResidentBatches)
    assert isinstance(make_batches(dataset, batch_size=4), StreamedBatches)
    assert isinstance(make_batches(DataLoader(dataset), batch_size=4), LoaderBatches)
    for part in (tensors, dataset):
        batches = make_batches(part, batch_size=SIZE, seed=SEED, shuffle=True, drop_last=True)
        assert_same(batches.epoch(2), by_hand(tensors, 2, drop_last=True))


def test_what_is_done_to_a_batch_goes_into_tuples_lists_and_dicts():
    Pair = namedtuple("Pair", "a b")
    batch = {"x": [torch.ones(2), "text"], "y": Pair(torch.zeros(1), (torch.ones(1), 3))}
    moved = to_device(batch, "meta")
    assert moved["x"][0].device.type == "meta" and moved["x"][1] == "text"
    assert isinstance(moved["y"], Pair) and moved["y"].b[0].device.type == "meta" and moved["y"].b[1] == 3
    assert batch["x"][0].device.type == "cpu"
    wide = cast(batch, torch.float64)
    assert isinstance(wide["y"], Pair) and wide["y"].a.dtype == wide["x"][0].dtype == torch.float64
    part = cut(batch, slice(0, 1))
    assert part["x"][0].tolist() == [1.0] and part["x"][1] == "text" and isinstance(part["y"], Pair)
    assert cast(UserDict(x=torch.ones(1)), torch.float64)["x"].dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_batches_are_the_same(kind, tensors):
    batches = made(kind, tensors, device="cuda")
    got = list(batches.epoch(1))
    assert all(x.is_cuda and y.is_cuda for x, y in got)
    assert_same([(x.cpu(), y.cpu()) for x, y in got], by_hand(tensors, 1))
