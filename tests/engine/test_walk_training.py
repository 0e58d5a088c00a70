"""Every optimizer, loss and scheduler of the catalog trains exactly as in a loop written by hand: same losses, same bits.

The names come from torch itself, through the catalog, so that a class which is new in torch is walked as well.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from engine import Recipe, Trained, Trainer, catalog
from engine.data.order import order
from tests.engine import plain

EPOCHS, BATCH, SEED, RATE = 2, 8, 4, 0.01

# The data and the model as a person would bring them; the twin is made from the same file.
OWN = '''
import torch
from torch import nn

from engine.data.samples import Samples

generator = torch.Generator().manual_seed(2)
inputs = torch.randn(26, 4, generator=generator)
shares = torch.randn(26, 3, generator=generator)


def classification(): return inputs, torch.arange(26) % 3
def regression(): return inputs, shares
def labels(): return inputs, (shares > 0).float()
def signs(): return inputs, (shares > 0).float() * 2 - 1
def numbered(): return inputs, torch.arange(78).reshape(26, 3) % 3
def distribution(): return inputs, shares.softmax(1)
def reconstruction(): return Samples(inputs=inputs, targets=inputs, task="reconstruction")
def text():
    tokens = torch.arange(26 * 6).reshape(26, 6) * 7 % 5
    return Samples(inputs=tokens[:, :-1], targets=tokens[:, 1:], task="text", classes=tuple("abcde"))


class Net(nn.Module):
    """Two layers with dropout between them, and an end that a loss may need."""

    def __init__(self, output_size: int, end: str = "Identity", width: int = 4):
        super().__init__()
        last = {"dim": 1} if end == "LogSoftmax" else {}
        self.layers = nn.Sequential(
            nn.Linear(width, 5), nn.Tanh(), nn.Dropout(0.2), nn.Linear(5, output_size), getattr(nn, end)(**last)
        )

    def forward(self, x):
        return self.layers(x)


class Letters(nn.Module):
    """Logits (B, C, T) for tokens (B, T)."""

    def __init__(self, output_size: int):
        super().__init__()
        self.embedding, self.head = nn.Embedding(output_size, 4), nn.Linear(4, output_size)

    def forward(self, tokens):
        return self.head(self.embedding(tokens)).transpose(1, 2)


class Looked(nn.Module):
    """An embedding with sparse gradients, and a layer with dense ones."""

    def __init__(self, output_size: int):
        super().__init__()
        self.table, self.head = nn.Embedding(8, 4, sparse=True), nn.Linear(4, output_size)

    def forward(self, tokens):
        return self.head(self.table(tokens.squeeze(1)))


def tokens(): return torch.arange(26) % 8, torch.arange(26) % 3
'''

ENDS = {"NLLLoss": "LogSoftmax", "KLDivLoss": "LogSoftmax", "BCELoss": "Sigmoid"}  # what the loss wants of an output
SIGNED = {"HingeEmbeddingLoss": "signs", "SoftMarginLoss": "signs", "MultiLabelMarginLoss": "numbered"}
NEEDED: dict[str, dict[str, Any]] = {  # a value for every argument without a default
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1, 3]},
    "ExponentialLR": {"gamma": 0.5},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
}


@pytest.fixture(autouse=True)
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file with the parts as a module of the test's own; recipes name it "parts.py:…"."""
    monkeypatch.chdir(tmp_path)
    Path("parts.py").write_text(OWN)
    spec = importlib.util.spec_from_file_location("twin_parts", "parts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "walk",
        "seed": SEED,
        "data": {"name": "parts.py:classification", "batch_size": BATCH, "validation": 0.25, "standardize": False},
        "model": {"name": "parts.py:Net"},
        "loss": {"name": "CrossEntropyLoss"},
        "optimizer": {"name": "SGD", "lr": RATE},
        "training": {"epochs": EPOCHS, "device": "cpu", "execution": "eager"},
    }
    for kind, given in changes.items():
        values[kind] = {**(values.get(kind, {}) if "name" not in given else {}), **given}
    values["data"] |= {"batch_size": BATCH, "validation": 0.25, "standardize": False}
    return Recipe.from_dict(values)


def trained(given: Recipe) -> tuple[Trainer, list[float], list[float], list[dict[str, float]]]:
    """The trainer, the loss and the learning rate of each step, and the epochs' rows."""
    trainer = Trainer.from_recipe(given, runs=None)
    losses: list[float] = []
    rates: list[float] = []
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    trainer.on(Trained, lambda event: rates.extend(event.lr))
    result = trainer.fit()
    assert result.state == "finished", result.reason
    return trainer, losses, rates, result.history


