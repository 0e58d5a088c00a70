"""Several processes train as one: held to the tutorial's loop on the whole batch, and to a run of one process. Over gloo."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine import Recipe, Trainer
from engine.run import Run
from tests.engine import plain, ranks

Seen = list[dict[str, Any]]  # of each rank
TWO = (
    "classes",
    "looked",
    "unlooked",
    "accumulated",
    "overlapped",
    "sharded",
    "continued",
    "halved",
    "normalized",
    "normalized_sharded",
    "regression",
    "streamed",
    "own_loader",
    "told",
    "judged",
    "refused",
    "broken",
    "skipped",
    "begun",
    "aside",
    "aside_overlapped",
    "frozen",
    "frozen_overlapped",
    "frozen_sharded",
    "other_data",
    "uneven",
)
THREE = ("resumed", "classes", "told", "normalized")


def launch(count: int, folder: Path, *cases: str, device: str = "cpu", backend: str = "") -> Callable[[str], Seen]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    done = subprocess.run(
        [*command, "--log-dir", str(folder / "log"), "-m", "tests.engine.ranks", str(folder), *cases],
        env={**os.environ, "EPOCHAL_TEST_DEVICE": device, "EPOCHAL_TEST_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return lambda case: [json.loads((folder / f"{case}.{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> Callable[[str], Seen]:
    return launch(2, folder, *TWO)


@pytest.fixture(scope="module")
def three(folder: Path, two: Callable[[str], Seen]) -> Callable[[str], Seen]:
    """The run that two began is continued by three, each of which holds a third of the weights."""
    copy = folder / "copy"
    shutil.copytree(folder / "runs", copy, symlinks=True)
    recipe = next(copy.iterdir()) / "recipe.toml"
    recipe.write_text(re.sub('strategy = "auto"', 'strategy = "fsdp"', recipe.read_text()))
    other = folder / "three"
    other.mkdir()
    copy.rename(other / "copy")
    return launch(3, other, *THREE)


def by_hand(net: nn.Module, loss: nn.Module, batch_size: int = ranks.BATCH, **options: Any) -> tuple[list[float], list[float]]:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses, _ = plain.train(net, loss, optimizer, ranks.digits(), epochs=3, batch_size=batch_size, **options)
    return losses, torch.cat([tensor.flatten() for tensor in net.state_dict().values()]).tolist()


def close(values: Any) -> Any:
    return pytest.approx(values, rel=1e-9, abs=1e-11)


def test_every_rank_sees_the_loss_and_takes_the_step_of_the_whole_batch(two: Any, three: Any) -> None:
    losses, weights = by_hand(ranks.model(), ranks.weighted())
    for seen in (*two("classes"), *three("classes")):
        assert seen["losses"] == close(losses)
        assert seen["weights"] == close(weights)


@pytest.mark.parametrize("case", ["accumulated", "overlapped"])
def test_batches_that_make_one_step_count_by_their_targets_on_all_ranks(two: Any, case: str) -> None:
    losses, weights = by_hand(ranks.model(), ranks.weighted(), batch_size=3 * ranks.BATCH)
    for seen in two(case):
        assert seen["losses"] == close(losses)
        assert seen["weights"] == close(weights)


def test_sharded_weights_are_those_of_one_process(two: Any, folder: Path) -> None:
    net = ranks.model(ranks.Blocks)
    norm = net.parameters

    class Clipped(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            nn.utils.clip_grad_norm_(norm(), 0.5)
            return super().step(closure)

    optimizer = Clipped(net.parameters(), lr=0.1, momentum=0.9)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    validated: list[float] = []

    def validate() -> None:
        with torch.no_grad():
            validated.append(ranks.weighted()(average(ranks.digits()[0]), ranks.digits()[1]).item())

    follow = {"each_step": lambda: average.update_parameters(net), "each_epoch": validate}
    losses, _ = plain.train(net, ranks.weighted(), optimizer, ranks.digits(), epochs=3, batch_size=3 * ranks.BATCH, **follow)
    weights = torch.cat([tensor.flatten() for tensor in net.state_dict().values()]).tolist()
    for seen in two("sharded"):
        assert seen["losses"] == close(losses)
        assert seen["weights"] == close(weights)
        assert [row["val/loss"] for row in seen["rows"]] == close(validated)
    saved = Run(folder / "sharded").checkpoints.read("last")  # blocks of one shape are gathered one after another
    assert torch.cat([saved.tensors["model"][name].flatten() for name in net.state_dict()]).tolist() == close(weights)
    for name, tensor in average.module.state_dict().items():
        assert saved.tensors["average"][f"module.{name}"].flatten().tolist() == close(tensor.flatten().tolist())
    momentum = {name: optimizer.state[tensor]["momentum_buffer"] for name, tensor in net.named_parameters()}
    for name, tensor in momentum.items():
        assert saved.tensors["optimizer"][f"{name}/momentum_buffer"].flatten().tolist() == close(tensor.flatten().tolist())


def test_sharded_runs_go_on_with_what_their_optimizers_know(two: Any, tmp_path: Path) -> None:
    one = ranks.continued(tmp_path)  # in this process alone
    assert two("continued") == [{kind: close(weights) for kind, weights in one.items()}] * 2


def test_sharded_gradients_that_overflow_are_left_out_on_all_ranks(two: Any) -> None:
    net = ranks.model(ranks.Blocks).float()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", 2 * ranks.SCALE)  # a rank's mean is over half of the samples: each counts twice
    half = torch.autocast("cpu", torch.float16)
    taken: list[bool] = []

    def step() -> None:
        before = scaler.get_scale()
        scaler.step(sgd)
        scaler.update()
        taken.append(scaler.get_scale() >= before)

    optimizer: Any = SimpleNamespace(zero_grad=sgd.zero_grad, step=step)
    inputs, targets = ranks.digits()
    loss = half(lambda output, targets: scaler.scale(nn.functional.cross_entropy(output, targets)))
    net.forward = half(net.forward)  # type: ignore[method-assign]
    plain.train(net, loss, optimizer, (inputs.float(), targets), epochs=3, batch_size=ranks.BATCH)
    weights = torch.cat([tensor.flatten() for tensor in net.state_dict().values()]).tolist()
    assert 3 < taken.count(False) < 10
    first, second = two("halved")
    assert first["step"] == second["step"] == sum(taken)
    assert first["weights"] == second["weights"]
    begun = torch.cat([tensor.flatten() for tensor in ranks.model(ranks.Blocks).state_dict().values()])
    moved, away = torch.tensor(weights) - begun, torch.tensor(weights) - torch.tensor(first["weights"])
    assert away.norm() < 0.05 * moved.norm()  # 16 bits round a half of a batch otherwise than the whole


class Looked(torch.optim.SGD):
    """Notes at its fifth step what there is to be seen of each layer."""

    def __init__(self, net: nn.Module, clip: float = math.inf) -> None:
        super().__init__(net.parameters(), lr=0.1, momentum=0.9)
        self.net, self.clip, self.steps = net, clip, 0
        self.found: dict[str, Any] = {}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        layers: list[Any] = [part for part in self.net.modules() if isinstance(part, nn.Linear)]

        def norms(tensors: Callable[[nn.Module], list[torch.Tensor]]) -> list[float]:
            return [float(torch.cat([tensor.flatten() for tensor in tensors(layer)]).norm()) for layer in layers]

        gradients = norms(lambda layer: [p.grad for p in layer.parameters() if p.grad is not None])
        silent = [float((layer.weight.grad == 0).all(1).double().mean()) for layer in layers]
        old = {id(p): p.detach().clone() for p in self.net.parameters()}
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        super().step()
        self.steps += 1
        if self.steps == 5:
            weights = norms(lambda layer: [old[id(p)] for p in layer.parameters()])
            changes = norms(lambda layer: [p.detach() - old[id(p)] for p in layer.parameters()])
            ratios = [change / weight for change, weight in zip(changes, weights, strict=True)]
            self.found = {"gradient": gradients, "weight": weights, "ratio": ratios, "silent": silent}


@pytest.mark.parametrize(
    ("case", "kind", "clip"),
    [
        ("accumulated", nn.Sequential, math.inf),
        ("overlapped", nn.Sequential, math.inf),
        ("sharded", ranks.Blocks, 0.5),
    ],
)
def test_layers_are_looked_at_as_those_of_one_process(two: Any, case: str, kind: type[nn.Module], clip: float) -> None:
    net = ranks.model(kind)
    optimizer = Looked(net, clip)
    plain.train(net, ranks.weighted(), optimizer, ranks.digits(), epochs=2, batch_size=3 * ranks.BATCH)
    assert any(0 < share < 1 for share in optimizer.found["silent"])
    for seen in two(case):
        look = seen["look"]
        for name, column in optimizer.found.items():
            assert look[name] == pytest.approx(column, rel=1e-3), name
        assert look["sizes"] == [sum(p.numel() for p in part.parameters()) for part in net.modules() if type(part) is nn.Linear]
        assert {"forward", "loss", "backward", "clip", "step"} <= look["seconds"].keys()
        assert ("all-reduce" in look["seconds"]) == (case != "sharded")  # shards come and go in all phases


def test_all_look_at_the_same_steps_and_change_nothing(two: Any) -> None:
    first, second = two("looked")
    assert len(first["looked"]) >= 2 and first["looked"] == second["looked"]
    for looked, unlooked in zip(two("looked"), two("unlooked"), strict=True):
        assert not unlooked["looked"]
        assert looked["losses"] == unlooked["losses"] and looked["weights"] == unlooked["weights"]  # to the last bit


def test_validation_counts_every_sample_once(two: Any) -> None:
    net = ranks.model(outputs=1, inputs=10)
    inputs, targets = ranks.numbers()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    train, validation = (inputs[100:], targets[100:]), (inputs[:100], targets[:100])
    _, validated = plain.train(net, nn.MSELoss(), optimizer, train, epochs=3, batch_size=ranks.BATCH, validation=validation)
    predicted = net(inputs[:100]).detach()
    for seen in two("regression"):
        assert [row["val/loss"] for row in seen["rows"]] == close(validated)
        assert seen["rows"][-1]["val/mae"] == close(mean_absolute_error(targets[:100], predicted))
        assert seen["rows"][-1]["val/r2"] == close(r2_score(targets[:100], predicted))


@pytest.mark.parametrize(("launched", "case"), [("two", "normalized"), ("two", "normalized_sharded"), ("three", "normalized")])
def test_a_batch_is_normalized_as_a_whole(request: Any, launched: str, case: str) -> None:
    one = getattr(ranks, case)(request.getfixturevalue("tmp_path"))  # in this process alone, as torch does it
    for seen in request.getfixturevalue(launched)(case):
        assert seen["losses"] == close(one["losses"])
        assert seen["weights"] == close(one["weights"])  # and means and variances
        assert [row["val/loss"] for row in seen["rows"]] == close([row["val/loss"] for row in one["rows"]])


def test_a_data_set_is_loaded_by_shares(two: Any) -> None:
    losses, weights = by_hand(ranks.model(), nn.CrossEntropyLoss())
    for seen in two("streamed"):
        assert seen["losses"] == close(losses)
        assert seen["weights"] == close(weights)


def test_the_batches_of_ones_own_loader_are_dealt(two: Any) -> None:
    one = ranks.own_loader(Path())  # in this process alone
    for seen in two("own_loader"):
        assert seen["losses"] == close(one["losses"])
        assert seen["weights"] == close(one["weights"])


def test_ranks_with_other_data_or_another_model_are_told_so(two: Any) -> None:
    for seen in two("other_data"):
        sizes, values, loader, net = seen["raised"]
        assert "rank 1 has another model than rank 0" in net
        assert "rank 1 has other training data than rank 0 (198, not 199)" in sizes
        assert "rank 1 has other training data than rank 0:" in values
        assert "rank 1's loader begins with another batch than rank 0's" in loader
    for seen in two("uneven"):
        assert "one rank's loader has fewer batches than another's" in seen["raised"]


def test_what_the_first_measures_all_judge_by(two: Any) -> None:
    for seen in two("judged"):
        assert seen["state"] == "finished" and [row["val/own"] for row in seen["rows"]] == [1, 2, 3]
        assert len([text for text in seen["said"] if "the metric other failed" in text and "no such luck" in text]) == 1


def test_what_only_the_first_tries_fails_everywhere_in_its_words(two: Any) -> None:
    first, second = two("refused")
    assert "a file" in first["raised"] and first == second


@pytest.mark.parametrize(("case", "aside"), [("aside", True), ("aside_overlapped", False)])
def test_parameters_that_take_no_part_are_left_alone(two: Any, case: str, aside: bool) -> None:
    torch.manual_seed(1)
    losses, weights = by_hand(ranks.Aside(aside).double(), nn.CrossEntropyLoss())
    for seen in two(case):
        assert seen["losses"] == close(losses)
        assert seen["weights"] == close(weights)


@pytest.mark.parametrize(("case", "epochs"), [("frozen", 2), ("frozen_overlapped", 2), ("frozen_sharded", 3)])
def test_what_is_frozen_stays_and_is_trained_by_all_once_it_is_not(two: Any, case: str, epochs: int) -> None:
    net, ended = ranks.model(), iter(range(1, 4))
    body, _, _ = net.children()
    body.requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    options: dict[str, Any] = {"epochs": 3, "batch_size": ranks.BATCH}
    options["each_epoch"] = lambda: body.requires_grad_(next(ended) >= epochs)
    losses, _ = plain.train(net, nn.CrossEntropyLoss(), optimizer, ranks.digits(), **options)
    weights = torch.cat([tensor.flatten() for tensor in net.state_dict().values()]).tolist()
    for seen in two(case):
        assert seen["losses"] == close(losses)
        assert seen["weights"] == close(weights)


def test_what_one_rank_is_asked_all_do_at_the_same_step(two: Any, three: Any) -> None:
    for runs in (two("told"), three("told")):
        first, *others = runs
        assert [what for what, *_ in first["seen"]] == ["optimizer.lr", "paused", "validated"]
        assert first["state"] == "stopped"
        assert all(other["seen"] == first["seen"] and other["step"] == first["step"] for other in others)
        assert all(other["weights"] == first["weights"] for other in others)  # to the last bit


def test_a_step_that_is_not_finite_on_one_rank_is_taken_by_none(two: Any) -> None:
    inputs, targets = ranks.digits()
    net = ranks.model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    inputs[100] = torch.nan
    before: list[list[float]] = []

    def weights() -> list[float]:
        return torch.cat([tensor.flatten() for tensor in net.state_dict().values()]).tolist()

    losses, _ = plain.train(
        net,
        nn.CrossEntropyLoss(),
        optimizer,
        (inputs, targets),
        epochs=1,
        batch_size=ranks.BATCH,
        each_step=lambda: before.append(weights()),
    )
    sound = next(i for i, loss in enumerate(losses) if loss != loss)
    for seen in two("broken"):
        assert seen["state"] == "failed" and seen["step"] == sound
        assert seen["weights"] == close(before[sound - 1])
    for seen in two("skipped"):
        assert seen["state"] == "finished"
        assert seen["step"] == 3 * (len(losses) - 1)
        assert seen["weights"] == two("skipped")[0]["weights"]


def test_each_rank_draws_its_own_random_numbers(two: Any) -> None:
    first, second = two("classes")
    assert first["draw"] != second["draw"]


def test_a_run_of_two_is_continued_by_one_and_by_three(two: Any, three: Any, folder: Path, tmp_path: Path) -> None:
    assert {seen["step"] for seen in two("begun")} == {40}
    whole = Trainer.from_recipe(Recipe().replace(**ranks.RECIPE, **{"training.max_steps": 70}), runs=tmp_path).fit()
    rows = [{key: close(value) for key, value in row.items() if key != "seconds"} for row in whole.history]
    by_one = Trainer.resume(next((folder / "runs").iterdir()), max_steps=70).fit()
    assert [{key: value for key, value in row.items() if key != "seconds"} for row in by_one.history] == rows
    for seen in three("resumed")[:1]:  # the first rank has the journal of what was before
        assert seen["rows"] == rows
    expected = torch.cat([tensor.flatten() for tensor in whole.model.state_dict().values()]).tolist()
    for seen in three("resumed"):
        assert seen["weights"] == close(expected)
