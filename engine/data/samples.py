"""Samples: what a data source gives. Prepared: the same after splitting and scaling, as a run trains on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from engine.errors import Problem, RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.utils.data import DataLoader, Dataset

    from engine.data.columns import Column

    Part = tuple[Tensor, Tensor] | Dataset | DataLoader

Task = Literal["classification", "regression", "text", "reconstruction"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Inputs and targets held in memory, as arrays, tensors or lists.

    `inputs` is (N, *shape): numbers of any width, which become float32; bytes (uint8), which are pixels and become 0 to 1;
    or integer tokens, which become int64 and are never scaled. `targets` is (N,) class numbers 0..C-1 with `classes` naming
    them, or (N,) or (N, K) numbers. For the task "text" both are (N, T) tokens, numbers of `classes`, the vocabulary: each
    target is the token after its input. For "reconstruction" the inputs are the targets and `targets` is not looked at.

    `features` names the inputs when they are flat. `validation` is (inputs, targets) where the data brings its own. With
    `impute`, NaN in flat inputs means "missing"; otherwise it is an error. `notes` are sentences for the user.

    `columns` and `target` are how a table became inputs and targets. `rows` are the places of the samples in what was read,
    where some of it was left out; of the validation part where there is one. `spare`: nobody else holds `inputs`, so that
    they may be rearranged in place.
    """

    inputs: Any
    targets: Any
    task: Task
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    validation: tuple[Any, Any] | None = None
    impute: bool = False
    notes: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    target: Column | None = None
    rows: Any = None
    spare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Training and validation data, and what a model must know of them.

    A part is (inputs, targets) tensors, a map-style data set, or a loader; `engine.data.batches.make_batches` takes each.
    Inputs are float32, tokens int64; targets are int64 classes (N,), float32 numbers (N, K), tokens (N, T), or for
    reconstruction the inputs. `input_shape` is one sample's shape, () when a sample is not one tensor; `output_size` the
    number of classes (of tokens in the vocabulary) or of the numbers of one target. `fingerprint` tells these training data
    from others (see `engine.data.fingerprint`).
    `normalization` holds what was applied, as plain lists, in this order: "median" of each column, for what is missing;
    "missing", the columns that have an indicator, all behind the last column; "mean" and "std"; "target_mean", "target_std".
    `as_is`: a torch data set, nothing of which was changed. `tokens`: inputs are whole numbers. `columns`, `target`: see
    Samples.
    `held` are the places of the validation samples in the data; None where these brought them, or are a stream.
    """

    train: Part
    validation: Part | None
    task: Task
    input_shape: tuple[int, ...]
    output_size: int
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    normalization: dict[str, list[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    as_is: bool = False
    tokens: bool = False
    columns: tuple[Column, ...] = ()
    target: Column | None = None
    held: Any = None


def wrong(field: str, message: str) -> RecipeError:
    """The error for one mistake in the data section: `raise wrong("data.path", "…")`."""
    return RecipeError([Problem(field, message)])


def from_arrays(inputs: Any, targets: Any, validation: tuple[Any, Any] | None = None) -> Samples:
    """Samples from arrays, tensors or lists. Float targets are numbers; integers, booleans and texts are classes.

    Whole numbers (N, T) as inputs and as targets are a text: tokens, and the ones after them.
    """
    import numpy

    values = as_array(targets, "targets")
    if values.ndim == 2 and values.shape[1] > 1 and values.dtype.kind in "iu":
        tokens = as_array(inputs, "inputs")
        if tokens.shape == values.shape and tokens.dtype.kind in "iu" and tokens.itemsize > 1:  # bytes are pixels
            return Samples(inputs=tokens, targets=values, task="text", validation=validation)
    if values.dtype.kind == "f":
        return Samples(inputs=inputs, targets=values, task="regression", validation=validation)
    if validation is None:
        numbers, classes = as_classes(values)
        return Samples(inputs=inputs, targets=numbers, task="classification", classes=classes)
    held = as_array(validation[1], "targets")
    numbers, classes = as_classes(numpy.concatenate([values, held]))
    return Samples(
        inputs=inputs,
        targets=numbers[: len(values)],
        task="classification",
        classes=classes,
        validation=(validation[0], numbers[len(values) :]),
    )


def as_classes(values: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Class numbers 0..C-1, int64, and the sorted names that they stand for. A column (N, 1) becomes (N,)."""
    import numpy

    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    names, numbers = numpy.unique(values, return_inverse=True)
    return numbers.reshape(values.shape).astype(numpy.int64), tuple(str(name) for name in names.tolist())


def as_array(values: Any, what: str) -> NDArray[Any]:
    """`values` as a NumPy array of numbers or booleans; of texts as well where `what` is "targets"."""
    import numpy

    if hasattr(values, "detach"):  # a tensor, perhaps on a GPU, perhaps in a graph
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() and values.itemsize < 4 else values  # NumPy has no bfloat16
    try:
        array = numpy.asarray(values)
    except ValueError:  # lists of unequal lengths
        raise wrong("data.name", f"the data's {what} are of different shapes; every sample must have the same") from None
    if array.dtype == object and array.size and all(isinstance(value, str) for value in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in ("biuf" if what == "inputs" else "biufU"):
        raise wrong("data.name", f"the data's {what} are of type {array.dtype.name}: turn them into numbers first")
    if array.ndim == 0:
        raise wrong("data.name", f"the data's {what} are a single value, not one for each sample")
    return array
