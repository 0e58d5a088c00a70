"""Preparing data: against scikit-learn's scaler, the documented split, and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from engine.data import fingerprint
from engine.data.batches import make_batches
from engine.data.order import epoch_seed
from engine.data.prepare import prepare
from engine.data.samples import Samples
from engine.errors import RecipeError
from engine.recipe import Loading

PLAIN = Loading(validation=0.0, standardize=False)


@pytest.fixture
def numbers():
    return np.random.default_rng(0).normal(3, 5, size=(50, 4))


def refused(words: str, loaded, loading: Loading = PLAIN, field: str = "data.name") -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        prepare(loaded, loading, "mine.py:load")
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "\n" not in str(caught.value)


def test_the_split_is_a_seeded_permutation(numbers):
    y = np.arange(50.0)
    for seed in (0, 1):
        prepared = prepare((numbers, y), Loading(validation=0.3, standardize=False, split_seed=seed), "own")
        permutation = torch.randperm(50, generator=torch.Generator().manual_seed(epoch_seed(seed, 0))).numpy()
        for (inputs, targets), rows in ((prepared.validation, permutation[:15]), (prepared.train, permutation[15:])):
            np.testing.assert_array_equal(inputs.numpy(), numbers[rows].astype(np.float32))
            np.testing.assert_array_equal(targets.numpy(), rows[:, None].astype(np.float32))
    whole = prepare((numbers, y), PLAIN, "own")
    assert whole.validation is None and len(whole.train[0]) == 50


def test_inputs_are_standardized_by_the_training_part_alone(numbers):
    numbers[:, 2] = 0.1  # constant
    loading = Loading(validation=0.4)
    raw = prepare((numbers, np.arange(50.0)), Loading(validation=0.4, standardize=False), "own")
    prepared = prepare((numbers, np.arange(50.0)), loading, "own")
    scaler = StandardScaler().fit(raw.train[0].double())
    for part in ("train", "validation"):
        expected = scaler.transform(getattr(raw, part)[0].double())
        np.testing.assert_allclose(getattr(prepared, part)[0], expected, atol=1e-5)
        assert getattr(prepared, part)[0][:, 2].tolist() == [0.0] * len(expected)
    assert prepared.normalization["mean"] == pytest.approx(scaler.mean_)
    assert prepared.normalization["std"] == pytest.approx(scaler.scale_)
    assert all(isinstance(value, float) for values in prepared.normalization.values() for value in values)
    assert torch.equal(prepared.train[1], raw.train[1])


@pytest.mark.parametrize(("shape", "axes"), [((3, 4, 5), (0, 2, 3)), ((6, 3), (0, 1)), ((3,), (0,)), ((), (0,))])
def test_images_are_scaled_by_channel_and_sequences_by_feature(shape, axes):
    x = np.random.default_rng(1).normal(7, 2, size=(40, *shape)) * 10
    prepared = prepare((x, np.arange(40.0)), Loading(validation=0.0), "own")
    inputs = prepared.train[0]
    assert prepared.input_shape == (shape or (1,))
    reduced = tuple(axes) if shape else (0,)
    np.testing.assert_allclose(inputs.mean(reduced), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std(reduced, correction=0), 1, atol=1e-5)
    assert len(prepared.normalization["mean"]) == (3 if shape else 1)


def test_great_numbers_keep_their_differences():
    x = 1e9 + np.arange(20.0)  # float32 alone could not tell these apart
    inputs, _ = prepare((x, x), Loading(validation=0.0), "own").train
    assert len(set(inputs[:, 0].tolist())) == 20


def test_tokens_stay_and_pixels_become_fractions():
    tokens = prepare((np.arange(40).reshape(10, 4), np.arange(10.0)), Loading(validation=0.0), "own")
    assert tokens.train[0].dtype == torch.int64 and tokens.train[0].sum() == sum(range(40)) and tokens.normalization == {}
    pixels = prepare((np.full((10, 1, 2, 2), 51, np.uint8), np.arange(10.0)), PLAIN, "own")
    assert pixels.train[0].dtype == torch.float32 and torch.allclose(pixels.train[0], torch.tensor(0.2))


def test_a_numeric_target_is_a_float_column_and_scaled_when_asked(numbers):
    y = np.linspace(10, 90, 50)
    for targets, size in ((y, 1), (y.tolist(), 1), (torch.tensor(y)[:, None], 1), (np.stack([y, -y], axis=1), 2)):
        prepared = prepare((numbers, targets), PLAIN, "own")
        assert prepared.task == "regression" and prepared.output_size == size
        assert prepared.train[1].shape == (50, size) and prepared.train[1].dtype == torch.float32
    scaled = prepare((numbers, y), Loading(validation=0.2, standardize_target=True), "own")
    targets = scaled.train[1]
    assert targets.mean().item() == pytest.approx(0, abs=1e-6) and targets.std(correction=0).item() == pytest.approx(1)
    back = targets * scaled.normalization["target_std"][0] + scaled.normalization["target_mean"][0]
    assert set(back[:, 0].round(decimals=3).tolist()) <= set(torch.tensor(y).float().round(decimals=3).tolist())
    refused("has classes", (numbers, [0, 1] * 25), Loading(standardize_target=True), "data.standardize_target")


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        ([7, 3, 3, 9], ("3", "7", "9")),
        ([-1, 1, -1, 1], ("-1", "1")),
        ([[0], [1], [2], [0]], ("0", "1", "2")),
        ([True, False, True, True], ("False", "True")),
        (["cat", "ant", "cat", "bee"], ("ant", "bee", "cat")),
        (torch.tensor([2, 0, 1, 2], dtype=torch.int32), ("0", "1", "2")),
    ],
)
def test_classes_are_numbered_and_named(targets, classes):
    prepared = prepare((np.ones((4, 2)), targets), PLAIN, "own")
    assert prepared.task == "classification" and prepared.classes == classes and prepared.output_size == len(classes)
    numbers = prepared.train[1]
    assert numbers.dtype == torch.int64 and numbers.shape == (4,)
    given = np.asarray(targets).ravel()  # nothing is held back: the data's own order
    assert [classes[number] for number in numbers] == [str(value) for value in given]


def test_validation_that_the_data_bring_is_used_whole(numbers):
    training, held = (numbers[:30], np.array([5, 7] * 15)), (numbers[30:], np.array([7, 9] * 10))
    prepared = prepare((training, held), Loading(validation=0.5, standardize=False), "own")
    assert prepared.classes == ("5", "7", "9")
    assert prepared.train[1].tolist() == [0, 1] * 15 and prepared.validation[1].tolist() == [1, 2] * 10
    np.testing.assert_array_equal(prepared.train[0], numbers[:30].astype(np.float32))
    refused("shape", ((numbers, numbers), (numbers[:, :2], numbers)))


def test_missing_numbers_of_ones_own_samples(numbers):
    numbers[::3, 1] = np.nan
    samples = Samples(inputs=numbers, targets=np.ones(50), task="regression", impute=True)
    prepared = prepare(samples, Loading(), "own")
    assert prepared.input_shape == (5,) and prepared.features == () and prepared.normalization["missing"] == [1]
    for inputs, _ in (prepared.train, prepared.validation):
        assert inputs.isfinite().all()


def test_samples_of_ones_own_are_taken(numbers):
    samples = Samples(inputs=numbers, targets=["a", "b"] * 25, task="classification", notes=("look",))
    prepared = prepare(samples, PLAIN, "own")
    assert prepared.classes == ("a", "b") and prepared.notes == ("look",)
    refused("from 0 to 1", Samples(inputs=numbers, targets=[0, 2] * 25, task="classification", classes=("a", "b")))
    refused("must be whole numbers", Samples(inputs=numbers, targets=[0.5] * 50, task="classification"))


def test_data_that_nothing_can_learn_from_are_refused(numbers):
    y = np.arange(50.0)
    refused("'mine.py:load' returned a NoneType; allowed are", None)
    refused("a tuple of 3", (numbers, y, y))
    refused("50 inputs but 49 targets", (numbers, y[:49]))
    refused("no samples", (numbers[:0], y[:0]))
    refused("no inputs", (numbers[:, :0], y))
    refused("different shapes", ([[1.0], [1.0, 2.0]], [1.0, 2.0]))
    refused("one class, '4'", (numbers, [4] * 50))
    refused("type object", ([[None], [1.0]], [0.0, 1.0]))
    refused("single value", (3.0, y))
    numbers[7, 2] = np.nan
    refused("hold nan as input, sample 7", (numbers, y))
    numbers[7, 2] = 1e39  # infinite as float32
    refused("input, sample 7", (numbers, y))
    numbers[7, 2], y[9] = 0, np.inf
    refused("hold inf as target, sample 9", (numbers, y))
    few = (numbers[:4], np.ones(4))
    refused(r"data.validation = 0.1 of 4 samples leaves 0 for validation", few, Loading(validation=0.1), "data.validation")
    refused("leaves 0 for training", (numbers[:1], [1.0]), Loading(validation=0.9), "data.validation")


# torch's own data sets


class Own(Dataset):
    """Map-style, as a user writes it."""

    def __init__(self, values, inputs=None, **attributes) -> None:
        self.values = values
        self.inputs = inputs
        self.loaded = 0
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int):
        self.loaded += 1
        torch.rand(1)  # an augmentation
        return (np.full((2, 3), float(index)) if self.inputs is None else self.inputs), self.values[index]


def batch(part, **options):
    return next(make_batches(part, batch_size=4, **options).epoch(1))


def test_a_data_set_is_looked_at_and_split():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    dataset = Own(np.linspace(0, 1, 20))
    prepared = prepare(dataset, Loading(validation=0.25), "own")
    assert dataset.loaded == 2 and torch.equal(torch.get_rng_state(), before)
    assert (prepared.task, prepared.input_shape, prepared.output_size) == ("regression", (2, 3), 1)
    inputs, targets = batch(prepared.train)
    assert inputs.dtype == targets.dtype == torch.float32 and inputs.shape == (4, 2, 3) and targets.shape == (4, 1)
    permutation = torch.randperm(20, generator=torch.Generator().manual_seed(epoch_seed(0, 0)))
    assert inputs[:, 0, 0].tolist() == permutation[5:9].tolist()  # never scaled
    assert batch(prepared.validation)[0][:, 0, 0].tolist() == permutation[:4].tolist()


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [
        (Own([0, 1, 1], classes=["cat", "dog", "eel"]), ("cat", "dog", "eel")),
        (Own([0, 1, 1], num_classes=4), ("0", "1", "2", "3")),
        (Own([0, 2, 1], targets=[0, 2, 1]), ("0", "1", "2")),
        (Own(np.array([0, 2, 1], np.int32)), ("0", "1", "2")),
        (Subset(Own([0, 1, 1, 0], classes=["cat", "dog"]), [0, 1, 2]), ("cat", "dog")),
        (TensorDataset(torch.ones(3, 2), torch.tensor([0, 3, 1])), ("0", "1", "2", "3")),
    ],
)
def test_the_classes_of_a_data_set_are_found(dataset, classes):
    prepared = prepare(dataset, Loading(validation=0.0), "own")
    assert prepared.task == "classification" and prepared.classes == classes and prepared.output_size == len(classes)
    assert batch(prepared.train)[1].dtype == torch.int64


def test_a_tensor_data_set_becomes_resident_and_keeps_its_values(numbers):
    x, y = torch.tensor(numbers), torch.arange(50.0).double()
    for dataset in (TensorDataset(x, y), Subset(TensorDataset(x, y), range(50))):
        prepared = prepare(dataset, Loading(validation=0.2), "own")
        inputs, targets = prepared.train
        assert inputs.dtype == targets.dtype == torch.float32 and targets.shape == (40, 1)
        assert torch.equal(inputs, x.float()[targets[:, 0].long()])


def test_an_heir_of_a_tensor_data_set_keeps_its_own_ways():
    class Negated(TensorDataset):
        def __getitem__(self, index):
            inputs, target = super().__getitem__(index)
            return -inputs, target

    dataset = Negated(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]))
    for part in (dataset, Subset(dataset, [0, 1, 2])):
        prepared = prepare(part, PLAIN, "own")
        assert prepared.output_size == 2 and torch.equal(
            next(make_batches(prepared.train, batch_size=2).epoch(1))[0], -torch.ones(2, 2)
        )


def test_a_pair_of_data_sets_is_training_and_validation():
    prepared = prepare((Own([0.5] * 6), Own([0.1] * 3)), Loading(), "own")
    assert make_batches(prepared.train, batch_size=2).samples == 6
    assert make_batches(prepared.validation, batch_size=2).samples == 3
    refused("no samples", (Own([0.5] * 6), Own([])))
    alone = prepare((Own([0.5] * 6), None), PLAIN, "own")
    assert alone.validation is None and make_batches(alone.train, batch_size=2).samples == 6


def test_inputs_may_be_nested():
    prepared = prepare(Own([0, 1, 0, 1], inputs={"a": 1.0, "b": [np.ones(3), torch.ones(2)]}), PLAIN, "own")
    assert prepared.input_shape == ()
    inputs, _ = batch(prepared.train)
    assert inputs["a"].shape == (4, 1) and inputs["a"].dtype == inputs["b"][0].dtype == torch.float32


class Stream(IterableDataset):
    def __init__(self, target, **attributes) -> None:
        self.target = target
        vars(self).update(attributes)

    def __iter__(self):
        return iter((np.ones(2), self.target) for _ in range(7))


def test_streams_and_loaders_are_used_as_they_are():
    prepared = prepare(Stream(0.5), Loading(batch_size=3), "own")
    assert (prepared.task, prepared.input_shape, prepared.validation) == ("regression", (2,), None)
    batches = make_batches(prepared.train, batch_size=3)
    assert batches.length is None
    assert [tuple(y.shape) for _, y in batches.epoch(1)] == [(3, 1), (3, 1), (1, 1)]
    assert prepare(Stream(1, num_classes=3), Loading(), "own").output_size == 3
    refused("stream Stream holds can't be known", Stream(1))

    loader = DataLoader(TensorDataset(torch.ones(6, 1, 8, 8), torch.tensor([0, 1, 2] * 2)), 2, shuffle=True)
    prepared = prepare((loader, loader), Loading(), "own")
    assert prepared.train is loader and prepared.validation is loader
    assert (prepared.task, prepared.input_shape, prepared.output_size) == ("classification", (1, 8, 8), 3)


def test_data_sets_that_can_not_be_used_are_refused():
    class Endless(Dataset):
        def __getitem__(self, index: int):
            return torch.ones(1), 0.5

    refused("no samples", Own([]))
    refused("Endless has no length", Endless())
    refused(r"must be a pair \(inputs, target\), not a Tensor", Single())
    refused("inputs must be numbers, arrays or tensors, not a Picture", Own([0, 1], inputs=Picture()))
    refused("target must be a number.*not a str", Own(["a", "b"]))
    refused("holds the class -1", Own([-1, 1]))
    refused("taken as it is", Own([0.5]), Loading(standardize_target=True), "data.standardize_target")
    refused("batch of the DataLoader must be a pair", DataLoader([1, 2]))


class Picture:
    pass


class Single(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        return torch.ones(1)


@pytest.mark.parametrize("width", [1, 2, 9, 31])
def test_a_table_is_measured_to_the_last_bit_as_numpy_measures_a_whole_array(width):
    """NumPy adds the rows of an array in C order one after another: the plain script that is exported does."""
    random = np.random.default_rng(width)
    x = np.exp(random.normal(size=(3000, width)) * 9)
    x[random.random(x.shape) < 0.1] = np.nan
    prepared = prepare(Samples(inputs=x, targets=x[:, 0] > 1, task="regression", impute=True), Loading(), "own")
    loading = Loading()
    rows = torch.randperm(3000, generator=torch.Generator().manual_seed(epoch_seed(loading.split_seed, 0))).numpy()
    training = x[rows[round(3000 * loading.validation) :]]
    gaps = np.isnan(training)
    whole = np.concatenate([np.where(gaps, np.nanmedian(training, axis=0), training), gaps], axis=1)
    mean, deviation = whole.mean(0), whole.std(0)
    assert prepared.normalization["mean"] == mean.tolist()
    assert prepared.normalization["std"] == deviation.tolist()
    assert torch.equal(prepared.train[0], torch.tensor((whole - mean) / deviation, dtype=torch.float32))


def test_a_table_that_is_rearranged_in_place_is_split_and_known_as_any_other(monkeypatch):
    monkeypatch.setattr(fingerprint, "WHOLE", 10_000)  # bytes; of what is greater it takes samples and the sum
    x = np.random.default_rng(5).normal(size=(1000, 9))
    y = np.arange(1000.0)
    usual, spare = (
        prepare(
            Samples(inputs=inputs, targets=y, task="regression", impute=True, spare=inputs is not x),
            Loading(validation=0.01),
            "own",
        )
        for inputs in (x, np.asfortranarray(x))
    )
    assert spare.fingerprint == usual.fingerprint
    for part in ("train", "validation"):
        assert all(map(torch.equal, getattr(spare, part), getattr(usual, part)))
        assert getattr(spare, part)[0].is_contiguous()
