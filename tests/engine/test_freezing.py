"""Fine-tuning: what is frozen stays, what is not is trained as by the loop written by hand, on both sides of the boundary."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine import Recipe, RecipeError, Trainer
from engine.assemble import assemble
from engine.dry_run import dry_run
from engine.parts.weights import load_weights
from engine.sweep import expand
from engine.sweep.stack import Stack
from tests.engine import plain
from tests.engine.small import some

Data = tuple[Tensor, Tensor]
BODY = ["0.*", "1.*"]


def net() -> nn.Sequential:
    """A body with batch normalization and dropout, and a head."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 10))


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("epochs", [None, 2])
def test_to_the_last_bit_the_loop_written_by_hand(name: str, epochs: int | None, digits: Data) -> None:
    data, optimizer = some(digits, 300), OPTIMIZERS[name]
    ours, theirs = net(), net()
    began = copy.deepcopy(ours.state_dict())
    torch.manual_seed(1)
    options: dict[str, Any] = {"epochs": 4, "seed": 3, "device": "cpu", "freeze": BODY, "freeze_epochs": epochs}
    loss = nn.CrossEntropyLoss()
    Trainer(model=ours, loss=loss, optimizer=optimizer(ours), train=data, execution="eager", **options).fit()

    theirs[0].requires_grad_(False)
    theirs[1].requires_grad_(False)
    passed = 0

    def each_epoch() -> None:
        nonlocal passed
        passed += 1
        if passed == epochs:
            theirs.requires_grad_(True)

    call = theirs.forward

    def forward(inputs: Tensor) -> Tensor:
        if theirs.training:
            theirs[1].train(theirs[0].weight.requires_grad)
        return call(inputs)

    theirs.forward = forward  # type: ignore[method-assign]
    torch.manual_seed(1)
    plain.train(theirs, loss, optimizer(theirs), data, epochs=4, seed=3, each_epoch=each_epoch)
    assert plain.same(ours.state_dict(), theirs.state_dict())
    still = {key for key in began if torch.equal(began[key], ours.state_dict()[key])}
    body = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert still == (body if epochs is None else set())


RECIPE: dict[str, Any] = {
    "data": {"name": "iris", "batch_size": 40},
    "model": {"name": "mlp", "hidden": [8, 6], "batch_norm": True, "dropout": 0.2},
    "optimizer": {"name": "Adam", "groups": [{"pattern": "layers.1.*", "lr": 1e-4}]},
    "training": {"epochs": 4, "device": "cpu", "freeze": ["layers.[126].*"], "freeze_epochs": 2},
    "checkpoint": {"min_seconds": 0},
}


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict(RECIPE).replace(**changes)


def test_a_resume_on_either_side_of_the_boundary_is_exact(tmp_path: Path) -> None:
    whole = Trainer.from_recipe(recipe(), runs=tmp_path)
    whole.fit()
    assert [row.notes for row in whole.history.epochs] == [(), (), ("unfrozen",), ()]
    for step, frozen in ((5, 68), (6, 68), (7, 0), (9, 0)):  # an epoch has three
        cut = Trainer.from_recipe(recipe(**{"training.max_steps": step}), runs=tmp_path).fit()
        again = Trainer.resume(cut.run.path, epochs=4)  # type: ignore[union-attr]
        assert again.parts.frozen == frozen  # as in the steps before the checkpoint
        again.fit()
        assert plain.same(again.parts.model.state_dict(), whole.parts.model.state_dict()), step
        assert [(row.notes, row.metrics) for row in again.history.epochs] == [
            (row.notes, row.metrics) for row in whole.history.epochs
        ]


def test_going_back_over_the_boundary_freezes_again(tmp_path: Path) -> None:
    trainer = Trainer.from_recipe(recipe(), runs=tmp_path)
    cut = Trainer.from_recipe(recipe(**{"training.max_steps": 4}), runs=tmp_path).fit()
    trainer.fit()
    assert trainer.parts.frozen == 0
    assert cut.run is not None
    trainer.begin_at(cut.run.checkpoints.read("last"))
    trainer._begin_epoch()
    assert trainer.parts.frozen == 8 * 4 + 8 + 2 * 8 + 2 * 6 and not trainer.parts.model.layers[2].training  # type: ignore[index, union-attr]


def test_a_population_leaves_what_is_frozen_as_it_is() -> None:
    changes = {"training.freeze": ["layers.[125].*"], "training.freeze_epochs": None, "optimizer.groups": None}
    still = recipe(**changes, **{"model.dropout": 0.0})
    parts = [assemble(member.recipe) for member in expand(still.to_dict(), ["seed=0,1"])]
    before = [copy.deepcopy(each.model.state_dict()) for each in parts]
    stack = Stack(parts)
    for _ in range(3):
        _, gradients = stack.gradients(*stack.batch(torch.arange(40).expand(2, -1)))
        stack.update(gradients)
    for each, began in zip(parts, before, strict=True):
        ended = each.model.state_dict()
        moved = {name.rpartition(".")[0] for name, value in began.items() if not torch.equal(value, ended[name])}
        assert moved == {"layers.4", "layers.7"}


