"""Which losses and models are for which kind of data, and which are usual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_CLASSES, _LABELS, _SHARES = ("classification",), ("labels",), ("distribution",)
_CLASSES_AND_TEXT, _NUMBERS_AND_INPUTS = ("classification", "text"), ("regression", "reconstruction")
TASKS: dict[str, tuple[str, ...]] = {
    "CrossEntropyLoss": _CLASSES_AND_TEXT,
    "MultiMarginLoss": _CLASSES,
    "NLLLoss": _CLASSES_AND_TEXT,
    "HuberLoss": _NUMBERS_AND_INPUTS,
    "L1Loss": _NUMBERS_AND_INPUTS,
    "MSELoss": _NUMBERS_AND_INPUTS,
    "PoissonNLLLoss": ("regression",),
    "SmoothL1Loss": _NUMBERS_AND_INPUTS,
    "BCELoss": _LABELS,
    "BCEWithLogitsLoss": ("labels", "reconstruction"),
    "HingeEmbeddingLoss": _LABELS,
    "MultiLabelMarginLoss": _LABELS,
    "MultiLabelSoftMarginLoss": _LABELS,
    "SoftMarginLoss": _LABELS,
    "KLDivLoss": _SHARES,
}
# The targets of a task, to follow "takes" and "have".
_TARGETS = {
    "classification": "class numbers",
    "text": "the number of the next token",
    "regression": "numbers",
    "reconstruction": "the inputs themselves",
    "labels": "a column of 0 and 1 (or -1 and 1) for each label",
    "distribution": "shares that come to 1",
}
_USUAL = {  # loss, model
    "classification": ("CrossEntropyLoss", "mlp"),
    "text": ("CrossEntropyLoss", "gpt"),
    "regression": ("MSELoss", "mlp"),
    "reconstruction": ("MSELoss", "autoencoder"),
}


def auto(output: Tensor, targets: Tensor) -> Tensor:
    """The usual one for the data: CrossEntropyLoss for classes and text, MSELoss for numbers and reconstruction."""
    from torch.nn import functional

    return functional.mse_loss(output, targets) if targets.is_floating_point() else functional.cross_entropy(output, targets)


def loss_for(task: str | None) -> str:
    """The name of the loss that is usual for data of that task; "auto" where it is not known yet."""
    return _USUAL[task][0] if task in _USUAL else "auto"


def model_for(task: str | None) -> str:
    """The name of the model that is usual for data of that task."""
    return _USUAL[task][1] if task in _USUAL else "mlp"


def misfit(kind: str, name: str, tasks: tuple[str, ...], task: str) -> str:
    """Why a loss or model for `tasks` does not fit data of `task`, as one sentence; empty where it does."""
    if not tasks or task in tasks:
        return ""
    if kind == "model":
        return f"{name} is for {' and '.join(tasks)}, and the data are for {task}"
    takes = " or ".join(dict.fromkeys(_TARGETS[each] for each in tasks))
    return f"{name} is for {' and '.join(tasks)} and takes {takes}; the targets of {task} are {_TARGETS.get(task, 'others')}"


def task_of(source: Mapping[str, Any]) -> str | None:
    """What the data of a recipe's [data] section are for; None when only loading them tells."""
    from engine.data.sources import SOURCES

    if source.get("reconstruct") is True:
        return "reconstruction"
    name = source.get("name")
    task = getattr(SOURCES.get(name), "task", None) if isinstance(name, str) else None
    said = source.get("task")  # a table leaves it to an argument
    return task or (said if isinstance(said, str) and said in _USUAL else None)
