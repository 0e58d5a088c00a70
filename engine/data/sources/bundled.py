"""Data sets that come with scikit-learn: nothing is downloaded."""

from __future__ import annotations

from typing import Any

from engine.data.samples import Samples
from engine.data.sources.declare import source


@source(task="classification")
def digits(images: bool = False) -> Samples:
    """1,797 handwritten digits, 8 x 8 pixels of 0 to 1, ten classes.

    Args:
        images: give images (1, 8, 8), as cnn and resnet need them, instead of 64 features
    """
    import importlib.util
    from pathlib import Path

    import numpy

    # The file itself: importing sklearn.datasets, with all that it needs, takes longer than a whole run on these digits.
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.origin is not None
    table = numpy.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    pixels, targets = table[:, :-1] / 16, table[:, -1].astype(numpy.int64)
    names = tuple(str(digit) for digit in range(10))
    if images:
        return Samples(inputs=pixels.reshape(-1, 1, 8, 8), targets=targets, task="classification", classes=names)
    features = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return Samples(inputs=pixels, targets=targets, task="classification", classes=names, features=features)


@source(task="classification")
def iris() -> Samples:
    """150 iris flowers, four measures each, three species."""
    from sklearn.datasets import load_iris

    return _classes(load_iris())


@source(task="classification")
def wine() -> Samples:
    """178 wines, thirteen chemical measures each, three growers."""
    from sklearn.datasets import load_wine

    return _classes(load_wine())


@source(task="classification")
def breast_cancer() -> Samples:
    """569 tumours, thirty measures of their cells each, malignant or benign."""
    from sklearn.datasets import load_breast_cancer

    return _classes(load_breast_cancer())


@source(task="regression")
def diabetes() -> Samples:
    """442 patients, ten measures each; the target is the disease's progression a year later, 25 to 346."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    return Samples(inputs=bunch.data, targets=bunch.target, task="regression", features=tuple(bunch.feature_names))


def _classes(bunch: Any) -> Samples:
    return Samples(
        inputs=bunch.data,
        targets=bunch.target,
        task="classification",
        classes=tuple(str(name) for name in bunch.target_names),
        features=tuple(str(name) for name in bunch.feature_names),
    )
