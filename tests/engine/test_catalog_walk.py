"""Everything that the installed torch exports is in the catalog, and is either really trained with or truly refused."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
import torch.nn.modules.loss
from torch import nn, optim
from torch.optim import lr_scheduler

from engine import catalog
from engine.catalog import REQUIRED, Entry
from engine.parts.optimizers import build_optimizer

# What torch itself says that it exports, and whatever else looks like it.
OPTIMIZERS = {name for name in optim.__all__ if inspect.isclass(getattr(optim, name))} | {
    name
    for name in dir(optim)
    if name[0] != "_" and isinstance(value := getattr(optim, name), type) and issubclass(value, optim.Optimizer)
}
LOSSES = {name for name in dir(nn) if name.endswith("Loss")} | set(torch.nn.modules.loss.__all__)
SCHEDULERS = set(lr_scheduler.__all__) | {
    name for name in dir(lr_scheduler) if name[0] != "_" and name.endswith(("LR", "Scheduler", "Restarts", "OnPlateau"))
}
ABSTRACT = {"Optimizer", "LRScheduler"}

# A value for every argument that has no default. A class that is new in torch and needs another one fails the walk.
NEEDED = {
    ("StepLR", "step_size"): 2,
    ("MultiStepLR", "milestones"): [1, 3],
    ("ExponentialLR", "gamma"): 0.5,
    ("CosineAnnealingWarmRestarts", "T_0"): 2,
    ("CyclicLR", "base_lr"): 0.01,
    ("CyclicLR", "max_lr"): 0.1,
}
PLAN = {"epochs": 6, "total_steps": 6, "lr": 0.1}


def defaults(entry: Entry) -> dict[str, Any]:
    """The arguments that a fresh form holds, with what a person must add."""
    values: dict[str, Any] = {field.key: field.default for field in entry.fields if field.default is not None}
    for key, value in values.items():
        if value is REQUIRED:
            assert (entry.name, key) in NEEDED, f"{entry.name}.{key} has no default and this test knows no value for it"
            values[key] = NEEDED[entry.name, key]
    return {**values, **{key: PLAN[source] for key, source in entry.derived.items()}}


def names(kind: str) -> set[str]:
    return {entry.name for entry in catalog.entries(kind)}


def test_nothing_that_torch_exports_is_missing() -> None:
    assert names("optimizer") == OPTIMIZERS - ABSTRACT
    assert names("loss") == LOSSES | {"auto"}
    assert names("scheduler") == SCHEDULERS - ABSTRACT | {"constant", "chain"}


class Net(nn.Module):
    """An embedding, a hidden layer and an output layer: something for every optimizer."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4, sparse=sparse)
        self.hidden = nn.Linear(4, 3)
        self.head = nn.Linear(3, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.hidden(self.embedding(tokens))))


