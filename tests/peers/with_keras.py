"""Keras with torch as its backend, the module in a TorchModuleWrapper."""

from __future__ import annotations

import contextlib
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras  # after its backend is chosen
import numpy
from torch import nn

from tests.peers.common import Fitted, Missing, Plan, begin


class Stop(keras.callbacks.Callback):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt  # the process ends here


def fit(plan: Plan) -> Fitted:
    if plan.scheduler:
        raise Missing("schedules of its own, functions of the step, not torch's")
    keras.utils.set_random_seed(0)
    net, _, _ = begin(plan)
    model = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(net)])
    window = {"gradient_accumulation_steps": plan.accumulate} if plan.accumulate > 1 else {}
    optimizer = keras.optimizers.SGD(plan.lr, momentum=plan.momentum, **window)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    model.compile(optimizer, loss)
    callbacks: list[object] = []
    if plan.save_at or plan.resume:
        path = plan.place / "backup"
        callbacks.append(keras.callbacks.BackupAndRestore(path, save_freq=7, double_checkpoint=False))
    if plan.save_at:
        callbacks.append(Stop(plan.save_at))
    history = None
    with contextlib.suppress(KeyboardInterrupt):
        history = model.fit(
            *(numpy.asarray(part) for part in plan.data),
            batch_size=plan.batch_size,
            epochs=plan.epochs,
            shuffle=plan.shuffle,
            validation_data=tuple(numpy.asarray(part) for part in plan.validation) if plan.validation else None,
            callbacks=callbacks,
            verbose=0,
        )
    steps = int(optimizer.iterations)  # of the steps, not of the batches
    value = history.history["loss"][-1] if history else float("nan")
    inner: nn.Module = net
    return Fitted(inner, value, plan.save_at, [], steps)
