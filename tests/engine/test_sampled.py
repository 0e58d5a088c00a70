"""Steps that are looked at: the run is the same to the last bit, and what is found is what plain torch finds."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine import Message, Recipe, Sampled, Trainer
from engine.execution import sampled
from engine.execution.layers import ELEMENTS, Layers
from engine.execution.sampled import Sampler, worth_keeping
from engine.history import SAMPLES
from engine.loop import Loop
from engine.phases import a_step, phases
from engine.run import Journal
from tests.engine.plain import same
from tests.engine.small import some

Data = tuple[Tensor, Tensor]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look whenever anybody asks, which is at each epoch's end at least."""
    for name, value in {"STEPS": 1, "SECONDS": 0.0, "SHARE": math.inf, "SETTLE": 1}.items():
        monkeypatch.setattr(sampled, name, value)


def net(*, dropout: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 10))


def trained(data: Data, model: nn.Module, optimizer: Any, **plan: Any) -> tuple[Trainer, list[Sampled]]:
    plan = {"loss": nn.CrossEntropyLoss(), "epochs": 12, "device": "cpu", "execution": "eager", **plan}
    trainer = Trainer(model=model, optimizer=optimizer(model.parameters()), train=data, **plan)
    seen: list[Sampled] = []
    trainer.on(Sampled, seen.append)
    torch.manual_seed(1)
    assert trainer.fit().state == "finished"
    return trainer, seen


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "Adam": (adam, {}),
    "torch's own step": (lambda p: torch.optim.RMSprop(p, lr=1e-3), {}),
    "accumulation and clipping": (adam, {"accumulate": 3, "clip_norm": 0.5, "clip_value": 0.1}),
    "LBFGS": (lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3), {}),
    "fp16": (adam, {"precision": "fp16"}),
    "bf16": (adam, {"precision": "bf16"}),
    "bf16-pure": (adam, {"precision": "bf16-pure"}),
    "average": (adam, {"ema": 0.9, "non_finite": "skip"}),
    "compiled": (adam, {"execution": "compiled"}),
}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c == "compiled" else c for c in CASES])
def test_the_run_is_the_same_to_the_last_bit(case: str, digits: Data, often: None) -> None:
    optimizer, plan = CASES[case]
    data, runs = some(digits, 150), []
    for health in (True, False):
        trainer, seen = trained(data, net(), optimizer, **plan, health=health)
        runs.append(trainer)
        assert len(seen) >= 3 if health else not seen
        assert not [event for event in trainer.history.messages if event.level == "warning"]
    ours, plain = runs
    assert same(ours.parts.model.state_dict(), plain.parts.model.state_dict())
    assert list(ours.history.series["train/loss"]) == list(plain.history.series["train/loss"])


def test_norms_and_ratios_are_those_of_plain_torch(digits: Data) -> None:
    """The first look is at the fifth step; clipping comes after it, and the fp16 factor is taken out before."""
    batches = [(digits[0][i * 32 : i * 32 + 32], digits[1][i * 32 : i * 32 + 32]) for i in range(7)]
    for plan in ({}, {"clip_norm": 0.01}, {"precision": "fp16"}):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 24), nn.Tanh(), nn.LayerNorm(24), nn.Linear(24, 10))
        mine = copy.deepcopy(model)
        sgd = torch.optim.SGD(mine.parameters(), lr=0.1)
        for inputs, targets in batches[:5]:
            before = [p.detach().clone() for p in mine.parameters()]
            sgd.zero_grad()
            nn.functional.cross_entropy(mine(inputs), targets).backward()
            gradients = [p.grad.clone() for p in mine.parameters() if p.grad is not None]
            if "clip_norm" in plan:
                nn.utils.clip_grad_norm_(mine.parameters(), 0.01)
            sgd.step()
        changes = [p.detach() - old for p, old in zip(mine.parameters(), before, strict=True)]

        def norms(tensors: list[Tensor]) -> list[float]:
            return [float(torch.cat([t.flatten() for t in tensors[i : i + 2]]).norm()) for i in (0, 2, 4)]

        sgds = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
        _, (seen, *_) = trained(batches, model, sgds, epochs=1, **plan)  # type: ignore[arg-type]
        close = 2e-2 if "precision" in plan else 1e-3
        assert seen.layers == ("0", "2", "3") and seen.kinds == ("Linear", "LayerNorm", "Linear")
        assert seen.sizes == (64 * 24 + 24, 48, 250)
        assert seen.gradient == pytest.approx(norms(gradients), rel=close)
        assert seen.weight == pytest.approx(norms(before), rel=close)
        ratios = [change / weight for change, weight in zip(norms(changes), norms(before), strict=True)]
        assert seen.ratio == pytest.approx(ratios, rel=close)
        assert math.isnan(seen.silent[1]) and seen.silent[0] == seen.silent[2] == 0.0


def test_units_without_any_gradient_are_counted(digits: Data, often: None) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([-1e6] * 6 + [1.0] * 2))  # six are never above zero
    model[4].bias.requires_grad_(False)
    _, seen = trained(some(digits, 64), model, adam, epochs=4)
    assert seen[-1].silent == (0.75, 0.0)


def test_a_large_parameter_is_compared_in_part(often: None) -> None:
    torch.manual_seed(0)
    model = nn.Linear(1000, 300)
    assert model.weight.numel() > 4 * ELEMENTS
    layers = Layers(model)
    layers.gradients([torch.ones_like(p) for p in model.parameters()])
    layers.before()
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    layers.after()
    change = torch.cat([(p.detach() - old).flatten() for p, old in zip(model.parameters(), before, strict=True)]).norm()
    weight = torch.cat([old.flatten() for old in before]).norm()
    assert layers.read()["ratio"][0] == pytest.approx(float(change / weight), rel=0.02)