def net(sparse: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(sparse)


def step(model: nn.Module, optimizer: optim.Optimizer) -> float:
    losses = []

    def closure() -> torch.Tensor:
        loss = nn.functional.mse_loss(model(torch.arange(5)), torch.zeros(5, 3))
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        return loss

    optimizer.step(closure)
    return losses[0]


@pytest.mark.parametrize("name", sorted(OPTIMIZERS - ABSTRACT))
def test_b11_every_optimizer_trains(name: str) -> None:
    entry, model = catalog.find("optimizer", name), net(sparse=name == "SparseAdam")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    assert not entry.refusal
    optimizer = build_optimizer(entry, defaults(entry), model)
    losses = [step(model, optimizer) for _ in range(3)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def targets(task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """An output of 8 samples in the range that the task's losses take, and a target."""
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    return {
        "classification": (logits, torch.arange(8) % 3),
        "regression": (logits, torch.ones(8, 3)),
        "text": (logits.reshape(2, 3, 4), torch.arange(8).reshape(2, 4) % 3),
        "reconstruction": (logits, logits.sigmoid()),
        "labels": (logits.sigmoid(), (torch.arange(24).reshape(8, 3) % 2).float()),
        "distribution": (logits.log_softmax(1), torch.full((8, 3), 1 / 3)),
    }[task]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_fits_its_tasks_or_is_truly_refused(name: str) -> None:
    entry = catalog.find("loss", name)
    if entry.refusal:
        assert entry.refusal.startswith(name)
        assert catalog.fitting("loss")[1][name] == entry.refusal
        assert truly_impossible(entry)
        return
    assert entry.tasks, f"{name} is new in torch: say in the catalog what it is for"
    loss = entry.build(defaults(entry))
    assert not list(loss.parameters())
    for task in entry.tasks:
        output, target = targets(task)
        if name == "MultiLabelMarginLoss":
            target = target.long()  # class numbers, one column a class
        output = output.detach().requires_grad_()
        value = loss(output, target)
        assert value.ndim == 0
        assert torch.isfinite(value)
        value.backward()
        assert output.grad is not None


def truly_impossible(entry: Entry) -> bool:
    """Whether the loss takes no (output, target), has weights that nobody would train, or is on its way out of torch."""
    cls = entry.target
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sizes = {"in_features": 3, "num_classes": 3, "n_classes": 3, "cutoffs": [1]}
        loss = cls(**{key: value for key, value in sizes.items() if key in inspect.signature(cls).parameters})
    if any(issubclass(warning.category, FutureWarning) for warning in caught):
        return True
    try:
        loss(*targets("classification"))
    except TypeError:
        return True
    return bool(list(loss.parameters()))


@pytest.mark.parametrize("task", ["classification", "regression", "text", "reconstruction"])
def test_a_loss_is_listed_for_every_task_that_data_have(task: str) -> None:
    fitting, others = catalog.fitting("loss", task)
    assert "auto" in fitting and len(fitting) >= 3 and set(fitting) | set(others) == names("loss")
    assert all(sentence.startswith(name) for name, sentence in others.items())
    for name in fitting:
        output, target = targets(task)
        assert catalog.find("loss", name).build({})(output, target).ndim == 0


@pytest.mark.parametrize("name", sorted(SCHEDULERS - ABSTRACT))
def test_scheduler_steps_or_is_truly_refused(name: str) -> None:
    entry, model = catalog.find("scheduler", name), net()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if entry.refusal:
        assert entry.refusal.startswith(name)
        needed = [key for key, value in inspect.signature(entry.target).parameters.items() if value.default is value.empty]
        for plain in (0.5, [0.5, 0.5], "x", {}):  # nothing that a file can hold makes a working one
            with pytest.raises((TypeError, AttributeError, ValueError, IndexError, KeyError)):
                built = entry.target(**{**dict.fromkeys(needed, plain), "optimizer": optimizer})
                step(model, optimizer)
                built.step()
        return
    scheduler = entry.build(defaults(entry), optimizer)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        step(model, optimizer)
        scheduler.step(*([1.0] if entry.unit == "plateau" else []))
    assert all(rate >= 0 for rate in rates)
    if entry.unit != "plateau":  # its patience is longer than this
        assert len({*rates, optimizer.param_groups[0]["lr"]}) > 1


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_every_entry_explains_itself(kind: str) -> None:
    for entry in catalog.entries(kind):
        assert entry.summary, f"{kind} {entry.name} has no summary"
        assert "\n" not in entry.summary
        if entry.refusal:
            continue
        for field in entry.fields:
            assert field.help, f"{kind} {entry.name}.{field.key} has no help"
            assert "\n" not in field.help and ":math:" not in field.help and "`" not in field.help
            if field.default is not REQUIRED:
                assert field.problem(kind, field.default) is None


def test_every_model_is_for_data_of_some_task() -> None:
    for entry in catalog.entries("model"):
        assert entry.tasks and {"input_shape", "output_size"} & set(entry.wants)
        assert not {"input_shape", "output_size", "vocabulary"} & {field.key for field in entry.fields}
