"""`torchrun -m tests.engine.ranks FOLDER CASE…`: what each rank of a training in several processes has seen.

It is written to FOLDER/CASE.RANK.json.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from engine import EpochEnded, Progress, Recipe, Trainer
from engine.changes import Change
from engine.distributed import flat
from engine.errors import RecipeError
from engine.events import RunPaused, Sampled, SettingChanged, Trained, Validated, to_dict
from engine.execution import sampled

Data = tuple[Tensor, Tensor]
DEVICE = os.environ.get("EPOCHAL_TEST_DEVICE", "cpu")  # "cuda": each rank has a GPU of its own
SAMPLES, BATCH = 199, 33  # the last batch has one sample: nothing is left for the other ranks
SCALE = 2.0**24
RECIPE = {"training.precision": "float64", "training.execution": "eager", "checkpoint.min_seconds": 0.0, "data.batch_size": 50}
RECIPE |= {"training.ema": 0.9}  # which is what is validated


class Blocks(nn.Module):
    """A model of repeated blocks, as those that are sharded are."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 32)
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.last = nn.Linear(32, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = self.first(inputs).relu()
        for block in self.blocks:
            inputs = inputs + block(inputs).relu()
        return self.last(inputs)  # type: ignore[no-any-return]


def digits() -> Data:
    images, classes = load_digits(return_X_y=True)
    return torch.tensor(images[:SAMPLES]) / 16, torch.tensor(classes[:SAMPLES])


def numbers() -> Data:
    inputs, targets = load_diabetes(return_X_y=True)
    return torch.tensor(inputs) * 10, torch.tensor(targets)[:, None] / 100


def model(kind: type[nn.Module] = nn.Sequential, outputs: int = 10, inputs: int = 64) -> nn.Module:
    torch.manual_seed(1)
    made = Blocks() if kind is Blocks else nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))
    return made.double()


def weighted() -> nn.Module:
    """Whose mean is over weights: other sums on each rank, and some targets left out."""
    return nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, 10).double(), ignore_index=7)


def parts(net: nn.Module, loss: nn.Module | None = None, lr: float = 0.1) -> dict[str, Any]:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    common = {"device": DEVICE, "batch_size": BATCH, "epochs": 3, "execution": "eager", "precision": "float64"}
    return {"model": net, "loss": loss or nn.CrossEntropyLoss(), "optimizer": optimizer, **common}


def fit(trainer: Trainer) -> dict[str, Any]:
    """Losses of all steps, each epoch's row, how it ended and the weights."""
    losses: list[float] = []
    seen: list[Any] = []
    looked: list[Sampled] = []
    trainer.on(Sampled, looked.append)
    trainer.on(Trained, lambda event: losses.extend(event.loss))
    trainer.on(RunPaused, lambda event: seen.append(["paused", event.step]))
    trainer.on(Validated, lambda event: seen.append(["validated", event.step, event.metrics["val/loss"]]))
    trainer.on(SettingChanged, lambda event: seen.append([event.field, event.step, event.value]))
    result = trainer.fit()
    held = {
        name: tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        for name, tensor in result.model.state_dict().items()
    }
    weights = torch.cat([tensor.flatten() for tensor in held.values()]).tolist()
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in result.history]
    ended = {"state": result.state, "reason": result.reason, "step": trainer.step}
    looks = {"looked": [event.step for event in looked], "look": to_dict(looked[0]) if looked else {}}
    return {**ended, **looks, "losses": losses, "rows": rows, "weights": weights, "seen": seen, "draw": torch.rand(()).item()}


def classes(folder: Path) -> dict[str, Any]:
    return fit(Trainer(**parts(model(), weighted()), train=digits()))


def unlooked(folder: Path) -> dict[str, Any]:
    return fit(Trainer(**parts(model(), weighted()), train=digits(), health=False))


def looked(folder: Path) -> dict[str, Any]:
    """Looks whenever anybody asks, which is at each epoch's end at least."""
    usual = {name: getattr(sampled, name) for name in ("STEPS", "SECONDS", "SHARE", "SETTLE")}
    try:
        vars(sampled).update(STEPS=1, SECONDS=0.0, SHARE=math.inf, SETTLE=1)
        return classes(folder)
    finally:
        vars(sampled).update(usual)


def accumulated(folder: Path) -> dict[str, Any]:
    return fit(Trainer(**parts(model(), weighted()), train=digits(), accumulate=3))


