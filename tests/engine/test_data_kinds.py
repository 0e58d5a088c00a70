"""Folds, reconstruction, text and fingerprints: what a recipe can make of any data."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

from engine.data import fingerprint
from engine.data.batches import make_batches
from engine.data.order import epoch_seed, split
from engine.data.prepare import prepare
from engine.data.samples import Samples
from engine.errors import RecipeError
from engine.recipe import Loading

PLAIN = Loading(validation=0.0, standardize=False)


def refused(words: str, loaded, loading: Loading, field: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        prepare(loaded, loading, "mine.py:load")
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "\n" not in str(caught.value)


class Own(Dataset):
    def __init__(self, n: int = 20, add: float = 0.0, at: int | None = None) -> None:
        self.values = np.arange(float(n))
        self.values[at] += add

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int):
        return torch.full((1, 4, 4), self.values[index] + 0 * torch.rand(()).item()), index % 3


# Folds


@given(st.integers(2, 300), st.integers(2, 20), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_folds_are_disjoint_cover_everything_and_are_of_a_size(n, folds, seed):
    if folds > n:
        with pytest.raises(RecipeError, match=f"data.folds = {folds} is more than there are samples: at most {n}"):
            split(n, Loading(fold=1, folds=folds))
        return
    parts = [split(n, Loading(fold=fold, folds=folds, split_seed=seed, validation=0.9)) for fold in range(1, folds + 1)]
    held = [validation.tolist() for _, validation in parts]
    assert sorted(chain(*held)) == list(range(n))
    assert max(map(len, held)) - min(map(len, held)) <= 1
    for training, validation in parts:
        assert sorted(training.tolist() + validation.tolist()) == list(range(n))
    permutation = torch.randperm(n, generator=torch.Generator().manual_seed(epoch_seed(seed, 0)))
    assert list(chain(*held)) == permutation.tolist()


def test_a_fold_is_what_is_validated_on():
    x = np.arange(20.0)
    seen = []
    for fold in (1, 2, 3):
        prepared = prepare((x, x), Loading(fold=fold, folds=3, standardize=False), "own")
        own = prepare(Own(20), Loading(fold=fold, folds=3), "own")
        held = prepared.validation[1][:, 0].tolist()
        seen += held
        assert sorted(held + prepared.train[1][:, 0].tolist()) == x.tolist()
        inputs, _ = next(make_batches(own.validation, batch_size=99).epoch(1))
        assert inputs[:, 0, 0, 0].tolist() == held and len(own.train) == 20 - len(held)
    assert sorted(seen) == x.tolist()


def test_folds_that_can_not_be_are_one_sentence():
    x = np.arange(20.0)
    refused(r"data.fold = 6 is not one of the data.folds = 5 parts: 1 to 5", (x, x), Loading(fold=6), "data.fold")
    refused("these bring their own validation part", ((x, x), (x, x)), Loading(fold=1), "data.fold")
    refused("these bring their own validation part", (Own(), Own()), Loading(fold=1), "data.fold")
    refused("or are a stream", DataLoader(Own()), Loading(fold=1), "data.fold")


# Reconstruction


def test_reconstruction_has_the_scaled_inputs_for_targets():
    x = np.random.default_rng(0).normal(3, 5, (30, 2, 4))
    expected = prepare((x, np.arange(30) % 2), Loading(), "own")
    for loaded in (
        (x, np.arange(30) % 2),
        (x, [0] * 30),  # one class alone: of no interest here
        x,
        Samples(inputs=x.tolist(), targets=None, task="reconstruction"),
    ):
        prepared = prepare(loaded, Loading(reconstruct=True), "own")
        assert (prepared.task, prepared.output_size, prepared.input_shape, prepared.classes) == (
            "reconstruction",
            8,
            (2, 4),
            (),
        )
        for part, other in ((prepared.train, expected.train), (prepared.validation, expected.validation)):
            assert torch.equal(part[0], other[0]) and torch.equal(part[1], other[0])
        assert prepared.normalization == expected.normalization and prepared.train[1].dtype == torch.float32


def test_reconstruction_of_pixels_of_tables_and_with_a_part_to_validate_on():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 1, 2, 2), dtype=np.uint8)
    prepared = prepare(((pixels, [0] * 6), (pixels[:2], [0] * 2)), Loading(reconstruct=True, standardize=False), "own")
    assert torch.equal(prepared.train[1], torch.tensor(pixels) / 255) and len(prepared.validation[1]) == 2
    flat = np.arange(20.0).reshape(10, 2)
    flat[:8, 1] = np.nan
    table = Samples(inputs=flat, targets=np.arange(10.0), task="regression", impute=True, features=("a", "b"))
    prepared = prepare(table, Loading(reconstruct=True), "csv")
    assert prepared.output_size == 3 and torch.equal(*prepared.train) and prepared.features == ("a", "b", "b is missing")


def test_reconstruction_of_ones_own_data_sets():
    prepared = prepare(Own(), Loading(reconstruct=True, validation=0.25), "own")
    assert (prepared.task, prepared.output_size, prepared.input_shape) == ("reconstruction", 16, (1, 4, 4))
    for part in (prepared.train, prepared.validation):
        inputs, targets = next(make_batches(part, batch_size=5).epoch(1))
        assert torch.equal(inputs, targets) and inputs.dtype == torch.float32
    tensors = TensorDataset(torch.randn(9, 3).double(), torch.arange(9))
    inputs, targets = prepare(tensors, Loading(reconstruct=True), "own").train
    assert torch.equal(inputs, targets) and inputs.dtype == torch.float32


def test_reconstruction_from_changed_images_is_of_the_unchanged_ones():
    images = torch.randn(12, 1, 8, 8)
    for loaded in ((images, torch.arange(12)), TensorDataset(images, torch.arange(12))):
        prepared = prepare(loaded, Loading(reconstruct=True, augment=["noise"], validation=0.0, standardize=False), "own")
        inputs, targets = next(make_batches(prepared.train, batch_size=4, augment=["noise"]).epoch(1))
        assert torch.equal(targets, prepared.train[0][:4]) and not (inputs == targets).all(1).any()


def test_reconstruction_needs_numbers():
    on = Loading(reconstruct=True)
    refused("needs numbers as inputs; these are tokens", (np.ones((5, 3), int), np.ones(5)), on, "data.reconstruct")
    refused("a DataLoader of torch.float32", DataLoader(TensorDataset(torch.ones(4, 2), torch.ones(4))), on, "data.reconstruct")
    refused("has the inputs for targets", np.ones((5, 3)), Loading(reconstruct=True, standardize_target=True),
            "data.standardize_target")  # fmt: skip
    refused("returned a ndarray; allowed are", np.ones((5, 3)), PLAIN, "data.name")


# Text of one's own


def test_text_of_ones_own():
    tokens = np.random.default_rng(0).integers(0, 7, (20, 6))
    tokens[0, 0] = 6
    prepared = prepare(Samples(inputs=tokens[:, :-1], targets=tokens[:, 1:], task="text"), Loading(split_seed=3), "own")
    assert (prepared.task, prepared.output_size, prepared.input_shape) == ("text", 7, (5,))
    for inputs, targets in (prepared.train, prepared.validation):
        assert inputs.dtype == targets.dtype == torch.int64 and torch.equal(inputs[:, 1:], targets[:, :-1])
    for bad in (
        Samples(inputs=tokens, targets=tokens[:, 1:], task="text"),
        Samples(inputs=tokens, targets=tokens - 1, task="text"),
        Samples(inputs=tokens, targets=tokens, task="text", classes=("a", "b")),
        Samples(inputs=tokens.astype(float), targets=tokens, task="text", classes=tuple("abcdefg")),
    ):
        refused("a text's inputs and targets must be whole numbers", bad, PLAIN, "data.name")


class Tokens(Dataset):
    """As minGPT's examples write it."""

    def __init__(self, data: np.ndarray, context: int = 5, **attributes) -> None:
        self.data, self.context = data, context
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.data) - self.context

    def __getitem__(self, index: int):
        row = torch.from_numpy(self.data[index : index + self.context + 1])
        return row[:-1], row[1:]


