"""skorch: NeuralNetClassifier; its Checkpoint and LoadInitState are of whole epochs."""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Checkpoint, LoadInitState, LRScheduler
from skorch.helper import predefined_split
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import TensorDataset

from tests.peers.common import RATES, SCHEDULERS, Fitted, Missing, Plan, Watched, begin


def fit(plan: Plan) -> Fitted:
    if plan.accumulate > 1:
        raise Missing("no accumulation of gradients; its documentation shows how to write one's own")
    net, _, _ = begin(plan)
    callbacks: list[object] = []
    if plan.scheduler:
        policy = getattr(lr_scheduler, plan.scheduler)
        callbacks.append(LRScheduler(policy=policy, step_every="batch", **SCHEDULERS[plan.scheduler]))
    first = len(plan.data[0]) // plan.batch_size

    def is_first(model: NeuralNetClassifier) -> bool:
        return len(model.history) == 1

    saver = Checkpoint(monitor=is_first if plan.save_at else None, dirname=str(plan.place / "skorch"), load_best=False)
    if plan.save_at:
        callbacks.append(saver)
    if plan.resume:
        callbacks.append(LoadInitState(saver))
    model = NeuralNetClassifier(
        net,
        criterion=nn.CrossEntropyLoss,
        optimizer=Watched,
        lr=plan.lr,
        **({"optimizer__momentum": plan.momentum} if plan.momentum else {}),
        batch_size=plan.batch_size,
        max_epochs=plan.epochs - plan.resume,
        iterator_train__shuffle=plan.shuffle,
        train_split=predefined_split(TensorDataset(*plan.validation)) if plan.validation else None,
        callbacks=callbacks,
        verbose=0,
        classes=[0, 1, 2],
    )
    model.fit(plan.data[0], plan.data[1])
    fitted: torch.nn.Module = model.module_
    return Fitted(fitted, model.history[-1]["train_loss"], first if plan.save_at else 0, list(RATES), len(RATES))
