"""The optimizers of recipes: each trains, in groups and in pairs, and goes on bit for bit from its state."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from engine import catalog
from engine.errors import RecipeError
from engine.parts.optimizers import Pair, build_optimizer
from engine.parts.state_dicts import load_optimizer, pack_optimizer

NAMES = [entry.name for entry in catalog.entries("optimizer")]


class Net(nn.Module):
    """A net with an embedding, a normalized hidden layer, a frozen and an unused parameter."""

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4, sparse=sparse)
        self.body = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.unused = nn.Linear(2, 2)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.frozen(self.norm(self.body(self.embedding(tokens)))))


def made(name: str, **arguments: Any) -> tuple[Net, optim.Optimizer]:
    torch.manual_seed(0)
    model = Net(sparse=name == "SparseAdam")
    return model, build_optimizer(catalog.find("optimizer", name), arguments, model)


def step(model: nn.Module, optimizer: optim.Optimizer, seed: int = 0) -> float:
    tokens = torch.randint(5, (8,), generator=torch.Generator().manual_seed(seed))
    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens), tokens % 3)
        loss.backward()
        losses.append(loss.item())
        return loss

    if catalog.find("optimizer", type(optimizer).__name__).closure if not isinstance(optimizer, Pair) else False:
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()
    return losses[0]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def names_in(model: nn.Module, group: dict[str, Any]) -> list[str]:
    return [name for name, value in model.named_parameters() if any(value is other for other in group["params"])]


@pytest.mark.parametrize("name", NAMES)
def test_b6_b7_b11_trains_and_leaves_unused_and_frozen_parameters(name: str) -> None:
    decay = (
        {"weight_decay": 0.1} if any(field.key == "weight_decay" for field in catalog.find("optimizer", name).fields) else {}
    )
    model, optimizer = made(name, **decay)
    before = weights(model)
    losses = [step(model, optimizer) for _ in range(4)]
    assert losses[-1] < losses[0]
    after = weights(model)
    still = {key for key in before if torch.equal(before[key], after[key])}
    assert still == {"unused.weight", "unused.bias", "frozen.weight", "frozen.bias"}


@pytest.mark.parametrize("name", NAMES)
def test_b9_a_packed_state_goes_on_bit_for_bit(name: str) -> None:
    model, optimizer = made(name)
    for i in range(3):
        step(model, optimizer, i)
    tensors: dict[str, Tensor] = {}
    packed = copy.deepcopy(pack_optimizer(optimizer, model, tensors))
    tensors = {key: value.clone() for key, value in tensors.items()}
    fresh, again = made(name)
    fresh.load_state_dict(weights(model))
    load_optimizer(again, fresh, packed, tensors)
    for i in range(3, 6):
        assert step(model, optimizer, i) == step(fresh, again, i)
    assert same(weights(model), weights(fresh))


@pytest.mark.parametrize("name", [name for name in NAMES if not catalog.find("optimizer", name).partner])
def test_without_groups_it_is_torchs_own(name: str) -> None:
    model, optimizer = made(name)
    plain, _ = made(name)
    field_values = catalog.find("optimizer", name)
    own = field_values.target([p for p in plain.parameters() if p.requires_grad], **({"lr": 1e-3} if name == "SGD" else {}))
    for i in range(3):
        assert step(model, optimizer, i) == step(plain, own, i)
    assert same(weights(model), weights(plain))


# Pairs.


def test_b10_muon_and_adamw_in_the_same_run() -> None:
    model, optimizer = made("Muon", lr=0.02, adam_lr=0.003, adam_weight_decay=0.2)
    assert isinstance(optimizer, Pair)
    muon, adam = optimizer.members
    assert type(muon) is optim.Muon and type(adam) is optim.AdamW
    assert names_in(model, muon.param_groups[0]) == ["body.weight", "unused.weight"]
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["weight_decay"], muon.param_groups[0]["lr"]) == (0.003, 0.2, 0.02)

    plain, _ = made("Muon")
    hidden = [plain.body.weight, plain.unused.weight]
    rest = [p for p in plain.parameters() if p.requires_grad and not any(p is other for other in hidden)]
    both = optim.Muon(hidden, lr=0.02), optim.AdamW(rest, lr=0.003, weight_decay=0.2)
    for i in range(4):
        step(model, optimizer, i)
        tokens = torch.randint(5, (8,), generator=torch.Generator().manual_seed(i))
        plain.zero_grad()
        nn.functional.cross_entropy(plain(tokens), tokens % 3).backward()
        for one in both:
            one.step()
    assert same(weights(model), weights(plain))


def test_b10_the_form_says_who_takes_what() -> None:
    (field,) = (field for field in catalog.find("optimizer", "Muon").fields if field.key == "adam_lr")
    assert field.help == "learning rate, for what Muon does not take: embeddings, the output layer and all that is no matrix"
    assert catalog.find("optimizer", "torch.optim:Muon").partner == "AdamW"


def test_b11_sparse_adam_and_adam_in_the_same_run() -> None:
    model, optimizer = made("SparseAdam", adam_lr=0.01)
    assert isinstance(optimizer, Pair)
    assert [type(member) for member in optimizer.members] == [optim.SparseAdam, optim.Adam]
    assert names_in(model, optimizer.param_groups[0]) == ["embedding.weight"]
    assert optimizer.param_groups[1]["lr"] == 0.01


def test_a_pair_shares_groups_and_state_with_its_members() -> None:
    model, optimizer = made("Muon")
    assert isinstance(optimizer, Pair)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    step(model, optimizer)
    scheduler.step()
    assert [member.param_groups[0]["lr"] for member in optimizer.members] == [0.0005, 0.0005]
    assert set(optimizer.state) == {p for p in model.parameters() if p.grad is not None}
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.param_groups[-1]["lr"] = 0.25
    assert optimizer.members[1].param_groups[-1]["lr"] == 0.25
    assert optimizer.members[0].state is optimizer.state is optimizer.members[1].state


def test_a_copied_pair_trains_the_copied_model() -> None:
    model, optimizer = made("Muon")
    step(model, optimizer)
    before = weights(model)
    other, twin = copy.deepcopy((model, optimizer))
    step(other, twin, 1)
    assert same(weights(model), before)
    step(model, optimizer, 1)
    assert same(weights(model), weights(other))


def test_a_pair_calls_step_hooks_and_closures() -> None:
    model, optimizer = made("Muon")
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    step(model, optimizer)
    assert seen == ["before", "after"]

    def closure() -> Tensor:
        loss = model.head.weight.square().sum()
        loss.backward()
        return loss

    before = model.head.weight.square().sum().item()
    assert optimizer.step(closure).item() == before
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_muon_leaves_tied_and_learned_positions_to_adamw() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(5, 4)
            self.positions = nn.Parameter(torch.zeros(3, 4))
            self.body = nn.Linear(4, 4, bias=False)
            self.convolution = nn.Conv2d(1, 1, 2, bias=False)
            self.head = nn.Linear(4, 5, bias=False)
            self.head.weight = self.tokens.weight

    model = Tied()
    optimizer = build_optimizer(catalog.find("optimizer", "Muon"), {}, model)
    assert isinstance(optimizer, Pair)
    assert names_in(model, optimizer.members[0].param_groups[0]) == ["body.weight"]


@pytest.mark.parametrize(
    ("name", "model", "words"),
    [
        ("Muon", nn.Linear(4, 3), "takes the two-dimensional parameters of hidden layers .* this model has none; use AdamW"),
        ("SparseAdam", nn.Linear(4, 3), "takes the parameters of embeddings made with sparse=True, and this model has none"),
        ("Adam", nn.Embedding(4, 3, sparse=True), "can't take the sparse gradients .* use SparseAdam"),
        ("Rprop", nn.Embedding(4, 3, sparse=True), "can't take the sparse gradients"),
        ("SGD", nn.ReLU(), "without a parameter that could be trained"),
        ("SGD", nn.Linear(2, 2).requires_grad_(False), "without a parameter that could be trained"),
    ],
)
def test_b11_what_has_nothing_for_it_is_refused(name: str, model: nn.Module, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        build_optimizer(catalog.find("optimizer", name), {}, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "SparseAdam"])
def test_what_takes_sparse_gradients_may(name: str) -> None:
    model = nn.Embedding(4, 3, sparse=True)
    optimizer = build_optimizer(catalog.find("optimizer", name), {}, model)
    before = model.weight.clone()
    model(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert not torch.equal(model.weight, before)


# Groups.


def test_groups_by_pattern() -> None:
    model, optimizer = made(
        "AdamW",
        lr=0.1,
        weight_decay=0.5,
        groups=[{"pattern": "head.*", "lr": 0.01, "betas": [0.5, 0.6]}, {"pattern": "*.weight", "weight_decay": 0}],
    )
    rest, head, decayless = optimizer.param_groups
    assert names_in(model, head) == ["head.weight", "head.bias"]
    assert (head["lr"], head["weight_decay"], head["betas"]) == (0.01, 0.5, (0.5, 0.6))
    assert names_in(model, decayless) == ["embedding.weight", "body.weight", "norm.weight", "unused.weight"]
    assert (decayless["lr"], decayless["weight_decay"]) == (0.1, 0.0)
    assert names_in(model, rest) == ["body.bias", "norm.bias", "unused.bias"]
    assert step(model, optimizer) > step(model, optimizer)


def test_no_decay() -> None:
    model, optimizer = made("SGD", weight_decay=0.5, no_decay=True, groups=[{"pattern": "head.*", "lr": 0.01}])
    assert [(names_in(model, group), group["weight_decay"]) for group in optimizer.param_groups] == [
        (["embedding.weight", "body.weight", "unused.weight"], 0.5),
        (["body.bias", "norm.weight", "norm.bias", "unused.bias"], 0.0),
        (["head.weight"], 0.5),
        (["head.bias"], 0.0),
    ]
    model, optimizer = made("Muon", no_decay=True)
    assert isinstance(optimizer, Pair)
    _, decayed, undecayed = optimizer.param_groups
    assert names_in(model, decayed) == ["embedding.weight", "head.weight"]
    assert undecayed["weight_decay"] == 0 and "norm.weight" in names_in(model, undecayed)


def test_groups_reach_both_members_of_a_pair() -> None:
    model, optimizer = made("Muon", lr=0.1, adam_lr=0.2, groups=[{"pattern": "body.*", "lr": 0.03}])
    assert [(names_in(model, group), group["lr"]) for group in optimizer.param_groups] == [
        (["unused.weight"], 0.1),
        (["body.weight"], 0.03),
        (["embedding.weight", "norm.weight", "norm.bias", "unused.bias", "head.weight", "head.bias"], 0.2),
        (["body.bias"], 0.03),
    ]


@pytest.mark.parametrize("name", ["AdamW", "Muon"])
def test_b9_groups_are_packed_by_name(name: str) -> None:
    arguments = {"no_decay": True, "groups": [{"pattern": "head.*", "lr": 0.01}]}
    model, optimizer = made(name, **arguments)
    step(model, optimizer)
    tensors: dict[str, Tensor] = {}
    packed = pack_optimizer(optimizer, model, tensors)
    fresh, again = made(name, **arguments)
    fresh.load_state_dict(weights(model))
    load_optimizer(again, fresh, copy.deepcopy(packed), {key: value.clone() for key, value in tensors.items()})
    assert step(model, optimizer, 1) == step(fresh, again, 1)
    assert same(weights(model), weights(fresh))


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            [{"pattern": "haed.*"}],
            r"optimizer.groups\[0\].pattern is 'haed.\*', which fits the name of no parameter; the nearest is",
        ),
        ([{"pattern": "zzz"}], r"fits the name of no parameter; there are embedding.weight, .*, …"),
        ([{"pattern": "*"}, {"pattern": "head.*"}], r"groups\[1\].pattern is 'head.\*', which fits only .* an earlier group"),
        ([{"pattern": "frozen.*"}], "fits only parameters that are frozen"),
    ],
)
def test_patterns_that_decide_nothing(groups: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        made("SGD", groups=groups)


@pytest.mark.parametrize(
    ("optimizer", "field", "words"),
    [
        ({"name": "Adam", "groups": [{"lr": 0.1}]}, "optimizer.groups[0].pattern", "is missing"),
        ({"name": "Adam", "groups": [{"pattern": "*", "lrr": 1}]}, "optimizer.groups[0].lrr", "the nearest is 'lr'"),
        ({"name": "Adam", "groups": [{"pattern": "*"}, {"pattern": "*", "lr": "x"}]}, "optimizer.groups[1].lr", "a number"),
        ({"name": "Adam", "groups": [{"pattern": "*", "lr": -1}]}, "optimizer.groups[0].lr", "at least 0"),
        ({"name": "Adam", "groups": [{"pattern": "*", "betas": [2, 0.9]}]}, "optimizer.groups[0].betas", "Invalid beta"),
        ({"name": "Adam", "groups": ["head.*"]}, "optimizer.groups", "a list of tables"),
        ({"name": "Adam", "groups": {"pattern": "*"}}, "optimizer.groups", "a list of tables"),
        (
            {"name": "Muon", "groups": [{"pattern": "*", "momentum": 0.5}]},
            "optimizer.groups[0].momentum",
            "no field of a group",
        ),
        ({"name": "Rprop", "no_decay": True}, "optimizer.no_decay", "no field of Rprop"),
        ({"name": "LBFGS", "groups": []}, "optimizer.groups", "no field of LBFGS"),
        ({"name": "Muon", "adam_lr": -1}, "optimizer.adam_lr", "at least 0"),
        ({"name": "Muon", "adam_weight_decay": -1}, "optimizer.adam_weight_decay", "Invalid weight_decay"),
    ],
)
def test_mistakes_in_groups(optimizer: dict[str, Any], field: str, words: str) -> None:
    (problem,) = catalog.problems({"optimizer": optimizer})
    assert problem.field == field and words in problem.message and field in problem.message


def test_the_check_leaves_the_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    for name in NAMES:
        assert catalog.problems({"optimizer": {"name": name}}) == ()
    assert torch.equal(torch.get_rng_state(), before)


def test_which_optimizers_need_a_closure() -> None:
    assert [entry.name for entry in catalog.entries("optimizer") if entry.closure] == ["LBFGS"]


# Other people's.

THIRD = '''
import torch

class Signs(torch.optim.Optimizer):
    """Steps by the sign of the gradient.

    Args:
        lr: how far
        groups: its own idea of groups
    """
    def __init__(self, params, lr: float = 0.5, groups: int = 3, nesterov: bool = False):
        super().__init__(params, {"lr": lr, "groups": groups})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * p.grad.sign()
'''


def test_third_party_optimizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "signs_package").mkdir()
    (tmp_path / "signs_package" / "__init__.py").touch()
    (tmp_path / "signs_package" / "optim.py").write_text(THIRD)
    entry = catalog.find("optimizer", "signs_package.optim:Signs")
    assert [field.key for field in entry.fields] == ["lr", "groups", "nesterov"]
    assert entry.extras == () and not entry.closure
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(entry, {"lr": 0.25, "groups": 4}, model)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["groups"]) == (0.25, 4)
    values = {"optimizer": {"name": "signs_package.optim:Signs", "lr": "x"}}
    assert [problem.field for problem in catalog.problems(values)] == ["optimizer.lr"]
    for module in ("signs_package.optim", "signs_package"):
        sys.modules.pop(module, None)