@pytest.mark.slow
def test_compiled_goes_over_the_boundary_as_eager_does(digits: Data) -> None:
    models = {}
    for execution in ("eager", "compiled"):
        torch.manual_seed(0)
        model = models[execution] = nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
        options: dict[str, Any] = {"epochs": 4, "device": "cpu", "execution": execution, "freeze": ["0.*"], "freeze_epochs": 2}
        trainer = Trainer(
            model=model, loss=nn.CrossEntropyLoss(), optimizer=OPTIMIZERS["adam"](model), train=some(digits, 320), **options
        )
        trainer.fit()
        assert trainer.taking == execution
    for one, other in zip(models["eager"].parameters(), models["compiled"].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_pretrained_body_takes_a_new_head(tmp_path: Path) -> None:
    held = assemble(recipe(**{"model.hidden": [8, 6], "data.name": "digits"})).model.state_dict()
    save_file({name: tensor + 1 for name, tensor in held.items()}, tmp_path / "w.safetensors")
    other = recipe(**{"data.name": "wine", "training.weights": str(tmp_path / "w.safetensors")})
    with pytest.raises(RecipeError) as caught:
        assemble(other)
    proposed = 'training.weights_except = ["layers.1.*", "layers.9.*"]'
    assert "layers.9.bias is (10,), the model has (3,)" in str(caught.value) and proposed in str(caught.value)
    fresh = assemble(other.replace(**{"training.weights": None})).model.state_dict()
    parts = assemble(other.replace(**{"training.weights_except": ["layers.1.*", "layers.9.*"]}))
    for name, value in parts.model.state_dict().items():
        new = name.startswith(("layers.1.", "layers.9."))
        assert torch.equal(value, fresh[name] if new else held[name] + 1)
    assert any("w.safetensors, without layers.1.weight" in sentence for sentence in parts.warnings)


def test_a_file_of_torchvisions_or_timms_own_fits_their_model_here(tmp_path: Path) -> None:
    held = {name: tensor + 1 for name, tensor in net().state_dict().items()}
    torch.save(held, tmp_path / "theirs.pth")
    ours = nn.ModuleDict({"network": net()})
    load_weights(ours, str(tmp_path / "theirs.pth"), ["network.4.*"])
    assert plain.same(ours["network"].state_dict(), held | {key: net().state_dict()[key] for key in ("4.weight", "4.bias")})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"training.freeze": ["layers.1"]}, "'layers.1', which fits the name of no parameter; the nearest is 'layers.1.*'"),
        ({"training.freeze": ["*"]}, "training.freeze = ['*'] leaves no parameter to be trained"),
        ({"training.freeze": []}, "training.freeze_epochs is 2, and training.freeze names nothing"),
        ({"training.freeze_epochs": None}, "'layers.1.*', which fits only parameters that are frozen"),
        ({"training.freeze_epochs": 0}, "training.freeze_epochs is 0; it must be an integer of at least 1"),
    ],
)
def test_a_mistake_is_one_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        assemble(recipe(**changes))
    assert says in str(caught.value) and len(caught.value.problems) == 1


def test_an_optimizer_of_the_head_alone_can_t_train_the_body_later(digits: Data) -> None:
    model = net()
    head = torch.optim.SGD(model[4].parameters(), lr=0.1)
    given: dict[str, Any] = {"model": model, "loss": nn.CrossEntropyLoss(), "optimizer": head, "train": digits, "device": "cpu"}
    with pytest.raises(
        RecipeError, match=r"freeze_epochs needs an optimizer of all parameters: make it with model\.parameters"
    ):
        Trainer(**given, freeze=BODY, freeze_epochs=1)


def test_a_dry_run_and_a_run_say_how_many_of_how_many() -> None:
    found = dry_run(recipe())
    assert dict(found.rows)["model"] == "MLP, 75 of 143 parameters, all after 2 epochs, output size 3"
    assert (found.facts["parameters"], found.facts["frozen"]) == (75, 68)
    trainer = Trainer.from_recipe(recipe(), runs=None)
    trainer.fit()
    assert trainer.history.started is not None and trainer.history.started.trains == "75 of 143 parameters, all after 2 epochs"


def test_a_fork_that_freezes_takes_the_weights_alone_and_all_of_them(tmp_path: Path) -> None:
    body = Trainer.from_recipe(recipe(**{"training.max_steps": 5}), runs=tmp_path).fit()
    assert body.run is not None
    changes = {"training.weights": str(body.run.path), "training.weights_except": ["layers.9.*"]}
    tuned = Trainer.from_recipe(recipe(**changes), runs=tmp_path).fit()
    assert tuned.run is not None
    fork = Trainer.fork(tuned.run.path, **{"training.freeze": ["layers.1.*"]})
    assert plain.same(fork.parts.model.state_dict(), tuned.model.state_dict())
    assert fork.parts.frozen == 8 * 4 + 8
