"""Augmentation: a function of (seed, epoch, index), held to plain Python arithmetic and loops over single pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from engine import catalog
from engine.data.augment import _CHANGES, augmentation, key, random_bits
from engine.data.batches import LoaderBatches, ResidentBatches, StreamedBatches, make_batches
from engine.data.order import order
from engine.data.prepare import prepare
from engine.errors import RecipeError
from engine.recipe import Loading, Recipe

NAMES = ("flip", "shift", "cutout", "noise", "brightness")
N = 41


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Every value is one of a kind and none is 0."""
    return torch.arange(1.0, N * 3 * 16 * 24 + 1).view(N, 3, 16, 24)


def by_index(batches, epoch: int, start: int = 0) -> dict[int, Tensor]:
    return {int(y): x for inputs, targets in batches.epoch(epoch, start) for x, y in zip(inputs, targets, strict=True)}


def splitmix(state: int) -> int:
    """One output of SplitMix64 as its authors' C code computes it, in Python's unlimited integers."""
    mask = 2**64 - 1
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    return state ^ (state >> 31)


@given(st.integers(0, 2**63 - 1), st.integers(1, 1000), st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_the_bits_are_splitmix64s(seed, epoch, index, draws):
    start = key(seed, epoch, "flip")
    expected = [splitmix((start + (index * draws + place) * 0x9E3779B97F4A7C15) % 2**64) for place in range(1, draws + 1)]
    bits = random_bits(start, torch.tensor([3, index]), draws)
    assert [value % 2**64 for value in bits[1].tolist()] == expected


def test_splitmix64_gives_its_published_numbers():
    # Seed 1234567, as printed in Rosetta Code's task "Pseudo-random numbers/Splitmix64".
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [value % 2**64 for value in random_bits(1234567, torch.tensor([0]), 5)[0].tolist()] == published


@pytest.mark.parametrize("names", [*((name,) for name in NAMES), NAMES, NAMES[::-1]])
def test_d1_a_sample_is_changed_alike_in_any_batch_order_and_after_any_resume(names, images):
    index = torch.arange(N)
    whole = by_index(ResidentBatches(images, index, batch_size=N, seed=5, augment=names, shuffle=False), 3)
    for batch_size in (1, 7, 16):
        resident = ResidentBatches(images, index, batch_size=batch_size, seed=5, augment=names)
        assert all(torch.equal(x, whole[i]) for i, x in by_index(resident, 3).items())
        streamed = StreamedBatches(TensorDataset(images, index), batch_size=batch_size, seed=5, augment=names)
        assert all(torch.equal(x, whole[i]) for i, x in by_index(streamed, 3).items())
        rest = by_index(resident, 3, start=2)
        assert len(rest) == N - 2 * batch_size and all(torch.equal(x, whole[i]) for i, x in rest.items())
    workers = StreamedBatches(TensorDataset(images, index), batch_size=8, seed=5, augment=names, workers=2)
    assert all(torch.equal(x, whole[i]) for i, x in by_index(workers, 3, start=1).items())
    for seed, epoch in ((5, 4), (6, 3)):
        other = by_index(ResidentBatches(images, index, batch_size=7, seed=seed, augment=names), epoch)
        assert sum(torch.equal(other[i], whole[i]) for i in range(N)) < 0.8 * N


def test_nothing_is_drawn_and_nothing_written(images):
    torch.manual_seed(0)
    before, kept = torch.get_rng_state(), images.clone()
    batches = ResidentBatches(images, torch.arange(N), batch_size=8, augment=NAMES)
    assert len(by_index(batches, 1)) == N
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(images, kept)
    plain = ResidentBatches(images, torch.arange(N), batch_size=8)
    assert all(torch.equal(x, images[i]) for i, x in by_index(plain, 1).items())


def many(name: str, image: Tensor, count: int = 4000) -> Tensor:
    """One image changed as `count` different samples."""
    return augmentation([name], 0, 1)(image.expand(count, *image.shape), torch.arange(count))


def test_flip_is_left_and_right_for_half_of_them(images):
    changed = many("flip", images[0])
    flipped = (changed == images[0].flip(2)).all(dim=(1, 2, 3))
    assert (flipped | (changed == images[0]).all(dim=(1, 2, 3))).all()
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_shift_moves_by_whole_pixels_and_fills_with_zeros(images):
    image = images[0]
    moves: dict[tuple[int, int], int] = {}
    padded = torch.zeros(3, 16 + 4, 24 + 6)
    padded[:, 2:-2, 3:-3] = image  # an eighth of 16 and of 24
    windows = {(y, x): padded[:, y : y + 16, x : x + 24] for y in range(5) for x in range(7)}
    for changed in many("shift", image, 2000):
        fits = [place for place, window in windows.items() if torch.equal(changed, window)]
        assert len(fits) == 1
        moves[fits[0]] = moves.get(fits[0], 0) + 1
    assert set(moves) == set(windows)
    assert max(moves.values()) < 2.5 * min(moves.values())


def test_cutout_is_one_square_anywhere(images):
    image, hits = images[0], torch.zeros(16, 24)
    for changed in many("cutout", image, 1000):
        gone = (changed == 0).any(0)
        assert torch.equal(changed, torch.where(gone, 0.0, image))
        rows, columns = gone.any(1).nonzero().ravel(), gone.any(0).nonzero().ravel()
        assert gone.sum() == len(rows) * len(columns)  # a rectangle
        assert 1 <= len(rows) <= 8 and 1 <= len(columns) <= 8
        assert len(rows) == 8 or 0 in rows or 15 in rows  # cut off only at the edge
        hits += gone
    assert (hits > 25).all()  # about 42 in the corners


def test_noise_is_nearly_normal_and_independent():
    changed = many("noise", torch.zeros(2, 8, 8), 2000)
    assert changed.mean().item() == pytest.approx(0, abs=1e-3) and changed.std().item() == pytest.approx(0.1, rel=0.01)
    assert (changed.abs() < 0.35).all()
    share = (changed.abs() < 0.1).float().mean().item()
    assert share == pytest.approx(0.68, abs=0.02)  # of a normal distribution 68 percent lie within one deviation
    correlation = np.corrcoef(changed[:, 0].flatten(1).numpy().T)
    assert np.abs(correlation - np.eye(64)).max() < 0.1


def test_brightness_is_one_number_for_an_image(images):
    change = many("brightness", torch.zeros(3, 4, 4))
    assert (change == change[:, :1, :1, :1]).all()
    values = change[:, 0, 0, 0]
    assert values.abs().max() <= 0.2 and values.min() < -0.19 and values.max() > 0.19
    assert values.mean().item() == pytest.approx(0, abs=0.01) and values.std().item() == pytest.approx(0.4 / 12**0.5, rel=0.05)


def test_augmentations_do_not_share_their_draws(images):
    flipped = (many("flip", images[0]) != images[0]).flatten(1).any(1)
    bright = many("brightness", torch.zeros(1, 1, 1)).ravel() > 0
    later = (
        (augmentation(["flip"], 0, 2)(images[:1].expand(4000, -1, -1, -1), torch.arange(4000)) != images[0]).flatten(1).any(1)
    )
    for other in (bright, later):
        assert (flipped == other).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_only_images_can_be_augmented_and_only_by_known_names(images):
    def refused(words: str, loaded, names) -> None:
        with pytest.raises(RecipeError, match=words) as caught:
            prepare(loaded, Loading(augment=names), "own")
        assert [problem.field for problem in caught.value.problems] == ["data.augment"] and "\n" not in str(caught.value)

    y = torch.arange(N) % 2
    assert prepare((images, y), Loading(augment=list(NAMES)), "own").input_shape == (3, 16, 24)
    refused("'filp', which is no augmentation; the nearest is 'flip'", (images, y), ["filp"])
    refused("'xyz', which is no augmentation; there are flip, shift", (images, y), ["xyz"])
    refused("'flip' twice", (images, y), ["flip", "noise", "flip"])
    refused(r"is for images.*numbers of shape \(1152,\)", (images.flatten(1), y), ["flip"])
    refused("a sample of this data is tokens", (torch.arange(N * 8).view(N, 1, 2, 4), y), ["flip"])
    refused("a sample of this data is", TensorDataset(torch.ones(5, 2), torch.tensor([0, 1, 0, 1, 0])), ["flip"])
    refused("of a DataLoader nobody does", DataLoader(TensorDataset(images, y)), ["flip"])
    assert isinstance(make_batches(DataLoader(TensorDataset(images, y)), batch_size=1), LoaderBatches)


def test_a_recipe_names_its_augmentations():
    recipe = Recipe().replace(**{"data.images": True, "data.augment": ["shift", "noise"]})
    assert recipe.loading.augment == ["shift", "noise"]
    field = next(item for item in catalog.sections({})[1].fields if item.key == "augment")
    assert field.choices == NAMES == tuple(_CHANGES)
    with pytest.raises(RecipeError, match=r"data\.augment is \['filp'\].*flip, shift"):
        Recipe().replace(**{"data.augment": ["filp"]})


def test_the_index_is_the_place_in_the_training_part(images):
    prepared = prepare((images, torch.arange(N) % 2), Loading(validation=0.25, standardize=False), "own")
    inputs, targets = prepared.train
    first, _ = next(make_batches(prepared.train, batch_size=4, seed=9, shuffle=True, augment=["shift"]).epoch(1))
    where = order(len(inputs), 9, 1, shuffle=True)[:4]
    assert torch.equal(first, augmentation(["shift"], 9, 1)(inputs[where], where)) and len(targets) == len(inputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_bits_are_the_same(images):
    index = torch.arange(N)
    here = by_index(ResidentBatches(images, index, batch_size=8, augment=NAMES), 2)
    there = by_index(ResidentBatches(images, index, batch_size=5, augment=NAMES, device="cuda"), 2)
    assert all(torch.equal(there[i].cpu(), x) for i, x in here.items())