def by_hand(
    trainer: Trainer,
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    optimizers: list[torch.optim.Optimizer],
    *,
    each_step: Callable[[], None] = lambda: None,
    each_epoch: Callable[[float], None] = lambda _: None,
    before_step: Callable[[int], None] = lambda _: None,
) -> list[float]:
    """The tutorial's loop over the same samples: the loss of each step."""
    data: Any = trainer.parts.train
    held: Any = trainer.parts.validation
    losses: list[float] = []
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for indices in order(len(data.inputs), SEED, epoch, True).split(BATCH):
            inputs, targets = data.inputs[indices], data.targets[indices]

            def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss = loss_fn(model(inputs), targets)
                loss.backward()
                return loss

            before_step(len(losses))
            if needs_closure(type(optimizers[0])):
                losses.append(float(optimizers[0].step(closure)))  # type: ignore[arg-type]  # the loss, as torch returns it
            else:
                losses.append(closure().item())
                for optimizer in optimizers:
                    optimizer.step()
            each_step()
        model.eval()
        with torch.no_grad():
            total = sum(
                loss_fn(model(x), y).item() * len(y)
                for x, y in zip(held.inputs.split(BATCH), held.targets.split(BATCH), strict=True)
            )
        each_epoch(total / len(held.inputs))
    return losses


def needs_closure(optimizer: type) -> bool:
    step = list(inspect.signature(optimizer.step).parameters.values())  # type: ignore[attr-defined]
    return any(item.name == "closure" and item.default is item.empty for item in step)


def twin(parts: Any, name: str, *arguments: Any) -> nn.Module:
    torch.manual_seed(SEED)
    model: nn.Module = getattr(parts, name)(*arguments)
    return model


def assert_same(trainer: Trainer, losses: list[float], model: nn.Module, expected: list[float]) -> None:
    assert len(losses) == len(expected) == EPOCHS * 3
    assert losses == expected
    assert plain.same(trainer.parts.model.state_dict(), model.state_dict())


# Optimizers.


def muon(model: Any) -> list[torch.optim.Optimizer]:
    """As its author advises: hidden matrices by Muon, biases and the output layer by AdamW, in the same step."""
    first, last = model.layers[0], model.layers[3]
    others = [first.bias, last.weight, last.bias]
    return [torch.optim.Muon([first.weight], lr=RATE), torch.optim.AdamW(others, lr=2 * RATE)]


def sparse_adam(model: Any) -> list[torch.optim.Optimizer]:
    """The embedding by SparseAdam, what has dense gradients by Adam."""
    return [torch.optim.SparseAdam([model.table.weight], lr=RATE), torch.optim.Adam(model.head.parameters(), lr=2 * RATE)]


BY_HAND = {"Muon": muon, "SparseAdam": sparse_adam}
MORE = {name: {"adam_lr": 2 * RATE} for name in BY_HAND}
MODELS = {"SparseAdam": ("tokens", "Looked")}  # what they are for


@pytest.mark.parametrize("name", catalog.names("optimizer"))
def test_every_optimizer_trains_as_in_the_loop_by_hand(name: str, parts: Any) -> None:
    load, net = MODELS.get(name, ("classification", "Net"))
    trainer, losses, _, _ = trained(
        recipe(
            data={"name": f"parts.py:{load}"},
            model={"name": f"parts.py:{net}"},
            optimizer={"name": name, "lr": RATE, **MORE.get(name, {})},
        )
    )
    model = twin(parts, net, 3)
    make = BY_HAND.get(name, lambda model: [getattr(torch.optim, name)(model.parameters(), lr=RATE)])
    assert_same(trainer, losses, model, by_hand(trainer, model, nn.CrossEntropyLoss(), make(model)))
    assert not plain.same(model.state_dict(), twin(parts, net, 3).state_dict())


# Losses.

FITTING = [(entry.name, task) for entry in catalog.entries("loss") if not entry.refusal for task in entry.tasks]


@pytest.mark.parametrize(("name", "task"), FITTING)
def test_every_loss_trains_as_in_the_loop_by_hand(name: str, task: str, parts: Any) -> None:
    load = SIGNED.get(name, task)
    net, size = ("Letters", 5) if task == "text" else ("Net", 4 if task == "reconstruction" else 3)
    end = ENDS.get(name, "Identity")
    if net == "Letters" and end != "Identity":
        pytest.skip("logits of letters have no log-softmax in front here")
    arguments = {} if net == "Letters" else {"end": end}
    trainer, losses, _, _ = trained(
        recipe(data={"name": f"parts.py:{load}"}, model={"name": f"parts.py:{net}", **arguments}, loss={"name": name})
    )
    model = twin(parts, net, size, *arguments.values())
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    expected = by_hand(trainer, model, getattr(nn, name)(), [optimizer])
    assert all(map(math.isfinite, expected))
    assert_same(trainer, losses, model, expected)


@pytest.mark.parametrize("task", ["classification", "regression", "text", "reconstruction"])
def test_each_kind_of_data_has_losses(task: str) -> None:
    assert sum(fits == task for _, fits in FITTING) >= 2


