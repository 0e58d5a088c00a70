"""Recipe: one experiment as data. A TOML file, a form and a Python object are three faces of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(default: Any, help: str, **rules: Any) -> Any:
    """A dataclass field with what a form and a check need: see `engine.catalog.fields.Field`."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help, "default": default, **rules})
    return field(default=default, metadata={"help": help, **rules})


@dataclass(frozen=True, slots=True)
class Component:
    """One named part with the arguments for its constructor: `Component("Adam", {"lr": 1e-3})`."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How samples become batches. In a file these stand in [data], beside the source's own arguments."""

    batch_size: int = option(32, "samples a step", minimum=1)
    validation: float = option(
        0.2,
        "share of the samples held back for validation; not used where the data brings its own",
        minimum=0.0,
        maximum=0.9,
    )
    shuffle: bool = option(True, "a new order each epoch, a function of seed and epoch alone")
    drop_last: bool = option(False, "leave out an epoch's last batch when it is smaller than the others")
    standardize: bool = option(
        True,
        "shift and scale each input feature to mean 0 and deviation 1 over the training part; images are scaled as one",
    )
    standardize_target: bool = option(
        False, "the same for a numeric target; loss and metrics are then in its standard deviations"
    )
    split_seed: int = option(0, "which samples are held back; the same whatever the run's seed", minimum=0)
    workers: int = option(0, "processes that load samples, for data sets that are not held in memory", minimum=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The plan around the loop."""

    epochs: int = option(20, "passes over the training data", minimum=1)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps")
    precision: str = option("float32", "the arithmetic of forward and backward", choices=("float32", "tf32", "bf16", "float64"))
    execution: str = option("auto", "how a step is executed", choices=("auto", "eager", "compiled"))
    accumulate: int = option(1, "batches whose gradients make one step", minimum=1)
    clip_norm: float | None = option(None, "largest norm of all gradients together; larger ones are scaled down", minimum=0.0)
    metrics: list[str] = option(
        [], "beside the loss; empty: accuracy for classes, MAE and R2 for numbers; others from torchmetrics"
    )
    monitor: str = option("val/loss", "the metric that decides which epoch is best")
    patience: int | None = option(None, "stop after so many epochs without a new best", minimum=1)
    min_delta: float = option(0.0, "what a new best must gain for the patience to start again", minimum=0.0)
    threads: int | None = option(None, "CPU threads for one operation; left out: as torch chooses", minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """When the run is written to disk."""

    every: int = option(1, "epochs between checkpoints; the last epoch and a stop always write one", minimum=1)
    min_seconds: float = option(10.0, "yet not more often than this", minimum=0.0)
    keep: int = option(3, "the newest so many stay, and the best besides", minimum=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One experiment. `Recipe()` is the default one: an MLP on scikit-learn's digits."""

    name: str = "digits-mlp"
    seed: int = 0
    data: Component = field(default_factory=lambda: Component("digits"))
    loading: Loading = field(default_factory=Loading)
    model: Component = field(default_factory=lambda: Component("mlp"))
    loss: Component = field(default_factory=lambda: Component("CrossEntropyLoss"))
    optimizer: Component = field(default_factory=lambda: Component("Adam"))
    scheduler: Component | None = None
    training: Training = field(default_factory=Training)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