def overlapped(folder: Path) -> dict[str, Any]:
    """Gradients are exchanged as those of a large model are, while others are computed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "MOST", 0)
        return accumulated(folder)


def sharded(folder: Path) -> dict[str, Any]:
    plan = {"accumulate": 3, "strategy": "fsdp", "clip_norm": 0.5, "ema": 0.9, "run_dir": folder / "sharded"}
    return fit(Trainer(**parts(model(Blocks), weighted()), train=digits(), validation=digits(), **plan))


class Doubled(nn.BatchNorm1d):
    """One's own layer around torch's."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


def continued(folder: Path) -> dict[str, Any]:
    """By optimizers that have no state, or have some before the first step."""
    seen = {}
    for kind in (torch.optim.SGD, torch.optim.Adagrad):
        for epochs in (1, 3):
            net = model(Blocks)
            given = {**parts(net), "optimizer": kind(net.parameters(), lr=0.1), "epochs": epochs, "strategy": "fsdp"}
            seen[kind.__name__] = fit(Trainer(**given, train=digits(), run_dir=folder / f"continued-{kind.__name__}"))[
                "weights"
            ]
    return seen


def normalizing() -> nn.Module:
    torch.manual_seed(1)
    images = nn.Sequential(nn.Unflatten(1, (4, 4, 4)), nn.Conv2d(4, 4, 3), nn.SyncBatchNorm(4), nn.ReLU(), nn.Flatten())
    last = Doubled(16, affine=False, momentum=None)
    net = nn.Sequential(*images, nn.Linear(16, 16), last, nn.ReLU(), nn.Linear(16, 10))
    return net.to(torch.float64, memory_format=torch.channels_last)


def normalized(folder: Path, strategy: str = "ddp", ema: float = 0.9) -> dict[str, Any]:
    """The last batch has two samples: each of two ranks has one of them, and of three one has none."""
    inputs, targets = digits()
    some = 5 * BATCH + 2
    trainer = Trainer(
        **parts(normalizing()),
        train=(inputs[:some], targets[:some]),
        validation=digits(),
        strategy=strategy,
        ema=ema,
        accumulate=4,
        run_dir=folder / f"normalized-{strategy}",
    )
    return fit(trainer)


def normalized_sharded(folder: Path) -> dict[str, Any]:
    return normalized(folder, "fsdp", 0.0)


def halved(folder: Path) -> dict[str, Any]:
    """The first steps overflow: the scale of fp16 is far too large for them."""
    inputs, targets = digits()
    given = {**parts(model(Blocks).float()), "precision": "fp16"}
    trainer = Trainer(**given, train=(inputs.float(), targets), strategy="fsdp")
    assert trainer.loop.scaler is not None
    trainer.loop.scaler.load_state_dict({**trainer.loop.scaler.state_dict(), "scale": SCALE})
    return fit(trainer)


def regression(folder: Path) -> dict[str, Any]:
    inputs, targets = numbers()
    given = parts(model(outputs=1, inputs=10), nn.MSELoss(), lr=0.01)
    return fit(Trainer(**given, train=(inputs[100:], targets[100:]), validation=(inputs[:100], targets[:100])))


def streamed(folder: Path) -> dict[str, Any]:
    return fit(Trainer(**parts(model()), train=TensorDataset(*digits())))


def own_loader(folder: Path) -> dict[str, Any]:
    given = parts(model())
    torch.manual_seed(5)  # from which the order follows, on the first rank
    return fit(Trainer(**given, train=DataLoader(TensorDataset(*digits()), BATCH, shuffle=True)))


def other_data(folder: Path) -> dict[str, Any]:
    rank = int(os.environ["RANK"])
    inputs, targets = digits()
    raised = []
    others = ((inputs[rank:], targets[rank:]), (inputs.roll(rank, 0), targets), list(_batches(targets.roll(rank))))
    for net, data in (*((model(), data) for data in others), (model(outputs=10 + rank), digits())):
        try:
            fit(Trainer(**parts(net), train=data))
        except RecipeError as error:
            raised.append(str(error))
    return {"raised": raised}


def uneven(folder: Path) -> dict[str, Any]:
    """A loader that does not know its length, and ends sooner on one rank."""

    class Loader:
        def __iter__(self) -> Iterator[Data]:
            yield from itertools.islice(_batches(digits()[1]), 6 - int(os.environ["RANK"]))

    return fit(Trainer(**parts(model()), train=Loader()))


def _batches(targets: Tensor) -> Iterator[Data]:
    yield from zip(digits()[0].split(BATCH), targets.split(BATCH), strict=True)


