"""Recipe: one experiment as data. A TOML file, a form and a Python object are three faces of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import Problem, RecipeError, as_path, named
from engine.recipe_text import named_values, table_in, to_toml, with_value

KINDS = ("data", "model", "loss", "optimizer", "scheduler")  # of components: each names a part of the catalog


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
    fold: int | None = option(
        None, "the part of that number, of `folds` equal ones, is held back for validation, instead of a share", minimum=1
    )
    folds: int = option(5, "how many parts there are, when one of them is held back", minimum=2)
    shuffle: bool = option(True, "a new order each epoch, a function of seed and epoch alone")
    drop_last: bool = option(False, "leave out an epoch's last batch when it is smaller than the others")
    standardize: bool = option(
        True,
        "shift and scale each input feature to mean 0 and deviation 1 over the training part; images channel by channel",
    )
    standardize_target: bool = option(
        False, "the same for a numeric target; loss and metrics are then in its standard deviations"
    )
    reconstruct: bool = option(False, "the inputs themselves are the targets, for an autoencoder; the data's own are not used")
    augment: list[str] = option(
        [],
        "random changes to training images, others each epoch, in the order given",
        choices=("flip", "shift", "cutout", "noise", "brightness"),
    )
    split_seed: int = option(0, "which samples are held back; the same whatever the run's seed", minimum=0)
    workers: int = option(0, "processes that load samples, for data sets that are not held in memory", minimum=0, maximum=256)


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run is. `steps_per_epoch` and `steps` (of the whole run) are None when an epoch's length is not known."""

    epochs: int
    steps_per_epoch: int | None
    steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The plan around the loop."""

    epochs: int = option(20, "passes over the training data", minimum=1)
    max_steps: int | None = option(None, "steps to take, however many epochs those are; epochs is not used then", minimum=1)
    max_minutes: float | None = option(None, "end after so long, in the middle of an epoch if need be", minimum=0.0)
    device: str = option(
        "auto",
        "where the run takes place",
        pattern=r"auto|cpu|mps|cuda(:\d+)?",
        pattern_words="auto, cpu, mps, cuda or one of several as cuda:1",
    )
    precision: str = option(
        "float32",
        "the arithmetic of forward and backward; bf16 and fp16 keep float32 weights, bf16-pure does not",
        choices=("float32", "tf32", "bf16", "fp16", "bf16-pure", "float64"),
    )
    execution: str = option("auto", "how a step is executed", choices=("auto", "eager", "compiled", "captured"))
    accumulate: int = option(1, "batches whose gradients make one step", minimum=1)
    clip_norm: float | None = option(None, "largest norm of all gradients together; larger ones are scaled down", minimum=0.0)
    clip_value: float | None = option(None, "largest size of each single gradient, after clip_norm", minimum=0.0)
    gradient_norm: bool = option(False, "record the norm of all gradients together, before clipping; clip_norm does so anyway")
    non_finite: str = option(
        "stop",
        "a step whose loss or gradient is not finite: end the run, leave the step out, or go back to the last checkpoint "
        "with a lower learning rate",
        choices=("stop", "skip", "rewind"),
    )
    non_finite_limit: int = option(10, "so many steps in a row are left out, or so many times is gone back, at most", minimum=1)
    rewind_factor: float = option(0.5, "what the learning rate is multiplied by each time", minimum=0.0, maximum=1.0)
    ema: float = option(
        0.0,
        "decay of an exponential average of the weights, which is validated and saved as well; 0: none",
        minimum=0.0,
        maximum=1.0,
    )
    weights: str | None = option(
        None, "weights to start from: a safetensors file, a .pt that holds only tensors, or the directory of a run"
    )
    weights_except: list[str] = option(
        [], "what of them is left out and starts anew, by patterns of names: head.*, where the number of classes is another"
    )
    freeze: list[str] = option([], "parameters that are not trained, by patterns of their names: features.*")
    freeze_epochs: int | None = option(None, "epochs after which what is frozen is trained as well; left out: never", minimum=1)
    validate_every: int = option(1, "epochs between validations; the last epoch always has one", minimum=1)
    validate_steps: int | None = option(None, "validate also after so many steps each", minimum=1)
    metrics: list[str] = option(
        [], "beside the loss; empty: accuracy for classes, MAE and R2 for numbers; others from torchmetrics"
    )
    monitor: str = option(
        "auto", "the metric that decides which epoch is best; auto: val/loss, or train/loss without validation data"
    )
    patience: int | None = option(None, "stop after so many validations without a new best", minimum=1)
    min_delta: float = option(0.0, "what a new best must gain for the patience to start again", minimum=0.0)
    health: bool = option(True, "look at a step now and then: its time by phase, gradients and updates of each layer")
    processes: int = option(
        1,
        "so many take every batch together, each its share, on as many GPUs; torchrun's number where it starts them",
        minimum=1,
    )
    strategy: str = option(
        "auto",
        "of several processes: ddp holds all weights in each, fsdp a share of them; auto shards what does not fit",
        choices=("auto", "ddp", "fsdp"),
    )
    deterministic: bool = option(False, "only operations that give the same bits each time; slower on a GPU")
    threads: int | None = option(
        None, "CPU threads for one operation; left out: 1 for a model too small to share, else as torch chooses", minimum=1
    )

    def length(self, batches: int | None) -> Length:
        """The length of a run with so many batches an epoch. A budget of steps replaces the number of epochs."""
        each = None if batches is None else math.ceil(batches / self.accumulate)
        if self.max_steps is None:
            return Length(self.epochs, each, None if each is None else each * self.epochs)
        # Without a known length an epoch has at least one step.
        return Length(math.ceil(self.max_steps / max(1, each or 1)), each, self.max_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """When the run is written to disk."""

    every: int = option(1, "epochs between checkpoints; the last epoch and a stop always write one", minimum=1)
    min_seconds: float = option(10.0, "yet not more often than this", minimum=0.0)
    keep: int = option(3, "the newest so many stay, and the best besides", minimum=2)
    retry_minutes: float = option(
        5.0, "how long the last checkpoint of a run is tried again when the disk does not take it", minimum=0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Where else it is told what a run states."""

    tensorboard: bool = option(False, "write TensorBoard's event files into the run's directory as well")
    mlflow: str | None = option(None, "tell an MLflow server, by its URI, or a folder for MLflow's files")
    wandb: str | None = option(None, "tell Weights & Biases, in this project; offline where nobody is logged in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One experiment. `Recipe()` is the default one: an MLP on scikit-learn's digits."""

    name: str = option(
        "digits-mlp",
        "part of the name of a run's directory",
        pattern=r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}",
        pattern_words="letters from a to z, digits, -, _ and . (not first), at most 100 of them",
    )
    seed: int = option(0, "where the model's start and the order of the samples come from", minimum=0, maximum=2**63 - 1)
    data: Component = field(default_factory=lambda: Component("digits"))
    loading: Loading = field(default_factory=Loading)
    model: Component = field(default_factory=lambda: Component("mlp"))
    loss: Component = field(default_factory=lambda: Component("CrossEntropyLoss"))
    optimizer: Component = field(default_factory=lambda: Component("Adam"))
    scheduler: Component | None = None
    training: Training = field(default_factory=Training)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    track: Track = field(default_factory=Track)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that the values of a file or form describe; what is missing is as in the default recipe.

        What stands in [search] is checked and left to `engine.Search`: the recipe is what is trained without it.
        Raises RecipeError with every mistake there is. Errors of own code that is loaded for the check come through.
        """
        from engine import catalog
        from engine.catalog.check import with_defaults

        problems = catalog.problems(values)
        if problems:
            raise RecipeError(problems)
        values = with_defaults(values)

        def table(key: str) -> dict[str, Any]:
            cleaned = {item.key: item.clean for section in sections if section.key == key for item in section.fields}
            given: Mapping[str, Any] = values if key == "" else values.get(key) or {}
            return {
                name: cleaned[name](value) if name in cleaned else value for name, value in given.items() if value is not None
            }

        sections = catalog.sections(values)
        own: dict[str, Any] = {name: value for name, value in table("").items() if name in ("name", "seed")}
        data = table("data")
        loading = {item.name: data.pop(item.name) for item in dataclasses.fields(Loading) if item.name in data}
        parts: dict[str, Any] = {}
        for kind in KINDS[1:]:  # the data are beside the loading
            if values.get(kind) is not None:
                part = table(kind)
                parts[kind] = Component(part.pop("name"), part)
        return cls(
            **own,
            **parts,
            data=Component(data.pop("name"), data),
            loading=Loading(**loading),
            training=Training(**table("training")),
            checkpoint=Checkpoint(**table("checkpoint")),
            track=Track(**table("track")),
        )

    def to_dict(self, *, complete: bool = True) -> dict[str, Any]:
        """The recipe as nested plain values, as they stand in a file; what was left out and has no default is absent.

        `complete` writes every argument's default out, for which torch is loaded; without it each component has only the
        arguments that it was given.
        """
        values: dict[str, Any] = {"name": self.name, "seed": self.seed}
        for kind in KINDS:
            component: Component | None = getattr(self, kind)
            if not isinstance(component, Component | None):
                words = f'{kind} is {named(component)}; it must be a Component, such as Component("name", {{"argument": 1}})'
                raise RecipeError([Problem(kind, words)])
            if component is not None:
                arguments = _completed(kind, component) if complete else component.arguments
                options = _options(self.loading) if kind == "data" else {}
                values[kind] = {"name": component.name, **arguments, **options}
        values["training"] = _options(self.training)
        values["checkpoint"] = _options(self.checkpoint)
        values["track"] = _options(self.track)
        return values

    @classmethod
    def load(cls, path: Path | str) -> Recipe:
        """The recipe of a TOML file. One without a name is called like the file. Raises RecipeError, as `from_dict`.

        Files that the recipe names are looked for from the working directory, not from the recipe's.
        """
        return cls.from_dict(named_values(as_path(path, "a recipe's file")))

    def differs(self) -> dict[str, Any]:
        """What is not as in the default recipe, by dotted keys; another name's arguments are compared with its own defaults."""
        from engine import catalog

        default, found = Recipe(), {}
        for kind in KINDS:
            component, usual = getattr(self, kind), getattr(default, kind)
            if component is None:
                continue
            if usual is None or component.name != usual.name:
                found[f"{kind}.name"] = component.name
            defaults = {item.key: item.default for item in catalog.find(kind, component.name).fields}
            found |= {f"{kind}.{key}": v for key, v in component.arguments.items() if key not in defaults or v != defaults[key]}
        return found | differing_options(self.to_dict(complete=False))

    def to_toml(self) -> str:
        """The complete recipe as the text of a file."""
        return to_toml(self.to_dict())

    def save(self, path: Path | str) -> None:
        """Write the complete recipe to a file."""
        Path(path).write_text(self.to_toml(), encoding="utf-8")

    def check(self) -> None:
        """Raise RecipeError with every mistake there is; for a recipe that was made in Python."""
        Recipe.from_dict(self.to_dict(complete=False))

    def replace(self, **changes: Any) -> Recipe:
        """A checked copy with other values at dotted keys: `recipe.replace(**{"optimizer.lr": 1e-3, "scheduler": None})`.

        None takes an optional field or the scheduler away. A new name keeps only the arguments that it knows.
        """
        values = self.to_dict(complete=False)
        for key, value in changes.items():
            values = with_value(values, key, value)
        return Recipe.from_dict(values)


