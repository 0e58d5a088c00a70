"""torchvision and Hugging Face by name, on stand-ins that have the real classes' face.

The real torchvision can't be imported beside a CPU-only torch here, and `datasets` is no dependency of the tests.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from engine.data.prepare import prepare
from engine.data.sources import SOURCES
from engine.errors import RecipeError
from engine.recipe import Loading

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def refused(field: str, words: str, name: str, *arguments, **keywords) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        SOURCES[name](*arguments, **keywords)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "\n" not in str(caught.value)


RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (20, 28, 28), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)


class VisionDataset:
    """The face of torchvision's base class."""

    def __len__(self) -> int:
        return len(self.data)


class MNIST(VisionDataset):
    """Holds a byte tensor (N, 28, 28) and a tensor of class numbers."""

    classes = tuple(f"{number} - name" for number in range(10))

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False) -> None:
        if not download:
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        rows = slice(0, 15) if train else slice(15, 20)
        self.data, self.targets = torch.tensor(GREY[rows]), torch.arange(20)[rows] % 10


class CIFAR10(VisionDataset):
    """Holds a byte array (N, 32, 32, 3) and a list of class numbers."""

    classes = tuple("abcdefghij")

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False) -> None:
        rows = slice(0, 15) if train else slice(15, 20)
        self.data, self.targets = COLOUR[rows], [number % 10 for number in range(20)][rows]


class SVHN(VisionDataset):
    """Holds a byte array (N, 3, 32, 32) and an array `labels`, and calls its parts train and test."""

    def __init__(self, root, split="train", transform=None, target_transform=None, download=False) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"Unknown value '{split}' for argument split. Valid values are train, test.")
        rows = slice(0, 15) if split == "train" else slice(15, 20)
        self.data, self.labels = COLOUR[rows].transpose(0, 3, 1, 2), np.arange(20)[rows] % 10


class Flowers102(VisionDataset):
    """Gives pictures of different sizes, with `_labels`, in the parts train, val and test."""

    classes = ("rose", "tulip")

    def __init__(self, root, split="train", transform=None, target_transform=None, download=False, loader=None) -> None:
        self.split, self._labels = split, [0, 1, 1, 0][: 4 if split == "train" else 3]

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index):
        shape = (8 + index, 8 + 2 * index, 3)
        return Image.fromarray(np.full(shape, 10 * index + (self.split == "val"), np.uint8)), self._labels[index]


class Caltech101(Flowers102):
    """Has no parts."""

    def __init__(self, root, target_type="category", transform=None, target_transform=None, download=False) -> None:
        super().__init__(root)


class CocoDetection(VisionDataset):
    """Needs what a recipe can't give."""

    def __init__(self, root, annFile, transform=None, target_transform=None, transforms=None) -> None:
        raise AssertionError


class LSUN(VisionDataset):
    """Needs another package."""

    def __init__(self, root, classes="train", transform=None, target_transform=None) -> None:
        import lmdb_that_nobody_has  # noqa: F401


@pytest.fixture
def torchvision(monkeypatch):
    datasets = ModuleType("torchvision.datasets")
    for kind in (VisionDataset, MNIST, CIFAR10, SVHN, Flowers102, Caltech101, CocoDetection, LSUN):
        setattr(datasets, kind.__name__, kind)
    module = ModuleType("torchvision")
    module.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", module)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


AS_IT_IS = Loading(standardize=False)


@pytest.mark.parametrize(
    ("name", "pixels", "classes"),
    [
        ("MNIST", GREY[:, None], MNIST.classes),
        ("CIFAR10", COLOUR.transpose(0, 3, 1, 2), CIFAR10.classes),
        ("SVHN", COLOUR.transpose(0, 3, 1, 2), tuple("0123456789")),
    ],
)
def test_torchvision_arrays_are_taken_as_they_are(torchvision, name, pixels, classes):
    prepared = prepare(SOURCES["torchvision"](name), AS_IT_IS, "torchvision")
    assert prepared.classes == classes and prepared.output_size == 10 and prepared.task == "classification"
    for (inputs, targets), rows in ((prepared.train, slice(0, 15)), (prepared.validation, slice(15, 20))):
        torch.testing.assert_close(inputs, torch.tensor(pixels[rows]) / 255)
        assert targets.tolist() == [number % 10 for number in range(20)][rows]


def test_torchvision_pictures_are_scaled(torchvision):
    samples = SOURCES["torchvision"]("Flowers102", size=6)
    assert samples.inputs.shape == (4, 3, 6, 6) and samples.classes == ("rose", "tulip")
    assert samples.inputs[:, 0, 0, 0].tolist() == [0, 10, 20, 30] and samples.targets.tolist() == [0, 1, 1, 0]
    assert samples.validation[0][:, 0, 0, 0].tolist() == [1, 11, 21]  # "val" goes before "test"
    whole = SOURCES["torchvision"]("Caltech101", size=6, grey=True)
    assert whole.inputs.shape == (4, 1, 6, 6) and whole.validation is None