class Aside(nn.Module):
    """Not all of it takes part; and one part only for some samples, of which many a batch has none, or one rank's share."""

    def __init__(self, aside: bool = True) -> None:
        super().__init__()
        self.used, self.seldom = nn.Linear(64, 10), nn.Linear(64, 10)
        if aside:
            self.aside = nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        output, some = self.used(inputs), inputs[:, 55] > 0
        if some.any():
            output = output + torch.zeros_like(output).index_add(0, some.nonzero()[:, 0], self.seldom(inputs[some]))
        return output  # type: ignore[no-any-return]


def aside(folder: Path) -> dict[str, Any]:
    torch.manual_seed(1)
    return fit(Trainer(**parts(Aside().double()), train=digits()))


def aside_overlapped(folder: Path) -> dict[str, Any]:
    """Of the first batch only one rank sees that not all takes part."""
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "MOST", 0)
        return fit(Trainer(**parts(Aside(aside=False).double()), train=digits()))


def frozen(folder: Path, **plan: Any) -> dict[str, Any]:
    """One layer in the first two epochs; with weight decay and momentum, of which it must have none then."""
    net = model()
    given = {**parts(net), "optimizer": torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)}
    return fit(Trainer(**given, train=digits(), freeze=["0.*"], **{"freeze_epochs": 2, **plan}))


def frozen_overlapped(folder: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "MOST", 0)
        return frozen(folder)


def frozen_sharded(folder: Path) -> dict[str, Any]:
    return frozen(folder, strategy="fsdp", freeze_epochs=None)


def told(folder: Path) -> dict[str, Any]:
    """The last rank alone is asked: at a step of its own choice, for all kinds of things."""
    trainer = Trainer(**{**parts(model()), "epochs": 10_000}, train=digits(), validation=digits())
    asked = iter(["change", "pause", "resume", "validate", "stop"])

    def ask(event: Any) -> None:
        what = next(asked, None) if isinstance(event, EpochEnded) or event.phase == "paused" else None
        if what == "change":
            trainer.control.change(Change("optimizer.lr", 0.5, times=True))
        elif what is not None:
            getattr(trainer.control, what)()

    if int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        trainer.on(EpochEnded, ask)
        trainer.on(Progress, ask)
    return fit(trainer)


class Own:
    """A metric of one's own that is not the same everywhere: by it the second rank would stop after two epochs."""

    higher_is_better = True

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.value = fails, 0

    def reset(self) -> None:
        pass

    def update(self, output: Tensor, targets: Tensor) -> None:
        if self.fails and os.environ["RANK"] == "1":
            raise ValueError("no such luck")

    def across(self, gather: Any) -> None:
        pass

    def compute(self) -> float:
        self.value += 1
        return self.value if os.environ["RANK"] == "0" else -self.value


def judged(folder: Path) -> dict[str, Any]:
    metrics = {"own": Own(), "other": Own(fails=True)}
    given = {"metrics": metrics, "monitor": "val/own", "patience": 1, "validation": digits()}
    trainer = Trainer(**parts(model()), train=digits(), **given)
    return {**fit(trainer), "said": [message.text for message in trainer.history.messages]}


def refused(folder: Path) -> dict[str, Any]:
    """The first one can't make the run's directory."""
    Path(folder / "a file").touch()
    return fit(Trainer(**parts(model()), train=digits(), run_dir=folder / "a file" / "run"))


def broken(folder: Path, **plan: Any) -> dict[str, Any]:
    """One sample is not a number: it lies in one rank's share of a batch."""
    inputs, targets = digits()
    inputs[100] = torch.nan
    return fit(Trainer(**parts(model()), train=(inputs, targets), **plan))


def skipped(folder: Path) -> dict[str, Any]:
    return broken(folder, non_finite="skip")


def begun(folder: Path) -> dict[str, Any]:
    return fit(Trainer.from_recipe(Recipe().replace(**RECIPE, **{"training.max_steps": 40}), runs=folder / "runs"))


def resumed(folder: Path) -> dict[str, Any]:
    return fit(Trainer.resume(next((folder / "copy").iterdir()), max_steps=70))


def main(folder: Path, *names: str) -> None:
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(270, exit=True)  # ranks that wait for each other
    if backend := os.environ.get("EPOCHAL_TEST_BACKEND"):
        torch.distributed.init_process_group(backend)
    for name in names:
        try:
            seen = globals()[name](folder)
        except Exception as error:
            seen = {"raised": f"{type(error).__name__}: {error}"}
        (folder / f"{name}.{os.environ['RANK']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
