"""Prediction: a trained model's answers to new inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.data.inputs import Inputs, inputs_of
from engine.errors import EpochalError, refuse_below
from engine.inference.trained import TrainedModel, load_trained

if TYPE_CHECKING:
    from pandas import DataFrame

    from engine.run import Run

Array = NDArray[Any]
_SHARES: dict[str, Callable[[Tensor], Tensor]] = {  # losses that make the output mean probabilities, and how
    "CrossEntropyLoss": lambda output: output.softmax(1),
    "auto": lambda output: output.softmax(1),
    "NLLLoss": lambda output: output.exp(),
}
_EACH: dict[str, Callable[[Tensor], Tensor]] = {  # of labels that are there or not
    "BCEWithLogitsLoss": lambda output: output.sigmoid(),
    "BCELoss": lambda output: output,
}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The answers, one a sample, in the order of the inputs.

    `outputs` is what the model put out, (N, …). `labels` are the classes' names, of a text the predicted characters as one
    string a window; None for numbers. `probabilities` (N, C) where the loss gives the output that meaning. `values` are numbers
    in the units of the data, (N, K), or for reconstruction (N, …); None for classes.
    """

    outputs: Array
    labels: tuple[str, ...] | None = None
    probabilities: Array | None = None
    values: Array | None = None
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.outputs)

    def table(self, *, probabilities: bool = False) -> DataFrame:
        """One row a sample: "label", with a column for each class's probability where that is asked for; or "value"."""
        import pandas

        columns: dict[str, Any] = {"file": self.names} if self.names else {}
        if self.labels is not None:
            columns["label"] = self.labels
        if probabilities:
            if self.probabilities is None:
                raise EpochalError("the run's loss gives the model's output no meaning as probabilities")
            columns |= {f"probability {name}": self.probabilities[:, i] for i, name in enumerate(self.classes)}
        if self.values is not None:
            flat = self.values.reshape(len(self.values), -1)
            count = flat.shape[1]
            named = self.features if len(self.features) == count else [f"value_{i + 1}" for i in range(count)]
            columns |= {"value" if count == 1 else named[i]: flat[:, i] for i in range(count)}
        return pandas.DataFrame(columns)


def predict(
    run: str | Path | Run | TrainedModel,
    inputs: Any,
    step: str | int | None = None,
    *,
    device: str | torch.device = "auto",
    batch_size: int = 256,
    runs: str | Path | None = None,
) -> Predictions:
    """What a run's model says of `inputs`, preprocessed as its training data were.

    inputs: a path (.csv, .tsv, .parquet, .npy, .npz, .safetensors, .txt, a folder of pictures), a data frame whose columns are
    found by name, or an array, tensor or list of samples as the data had them. run and step: as for `load_model`.

    RecipeError, RunError or CheckpointError in one sentence.
    """
    refuse_below(1, batch_size=batch_size)
    trained = run if isinstance(run, TrainedModel) else load_trained(run, step, device=device, runs=runs)
    return predicted(trained, inputs_of(inputs, trained.preprocessing, trained.section("data")), batch_size)


def predicted(trained: TrainedModel, inputs: Inputs, batch_size: int = 256) -> Predictions:
    """The answers to inputs that are known already."""
    outputs = numpy.concatenate([_host(output) for output in _outputs(trained, inputs, batch_size)]) if inputs.samples else None
    if outputs is None:
        raise EpochalError("there is nothing to predict: the inputs have no rows")
    known, loss = trained.preprocessing, trained.section("loss")["name"]
    common: dict[str, Any] = {"outputs": outputs, "names": inputs.names, "notes": inputs.notes}
    tensor = torch.from_numpy(outputs)
    if known.task in ("classification", "text"):
        classes = trained.class_names(outputs.shape[1])
        best = outputs.argmax(1)
        if known.task == "text":
            return Predictions(**common, labels=tuple("".join(classes[i] for i in row) for row in best), classes=classes)
        shares = _SHARES[loss](tensor).numpy() if loss in _SHARES else None
        return Predictions(**common, labels=tuple(classes[i] for i in best), probabilities=shares, classes=classes)
    if loss in _EACH and known.task == "regression":  # labels, each there or not
        shares = _EACH[loss](tensor).numpy()
        classes = tuple(str(i + 1) for i in range(shares.shape[1]))
        return Predictions(**common, values=(shares > 0.5).astype(int), probabilities=shares, classes=classes)
    features = known.features if known.task == "reconstruction" else ()
    return Predictions(**common, values=known.in_units(outputs), features=features)


def _outputs(trained: TrainedModel, inputs: Inputs, batch_size: int) -> Iterator[Tensor]:
    for batch in inputs.batches(batch_size):
        output = trained(batch)
        if not isinstance(output, Tensor):
            raise EpochalError(f"the model puts out a {type(output).__name__}, and only one tensor can be written as a table")
        yield output


def _host(output: Tensor) -> Array:
    values: Array = output.detach().to("cpu", torch.float64 if output.dtype == torch.float64 else torch.float32).numpy()
    return values