def test_whole_numbers_as_inputs_and_targets_are_a_text():
    data = np.array([8, *np.random.default_rng(0).integers(0, 6, 40)])  # the 8 stands in the first input alone
    pairs = [Tokens(data)[index] for index in range(30)]
    x, y = (torch.stack(part) for part in zip(*pairs, strict=True))
    for loaded in ((x, y), (x.numpy(), y.tolist()), TensorDataset(x, y), Tokens(data), ((x, y), (x[:3], y[:3]))):
        prepared = prepare(loaded, Loading(), "own")
        assert (prepared.task, prepared.output_size, prepared.input_shape) == ("text", 9, (5,))
        for part in (prepared.train, prepared.validation):
            inputs, targets = next(make_batches(part, batch_size=3).epoch(1))
            assert inputs.dtype == targets.dtype == torch.int64 and torch.equal(inputs[:, 1:], targets[:, :-1])
    assert prepare(Tokens(data, vocab_size=50), Loading(), "own").output_size == 50
    assert prepare((x, y[:, 0]), Loading(), "own").task == "classification"


# Fingerprints


def test_d7_a_fingerprint_tells_changed_data():
    x, y = np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 2
    once = prepare((x, y), Loading(), "own").fingerprint
    assert len(once) == 64 and once == prepare((x.copy(), y.tolist()), Loading(), "own").fingerprint
    assert once == prepare((x, y), Loading(standardize=False, batch_size=7), "own").fingerprint
    changed = x.copy()
    changed[int(split(50, Loading())[0][17]), 1] += 1e-9
    others = [(changed, y), (x, 1 - y), (x[:49], y[:49]), (x[::-1], y), (x.astype(np.float32), y)]
    prints = {prepare(other, Loading(), "own").fingerprint for other in others} | {once}
    assert len(prints) == 6
    assert prepare((x, y), Loading(split_seed=1), "own").fingerprint not in prints


def test_d7_great_arrays_are_sampled_and_summed(monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE", 1000)
    x = np.random.default_rng(0).normal(size=(997, 3)).astype(np.float32)
    once = fingerprint.of_arrays(x)
    assert once == fingerprint.of_arrays(np.asfortranarray(x)) != fingerprint.of_arrays(x[:996])
    for row in (0, 1, 500, 995, 996):
        changed = x.copy()
        changed[row, 2] += 1e-3
        assert fingerprint.of_arrays(changed) != once


def test_d7_data_sets_are_known_by_length_first_and_last_sample():
    torch.manual_seed(3)
    once = prepare(Own(), Loading(), "own").fingerprint
    torch.manual_seed(4)
    assert once == prepare(Own(), Loading(), "own").fingerprint
    others = [Own(21), Own(20, 1.0, 0), Own(20, 1.0, 19)]
    assert len({prepare(other, Loading(), "own").fingerprint for other in others} | {once}) == 4
    loaders = [DataLoader(Own(n), 4, shuffle=True) for n in (20, 20, 21)]
    first, again, longer = (prepare(loader, Loading(), "own").fingerprint for loader in loaders)
    assert first == again != longer
    tensors = [TensorDataset(torch.arange(9.0)[:, None] + add, torch.arange(9) % 2) for add in (0, 0, 1)]
    first, again, other = (prepare(data, Loading(), "own").fingerprint for data in tensors)
    assert first == again != other
