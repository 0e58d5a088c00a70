"""Data sets made from a formula and a seed."""

from __future__ import annotations

from engine.data.samples import Samples
from engine.data.sources.declare import at_least, source


@source(task="regression")
def line(samples: int = 200, slope: float = 0.7, intercept: float = 0.3, noise: float = 0.05, seed: int = 0) -> Samples:
    """The tutorial's straight line, y = slope x + intercept, with noise; x from 0 to 1.

    Args:
        samples: how many points
        slope: the weight that a linear model should find
        intercept: the bias that a linear model should find
        noise: standard deviation of what is added to y
        seed: of the points and the noise
    """
    import numpy

    at_least(1, samples=samples)
    at_least(0, noise=noise, seed=seed)
    random = numpy.random.default_rng(seed)
    x = random.uniform(0, 1, samples)
    y = slope * x + intercept + noise * random.standard_normal(samples)
    return Samples(inputs=x[:, None], targets=y, task="regression", features=("x",))


@source(task="regression")
def sine(samples: int = 500, periods: float = 2.0, noise: float = 0.1, seed: int = 0) -> Samples:
    """A sine wave with noise: y = sin(2 pi periods x), x from 0 to 1.

    Args:
        samples: how many points
        periods: waves between 0 and 1
        noise: standard deviation of what is added to y
        seed: of the points and the noise
    """
    import numpy

    at_least(1, samples=samples)
    at_least(0, noise=noise, seed=seed)
    random = numpy.random.default_rng(seed)
    x = random.uniform(0, 1, samples)
    y = numpy.sin(2 * numpy.pi * periods * x) + noise * random.standard_normal(samples)
    return Samples(inputs=x[:, None], targets=y, task="regression", features=("x",))


@source(task="classification")
def moons(samples: int = 1000, noise: float = 0.1, seed: int = 0) -> Samples:
    """Two interleaved half circles in the plane.

    Args:
        samples: how many points, both moons together
        noise: standard deviation of what is added to each coordinate
        seed: of the points and the noise
    """
    import numpy

    at_least(2, samples=samples)
    at_least(0, noise=noise, seed=seed)
    random = numpy.random.default_rng(seed)
    moon = numpy.arange(samples) % 2
    angle = random.uniform(0, numpy.pi, samples)
    upper = numpy.stack([numpy.cos(angle), numpy.sin(angle)], axis=1)
    lower = numpy.stack([1 - numpy.cos(angle), 0.5 - numpy.sin(angle)], axis=1)
    points = numpy.where(moon[:, None] == 0, upper, lower) + noise * random.standard_normal((samples, 2))
    return Samples(inputs=points, targets=moon, task="classification", classes=("upper", "lower"), features=("x", "y"))


@source(task="classification")
def spirals(samples: int = 1000, arms: int = 3, noise: float = 0.1, seed: int = 0) -> Samples:
    """Spiral arms around a centre, one class an arm.

    Args:
        samples: how many points, all arms together
        arms: how many spirals
        noise: standard deviation of the angle, in radians
        seed: of the points and the noise
    """
    import numpy

    at_least(2, arms=arms)
    at_least(arms, samples=samples)
    at_least(0, noise=noise, seed=seed)
    random = numpy.random.default_rng(seed)
    arm = numpy.arange(samples) % arms
    radius = random.uniform(0, 1, samples)
    angle = 2 * numpy.pi * arm / arms + 4 * radius + noise * random.standard_normal(samples)
    points = numpy.stack([radius * numpy.cos(angle), radius * numpy.sin(angle)], axis=1)
    names = tuple(f"arm {number}" for number in range(1, arms + 1))
    return Samples(inputs=points, targets=arm, task="classification", classes=names, features=("x", "y"))
