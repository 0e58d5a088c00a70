"""Who trains: each takes a case for `epochs` epochs, calls `ended()` after each of them, and returns the trained model.

Peers are used the way their documentation does it, without logging, progress bar, checkpoints and validation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.cases import Case

Ended = Callable[[], None]


def tutorial(case: Case, epochs: int, ended: Ended) -> Any:
    model, loss_fn, optimizer = case.begin()
    loader = case.loader()
    model.train()
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            output = model(inputs)
            loss = loss_fn(output, targets)
            loss.backward()
            optimizer.step()
        ended()
    return model


def epochal(case: Case, epochs: int, ended: Ended, execution: str, fused: bool = False) -> Any:
    from engine import EpochEnded, Trainer

    model, loss, optimizer = case.begin()
    if fused:
        optimizer = type(optimizer)(model.parameters(), **{**optimizer.defaults, "fused": True})
    trainer = Trainer(
        model=model,
        loss=loss,
        optimizer=optimizer,
        train=case.data(),
        batch_size=case.batch_size,
        epochs=epochs,
        device="cpu",
        execution=execution,
    )
    trainer.on(EpochEnded, lambda _: ended())
    trainer.fit()
    return model


def lightning(case: Case, epochs: int, ended: Ended, barebones: bool = True) -> Any:
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
            ended()

    plain = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    module = Module()
    lightning.Trainer(max_epochs=epochs, accelerator="cpu", **{"barebones": True} if barebones else plain).fit(
        module, case.loader()
    )
    return module.net


def fabric(case: Case, epochs: int, ended: Ended) -> Any:
    from lightning.fabric import Fabric

    made = Fabric(accelerator="cpu")
    net, loss_fn, optimizer = case.begin()
    model, optimizer = made.setup(net, optimizer)
    loader = made.setup_dataloaders(case.loader())
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            made.backward(loss_fn(model(inputs), targets))
            optimizer.step()
        ended()
    return net


def ignite(case: Case, epochs: int, ended: Ended) -> Any:
    from ignite.engine import Events, create_supervised_trainer

    model, loss, optimizer = case.begin()
    trainer = create_supervised_trainer(model, optimizer, loss, device="cpu")
    trainer.add_event_handler(Events.EPOCH_COMPLETED, ended)
    trainer.run(case.loader(), max_epochs=epochs)
    return model


def accelerate(case: Case, epochs: int, ended: Ended) -> Any:
    from accelerate import Accelerator

    made = Accelerator(cpu=True)
    net, loss_fn, adam = case.begin()
    model, optimizer, loader = made.prepare(net, adam, case.loader())
    for _ in range(epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            made.backward(loss_fn(model(inputs), targets))
            optimizer.step()
        ended()
    return net


def skorch(case: Case, epochs: int, ended: Ended) -> Any:
    from skorch import NeuralNet
    from skorch.callbacks import Callback

    class Tell(Callback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            ended()

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
        verbose=0,
        callbacks=[Tell()],
        callbacks__print_log=None,
        **options,
    )
    net.initialize()
    net.module_.load_state_dict(model.state_dict())
    net.partial_fit(*case.data())
    return net.module_


def fastai(case: Case, epochs: int, ended: Ended) -> Any:
    from fastai.callback.core import Callback, TrainEvalCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    class Tell(Callback):
        def after_epoch(self) -> None:
            ended()

    model, loss, optimizer = case.begin()
    learner = Learner(
        DataLoaders(case.loader(), case.loader()),
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
    return model


def transformers(case: Case, epochs: int, ended: Ended) -> Any:
    import tempfile

    import transformers as hf
    from torch.utils.data import TensorDataset

    class Tell(hf.TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            ended()

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
            use_cpu=True,
            report_to="none",
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            max_grad_norm=0,
            lr_scheduler_type="constant",
        )
        import torch

        trainer = Trainer(
            model,
            arguments,
            train_dataset=TensorDataset(*case.data()),
            data_collator=lambda rows: tuple(torch.stack(column) for column in zip(*rows, strict=True)),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
            callbacks=[Tell()],
        )
        trainer.train()
    return model


def keras(case: Case, epochs: int, ended: Ended) -> Any:
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras as library

    class Tell(library.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            ended()

    net, _, optimizer = case.begin()
    inputs, targets = case.data()
    model = library.Sequential([library.layers.TorchModuleWrapper(net)])
    kind = {"SGD": library.optimizers.SGD, "Adam": library.optimizers.Adam}[type(optimizer).__name__]
    regression = targets.is_floating_point()
    model.compile(
        optimizer=kind(learning_rate=optimizer.defaults["lr"]),
        loss="mean_squared_error" if regression else library.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(inputs.numpy(), targets.numpy(), batch_size=case.batch_size, epochs=epochs, verbose=0, callbacks=[Tell()])
    return net


OURS: dict[str, Callable[[Case, int, Ended], Any]] = {
    "tutorial's loop": tutorial,
    "epochal eager": partial(epochal, execution="eager"),
    "epochal eager, fused": partial(epochal, execution="eager", fused=True),
    "epochal compiled": partial(epochal, execution="compiled"),
}
PEERS: dict[str, Callable[[Case, int, Ended], Any]] = {
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
warnings.simplefilter("ignore")