def differing_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe's values that are not as in the default recipe, and so the seed, by dotted keys."""
    found: dict[str, Any] = {}
    for section, options in (("data", Loading()), ("training", Training()), ("checkpoint", Checkpoint())):
        given = table_in(values, section)
        usual = dataclasses.asdict(options)
        found |= {f"{section}.{key}": given[key] for key in usual if key in given and given[key] != usual[key]}
    return found | ({"seed": values["seed"]} if values.get("seed", 0) != 0 else {})


def rate_field(values: Mapping[str, Any]) -> str:
    """The field that decides the learning rate in a recipe's values: optimizer.lr, but not where a scheduler sets its own."""
    scheduler = values.get("scheduler") or {}
    own = scheduler.get("name") in ("OneCycleLR", "CyclicLR") and scheduler.get("max_lr") is not None
    return "scheduler.max_lr" if own else "optimizer.lr"


def rate_taken(values: Mapping[str, Any]) -> str:
    """Who takes the learning rate from another field than optimizer.lr, to begin a sentence with; "" where nobody does."""
    field = rate_field(values)
    return "" if field == "optimizer.lr" else f"{values['scheduler']['name']} takes the learning rate from {field}"


def _options(options: Loading | Training | Checkpoint | Track) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(options).items() if value is not None}


def _completed(kind: str, component: Component) -> dict[str, Any]:
    """The arguments in the order of the constructor, with the defaults of those that were not given."""
    from engine import catalog

    values = {item.key: item.default for item in catalog.find(kind, component.name).fields} | component.arguments
    return {key: value for key, value in values.items() if value is not None and value is not catalog.REQUIRED}
