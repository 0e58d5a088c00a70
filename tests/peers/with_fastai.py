"""fastai: a Learner; what it saves is of whole epochs, and its schedules are its own."""

from __future__ import annotations

from functools import partial

from fastai.callback.training import GradientAccumulation
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import OptimWrapper
from torch import nn
from torch.utils.data import TensorDataset

from tests.peers.common import RATES, Fitted, Missing, Plan, Watched, begin


def fit(plan: Plan) -> Fitted:
    if plan.scheduler:
        raise Missing("schedules of its own, not torch's")
    net, _, _ = begin(plan)
    parts = [(plan.data, plan.shuffle)] + ([(plan.validation, False)] if plan.validation else [])
    loaders = [DataLoader(TensorDataset(*data), bs=plan.batch_size, shuffle=shuffle, num_workers=0) for data, shuffle in parts]
    if not plan.validation:
        loaders.append(DataLoader(TensorDataset(*(part[:0] for part in plan.data)), bs=plan.batch_size, num_workers=0))
    learner = Learner(
        DataLoaders(*loaders),
        net,
        loss_func=nn.CrossEntropyLoss(),
        opt_func=partial(OptimWrapper, opt=partial(Watched, momentum=plan.momentum)),
        lr=plan.lr,
        path=plan.place,
        cbs=[GradientAccumulation(plan.accumulate * plan.batch_size)] if plan.accumulate > 1 else [],
    )
    with learner.no_bar(), learner.no_logging():
        if plan.save_at:
            learner.fit(1, lr=plan.lr)
            learner.save("held")
        elif plan.resume:
            learner.load("held")
            learner.fit(plan.epochs, lr=plan.lr, start_epoch=1)
        else:
            learner.fit(plan.epochs, lr=plan.lr)
    each = -(-len(plan.data[0]) // plan.batch_size)
    loss = float(learner.recorder.values[-1][0])
    return Fitted(net, loss, each if plan.save_at else 0, list(RATES), len(RATES))
