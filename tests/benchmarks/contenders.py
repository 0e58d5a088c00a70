"""Who trains: each takes a case for `epochs` epochs and calls `ended(model)` after each of them.

Peers are used the way their documentation does it, without logging, progress bar, checkpoints and validation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from inspect import signature
from typing import Any

import torch

from tests.benchmarks.cases import Case

Ended = Callable[[Any], None]
Say = Callable[[str], None]


def tutorial(case: Case, epochs: int, ended: Ended, say: Say, precision: str = "") -> None:
    model, loss_fn, optimizer = case.begin()
    loader = case.loader()
    half = (precision or case.plain) == "bf16"
    autocast = partial(torch.autocast, case.device, torch.bfloat16) if half else nullcontext
    model.train()
    for _ in range(epochs):
        for batch in loader:
            inputs, targets = batch if case.device == "cpu" else (part.to(case.device) for part in batch)
            optimizer.zero_grad()
            with autocast():
                output = model(inputs)
                loss = loss_fn(output, targets)
            loss.backward()
            optimizer.step()
        ended(model)


def epochal(case: Case, epochs: int, ended: Ended, say: Say, execution: str, fused: bool = False) -> None:
    from engine import EpochEnded, Message, Trainer

    model, loss, optimizer = case.begin()
    if fused or case.device == "cuda":  # there a recipe's optimizer is fused unless it says otherwise
        known = signature(type(optimizer)).parameters
        options = {key: value for key, value in optimizer.defaults.items() if key in known}
        optimizer = type(optimizer)(model.parameters(), **{**options, "foreach": None, "fused": True})
    trainer = Trainer(
        model=model,
        loss=loss,
        optimizer=optimizer,
        train=case.data,
        batch_size=case.batch_size,
        epochs=epochs,
        device=case.device,
        precision=case.precision,
        execution=execution,
    )
    trainer.on(EpochEnded, lambda _: ended(model))
    trainer.on(Message, lambda message: say(message.text))
    trainer.fit()


def population(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    """All members, from one recipe with as many learning rates; an epoch has ended when it has for as many as there are."""
    from engine import EpochEnded, Message, Sweep
    from engine.sweep import expand

    members = expand(
        {**case.recipe, "training": {"epochs": epochs, "device": case.device}}, [f"optimizer.lr=3e-4..3e-3x{case.members}"]
    )
    sweep = Sweep(members, runs=None)
    losses: list[float] = []

    def heard(_: Any, event: Any) -> None:
        losses.append(event.metrics["train/loss"])
        if len(losses) == case.members:
            mean = sum(losses) / len(losses)
            losses.clear()
            ended(mean)

    sweep.on(EpochEnded, heard)
    sweep.on(Message, lambda _, message: say(message.text))
    sweep.fit()


def lightning(case: Case, epochs: int, ended: Ended, say: Say, barebones: bool = True) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.loss, self.made = case.begin()

        def training_step(self, batch: Any, number: int) -> Any:
            inputs, targets = batch
            return self.loss(self.net(inputs), targets)

        def configure_optimizers(self) -> Any:
            return self.made

        def on_train_epoch_end(self) -> None:
            ended(self.net)

    plain = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator=_accelerator(case),
        devices=1,
        precision="bf16-mixed" if case.precision == "bf16" else "32-true",
        **{"barebones": True} if barebones else plain,
    )
    trainer.fit(Module(), case.loader())


def fabric(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    from lightning.fabric import Fabric

    precision = "bf16-mixed" if case.precision == "bf16" else "32-true"
    made = Fabric(accelerator=_accelerator(case), devices=1, precision=precision)
    net, loss_fn, optimizer = case.begin()
    model, optimizer = made.setup(net, optimizer)
    loader = made.setup_dataloaders(case.loader())
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            made.backward(loss_fn(model(inputs), targets))
            optimizer.step()
        ended(net)


def ignite(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    from ignite.engine import Events, create_supervised_trainer

    model, loss, optimizer = case.begin()
    _only_float32(case)
    trainer = create_supervised_trainer(model, optimizer, loss, device=case.device)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: ended(model))
    trainer.run(case.loader(), max_epochs=epochs)


def accelerate(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    from accelerate import Accelerator

    made = Accelerator(cpu=case.device == "cpu", mixed_precision="bf16" if case.precision == "bf16" else "no")
    net, loss_fn, adam = case.begin()
    model, optimizer, loader = made.prepare(net, adam, case.loader())
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            made.backward(loss_fn(model(inputs), targets))
            optimizer.step()
        ended(net)


def skorch(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    from skorch import NeuralNet
    from skorch.callbacks import Callback

    class Tell(Callback):
        def on_epoch_end(self, net: Any, *_: Any, **__: Any) -> None:
            ended(net.module_)

    _only_float32(case)
    model, loss, optimizer = case.begin()
    options = {f"optimizer__{key}": value for key, value in optimizer.defaults.items() if key == "lr"}
    net = NeuralNet(
        model,
        type(loss),
        optimizer=type(optimizer),
        max_epochs=epochs,
        batch_size=case.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        device=case.device,
        verbose=0,
        callbacks=[Tell()],
        callbacks__print_log=None,
        **options,
    )
    net.initialize()
    net.module_.load_state_dict(model.state_dict())
    net.partial_fit(*case.data)


def fastai(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    from fastai.callback.core import Callback, TrainEvalCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    class Tell(Callback):
        def after_epoch(self) -> None:
            ended(self.learn.model)

    _only_float32(case)
    model, loss, optimizer = case.begin()
    learner = Learner(
        DataLoaders(case.loader(), case.loader(), device=torch.device(case.device)),
        model,
        loss,
        opt_func=lambda _, **__: OptimWrapper(opt=optimizer),
        lr=optimizer.defaults["lr"],
        train_bn=True,
        cbs=[TrainEvalCallback(), Tell()],
        default_cbs=False,
    )
    learner._do_epoch_validate = lambda *_, **__: None
    learner.fit(epochs, lr=optimizer.defaults["lr"])


def transformers(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    import tempfile

    import transformers as hf
    from torch.utils.data import TensorDataset

    class Tell(hf.TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            ended(model)

    class Trainer(hf.Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            output = model(inputs[0])
            loss = made_loss(output, inputs[1])
            return (loss, output) if return_outputs else loss

    model, made_loss, optimizer = case.begin()
    with tempfile.TemporaryDirectory() as place:
        arguments = hf.TrainingArguments(
            output_dir=place,
            num_train_epochs=epochs,
            per_device_train_batch_size=case.batch_size,
            use_cpu=case.device == "cpu",
            bf16=case.precision == "bf16",
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            max_grad_norm=0,
            lr_scheduler_type="constant",
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=TensorDataset(*case.data),
            data_collator=lambda rows: tuple(torch.stack(column) for column in zip(*rows, strict=True)),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
            callbacks=[Tell()],
        )
        trainer.train()


def keras(case: Case, epochs: int, ended: Ended, say: Say) -> None:
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras as library

    class Tell(library.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ended(net)

    _only_float32(case)
    net, _, optimizer = case.begin()
    inputs, targets = case.data
    model = library.Sequential([library.layers.TorchModuleWrapper(net)])
    kind = {"SGD": library.optimizers.SGD, "Adam": library.optimizers.Adam}[type(optimizer).__name__]
    regression = targets.is_floating_point()
    model.compile(
        optimizer=kind(learning_rate=optimizer.defaults["lr"]),
        loss="mean_squared_error" if regression else library.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(inputs.numpy(), targets.numpy(), batch_size=case.batch_size, epochs=epochs, verbose=0, callbacks=[Tell()])


def _accelerator(case: Case) -> str:
    return "gpu" if case.device == "cuda" else case.device


def _only_float32(case: Case) -> None:
    """In bf16 its documentation has no example, or one of fp16."""
    if case.precision != "float32":
        raise NotImplementedError(f"not tried in {case.precision}")


BASE = "tutorial's loop"
Trains = Callable[[Case, int, Ended, Say], None]
OURS: dict[str, Trains] = {
    BASE: tutorial,
    "tutorial's loop, bf16": partial(tutorial, precision="bf16"),
    "epochal eager": partial(epochal, execution="eager"),
    "epochal eager, fused": partial(epochal, execution="eager", fused=True),
    "epochal captured": partial(epochal, execution="captured"),
    "epochal compiled": partial(epochal, execution="compiled"),
    "epochal population": population,
}
PEERS: dict[str, Trains] = {
    "Lightning": partial(lightning, barebones=False),
    "Lightning, barebones": lightning,
    "Fabric": fabric,
    "Ignite": ignite,
    "Accelerate": accelerate,
    "skorch": skorch,
    "fastai": fastai,
    "HF Trainer": transformers,
    "Keras on torch": keras,
}
ALL = OURS | PEERS
MODULES = {  # of each peer, where it is not its name
    "Lightning": "lightning",
    "Lightning, barebones": "lightning",
    "Fabric": "lightning",
    "Ignite": "ignite",
    "Accelerate": "accelerate",
    "HF Trainer": "transformers",
    "Keras on torch": "keras",
}


def installed(name: str) -> bool:
    return find_spec(MODULES.get(name, name)) is not None if name in PEERS else True


def takes_part(case: Case, name: str) -> bool:
    """Whether a contender has a place in the case's rows."""
    if case.members > 1:
        return name in (BASE, "epochal population")
    if name == "tutorial's loop, bf16":
        return case.plain != case.precision
    absent = "epochal eager, fused" if case.device == "cuda" else "epochal captured"
    return name not in (absent, "epochal population")


warnings.simplefilter("ignore")