# Schedulers.


def units(name: str) -> list[str]:
    unit = catalog.find("scheduler", name).unit
    return ["plateau"] if unit == "plateau" else ["epoch", "step"]


SCHEDULES = [(name, unit) for name in catalog.names("scheduler") if hasattr(lr_scheduler, name) for unit in units(name)]
OPTIMIZER = {"name": "SGD", "lr": RATE, "momentum": 0.9}  # with momentum, which OneCycleLR and CyclicLR move as well


def schedule(name: str, optimizer: torch.optim.Optimizer, length: int) -> Any:
    """torch's scheduler; what follows from the plan is put in as a person would."""
    lengths = {"CosineAnnealingLR": {"T_max": length}, "PolynomialLR": {"total_iters": length}}
    lengths["OneCycleLR"] = {"max_lr": RATE, "total_steps": length}
    return getattr(lr_scheduler, name)(optimizer, **NEEDED.get(name, {}), **lengths.get(name, {}))


@pytest.mark.parametrize(("name", "unit"), SCHEDULES)
def test_every_scheduler_moves_as_in_the_loop_by_hand(name: str, unit: str, parts: Any) -> None:
    given = {"name": name, **NEEDED.get(name, {}), **({} if unit == "plateau" else {"unit": unit})}
    trainer, losses, rates, _ = trained(recipe(optimizer=OPTIMIZER, scheduler=given))
    model = twin(parts, "Net", 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    scheduler = schedule(name, optimizer, EPOCHS * 3 if unit == "step" else EPOCHS)
    used: list[float] = []
    expected = by_hand(
        trainer,
        model,
        nn.CrossEntropyLoss(),
        [optimizer],
        before_step=lambda _: used.append(optimizer.param_groups[0]["lr"]),
        each_step=scheduler.step if unit == "step" else lambda: None,
        each_epoch={"plateau": scheduler.step, "epoch": lambda _: scheduler.step(), "step": lambda _: None}[unit],
    )
    assert rates == used
    assert_same(trainer, losses, model, expected)


def alone(name: str, length: int) -> list[float]:
    """The learning rates of a scheduler on its own over `length` units."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=RATE, momentum=0.9)
    scheduler = schedule(name, optimizer, length)
    rates = []
    for _ in range(length):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def assert_moved_by(rates: list[float], name: str, trainer: Trainer, losses: list[float], parts: Any) -> None:
    """The same run by hand, with these learning rates set in front of each step."""
    model = twin(parts, "Net", 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)

    def move(step: int) -> None:
        optimizer.param_groups[0]["lr"] = rates[step]

    if name not in ("OneCycleLR", "CyclicLR"):  # these move the momentum as well
        assert_same(trainer, losses, model, by_hand(trainer, model, nn.CrossEntropyLoss(), [optimizer], before_step=move))


def takes_warm_up(name: str) -> bool:
    """OneCycleLR has a warm-up of its own."""
    return any(field.key == "warmup" for field in catalog.find("scheduler", name).fields)


COUNTING = [(name, unit) for name, unit in SCHEDULES if unit != "plateau"]


@pytest.mark.parametrize(("name", "unit"), [each for each in COUNTING if takes_warm_up(each[0])])
def test_every_scheduler_takes_a_warm_up_in_front(name: str, unit: str, parts: Any) -> None:
    """A line of `warmup` units from its start to the whole rate; then the scheduler, as if it began there."""
    warmup, start, each = (2, 0.1, 1) if unit == "step" else (1, 0.1, 3)
    given = {"name": name, **NEEDED.get(name, {}), "unit": unit, "warmup": warmup, "warmup_start": start}
    trainer, losses, rates, _ = trained(recipe(optimizer=OPTIMIZER, scheduler=given))
    line = [RATE * (start + (1 - start) * unit / warmup) for unit in range(warmup)]
    wanted = [rate for rate in line + alone(name, EPOCHS * 3 // each - warmup) for _ in range(each)]
    assert rates == pytest.approx(wanted, rel=1e-12)
    assert_moved_by(rates, name, trainer, losses, parts)


@pytest.mark.parametrize("name", [name for name, unit in COUNTING if unit == "step"])
def test_every_scheduler_follows_another_in_a_chain(name: str, parts: Any) -> None:
    chain = [{"name": "ConstantLR", "factor": 0.25, "length": 2}, {"name": name, **NEEDED.get(name, {})}]
    given = {"name": "chain", "unit": "step", "chain": chain}
    trainer, losses, rates, _ = trained(recipe(optimizer=OPTIMIZER, scheduler=given))
    assert rates == pytest.approx([RATE / 4, RATE / 4, *alone(name, EPOCHS * 3 - 2)], rel=1e-12)
    assert_moved_by(rates, name, trainer, losses, parts)