def test_torchvision_mistakes_are_one_sentence(torchvision, monkeypatch):
    refused("data.dataset", "'MNISTT' is no data set of torchvision.datasets; the nearest is 'MNIST'", "torchvision", "MNISTT")
    refused("data.dataset", "is no data set", "torchvision", "VisionDataset")
    refused("data.dataset", "can't be loaded by torchvision: Dataset not found", "torchvision", "MNIST", download=False)
    refused("data.dataset", "missing 1 required positional argument: 'annFile'", "torchvision", "CocoDetection")
    refused("data.dataset", "No module named 'lmdb_that_nobody_has'", "torchvision", "LSUN")
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    refused(
        "data.name", "needs the package 'torchvision', which is not installed: pip install torchvision", "torchvision", "MNIST"
    )


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_the_real_torchvision():
    try:
        import torchvision.datasets
    except (ImportError, RuntimeError, OSError) as error:
        refused("data.name", "needs the package 'torchvision', which can't be loaded", "torchvision", "MNIST")
        pytest.skip(f"torchvision can't be imported here: {error}")
    assert torchvision.datasets.MNIST
    refused("data.dataset", "the nearest is 'MNIST'", "torchvision", "MNISTT")


# Hugging Face


class HubData:
    """The face of datasets.Dataset."""

    def __init__(self, table: pd.DataFrame, **features) -> None:
        self.table = table
        self.column_names = list(table.columns)
        self.features = {name: features.get(name, SimpleNamespace()) for name in table.columns}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key):
        return self.table[key].tolist() if isinstance(key, str) else self.table.iloc[key].to_dict()

    def to_pandas(self) -> pd.DataFrame:
        return self.table.copy()


@pytest.fixture
def hub(monkeypatch):
    label = SimpleNamespace(names=["cat", "ant"])
    picture = type("Image", (), {})()
    table = pd.DataFrame({"a": [1.5, 2.5, None, 4], "b": ["x", "y", "x", "y"], "label": [0, 1, 1, 0]})
    images = pd.DataFrame({"image": [Image.fromarray(pixels) for pixels in GREY[:4]], "label": [0, 1, 1, 0]})
    vectors = pd.DataFrame({"v": [[1, 2], [3, 4], [5, 6]], "label": [0.5, 1.5, 2.5]})
    parts = {
        ("table", "train"): HubData(table, label=label),
        ("table", "test"): HubData(table.iloc[:2].assign(b="z"), label=label),
        ("images", "train"): HubData(images, label=label, image=picture),
        ("images", "test"): HubData(images.iloc[1:], label=label, image=picture),
        ("named", "train"): HubData(images.assign(label=list("yxxy")), image=picture),
        ("vectors", "train"): HubData(vectors),
    }

    def load_dataset(path, name=None, split=None):
        if not any(known == path for known, _ in parts):
            raise FileNotFoundError(f"Couldn't find any data file at {path}.")
        if (path, split) not in parts:
            raise ValueError(f"Unknown split {split!r}.\nShould be one of ['train', 'test'].")
        return parts[path, split]

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_huggingface_tables_are_treated_as_csv_files_are(hub):
    samples = SOURCES["huggingface"]("table", validation_split="test")
    assert samples.features == ("a", "b = x", "b = y", "b = z") and samples.classes == ("ant", "cat")
    np.testing.assert_array_equal(samples.inputs[1], [2.5, 0, 1, 0])
    assert samples.targets.tolist() == [1, 0, 0, 1]
    np.testing.assert_array_equal(samples.validation[0], [[1.5, 0, 0, 1], [2.5, 0, 0, 1]])
    assert SOURCES["huggingface"]("table", target="a", columns=["b"]).task == "regression"


def test_huggingface_pictures_and_vectors(hub):
    samples = SOURCES["huggingface"]("images", size=28, grey=True, validation_split="test")
    np.testing.assert_array_equal(samples.inputs, GREY[:4, None])
    assert samples.classes == ("cat", "ant") and samples.targets.tolist() == [0, 1, 1, 0]
    assert samples.validation[1].tolist() == [1, 1, 0]
    named = SOURCES["huggingface"]("named", size=28, grey=True)
    assert named.classes == ("x", "y") and named.targets.tolist() == [1, 0, 0, 1]
    vectors = prepare(SOURCES["huggingface"]("vectors"), Loading(validation=0, standardize=False), "huggingface")
    assert sorted(vectors.train[0].tolist()) == [[1, 2], [3, 4], [5, 6]] and vectors.task == "regression"


def test_huggingface_mistakes_are_one_sentence(hub, monkeypatch):
    refused("data.dataset", "'nowhere' can't be loaded: Couldn't find", "huggingface", "nowhere")
    refused("data.split", "'trian' can't be loaded: Unknown split 'trian'. Should be", "huggingface", "table", split="trian")
    refused("data.validation_split", "'val' can't be", "huggingface", "table", validation_split="val")
    refused("data.target", "no column 'lable'; the nearest is 'label'; it has a, b, label", "huggingface", "table", "lable")
    refused("data.columns", "no column 'aa'", "huggingface", "table", columns=["aa"])
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("data.name", "needs the package 'datasets', which is not installed: pip install datasets", "huggingface", "table")