def test_phases_are_where_the_time_goes(clock: Any) -> None:
    class Late(torch.autograd.Function):
        """Takes its time on the way back."""

        @staticmethod
        def forward(ctx: Any, inputs: Tensor) -> Tensor:
            return inputs.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            clock.sleep(0.03)
            return gradient

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            clock.sleep(0.01)
            return Late.apply(self.layer(inputs))  # type: ignore[no-any-return]

    def loss(output: Tensor, targets: Tensor) -> Tensor:
        clock.sleep(0.005)
        return (output - targets).square().mean()

    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            clock.sleep(0.02)
            super().step(closure)

    class Loader:
        def __len__(self) -> int:
            return 8

        def __iter__(self) -> Any:
            for _ in range(8):
                clock.sleep(0.015)
                yield torch.randn(3, 4), torch.randn(3, 2)

    trainer, seen = trained(Loader(), Slow(), lambda p: Optimizer(p, lr=0.1), loss=loss, epochs=1, validation=Loader())  # type: ignore[arg-type]
    assert len(seen) == 1 and not seen[0].whole
    found = seen[0].seconds
    asked = {"data": 0.015, "forward": 0.01, "loss": 0.005, "backward": 0.03, "step": 0.02}
    assert {name: found[name] for name in asked} == pytest.approx(asked)
    parts = sum(seconds for name, seconds in found.items() if name not in ("validation", "other"))
    assert found["other"] == pytest.approx(max(0.0, seen[0].each - parts), abs=1e-6)  # so they add up to the step
    assert sum(phase.share for phase in phases(trainer.history.samples)) == pytest.approx(1.0)
    assert a_step(trainer.history.samples) == pytest.approx(parts + found["other"])


def test_beside_a_compiled_step_nothing_is_left_behind() -> None:
    torch.manual_seed(0)
    model, plain = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loop = Loop(model=model, module=model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, count=torch.numel)
    inputs, targets = torch.randn(32, 64), torch.randint(10, (32,))
    whole: Any = SimpleNamespace(active=True, latest=[(inputs, targets)])
    sampler = Sampler(loop, whole, torch.device("cpu"), pytest.fail)
    assert sampler.halt == math.inf
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    pace: Any = SimpleNamespace(train_seconds=1.0, train_steps=10, waited_seconds=0.1, validating_seconds=0.0, elapsed=2.0)
    assert sampler.report(20, pace) is None and sampler.halt == 21  # a single step, to see what it changes
    assert loop.sampled is None and same(model.state_dict(), state) and torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    seen = sampler.report(21, pace)
    assert seen is not None and seen.whole and sampler.halt == math.inf
    assert seen.seconds == pytest.approx({"data": 0.01, "step": 0.09}) and seen.ratio == pytest.approx([0.5] * 3, rel=1e-3)
    nn.functional.cross_entropy(plain(inputs), targets).backward()  # the same draws of dropout
    assert seen.gradient[2] == pytest.approx(
        float(torch.cat([p.grad.flatten() for p in plain[4].parameters() if p.grad is not None]).norm()), rel=1e-3
    )
    assert [phase.words for phase in phases([seen])][-1] == "forward, backward, update: one graph"


def test_memory_and_journal_are_bounded(digits: Data, often: None, tmp_path: Path) -> None:
    trainer, seen = trained(some(digits, 40), net(), adam, epochs=100, run_dir=tmp_path / "run")
    assert len(seen) > 2 * SAMPLES and len(trainer.history.samples) == SAMPLES
    kept = [event for event in Journal.read(tmp_path / "run" / "journal.jsonl")[0] if isinstance(event, Sampled)]
    assert [event.time for event in kept] == [event.time for event in seen if event.kept] and len(kept) < len(seen)


def test_ten_hours_keep_some_hundred_and_fifty() -> None:
    last, kept = -1.0, 0
    for tenth in range(360_000):
        if worth_keeping(tenth / 10, last):
            last, kept = tenth / 10, kept + 1
    assert 100 < kept <= 200


@pytest.mark.parametrize("cost", [0, 1])
def test_it_is_asked_for_seldom(cost: int, digits: Data, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one step in 16, and not more than a hundredth of the time. A look costs as much as so many steps."""
    look = Layers.look

    class Optimizer(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            clock.sleep(1.0)
            super().step(closure)

    monkeypatch.setattr(Layers, "look", lambda self: clock.sleep(cost) or look(self))
    _, seen = trained(some(digits, 320), net(), lambda p: Optimizer(p, lr=0.1), epochs=30)
    assert len(seen) >= 3 and {event.cost for event in seen} == {cost}
    assert all(other.step - one.step >= max(16, 100 * cost) for one, other in pairwise(seen))


def test_a_look_that_fails_ends_nothing(digits: Data, often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Layers, "look", lambda self: 1 / 0)
    trainer, seen = trained(some(digits, 64), net(), adam)
    assert seen and all(not event.layers and event.seconds for event in seen)
    said = [event for event in trainer.history.messages if isinstance(event, Message) and "left out" in event.text]
    assert len(said) == 1 and "ZeroDivisionError" in said[0].text


def test_the_recipe_says_whether(tmp_path: Path) -> None:
    for health in (True, False):
        recipe = Recipe().replace(**{"training.health": health, "training.epochs": 1})
        trainer = Trainer.from_recipe(recipe, runs=None)
        trainer.fit()
        assert bool(trainer.history.samples) is health
