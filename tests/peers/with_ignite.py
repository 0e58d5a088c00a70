"""Ignite: `create_supervised_trainer` with handlers; its deterministic engine where a run is resumed."""

from __future__ import annotations

import warnings

import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Loss
from torch import nn

from tests.peers.common import RATES, Fitted, Plan, begin, loader

warnings.simplefilter("ignore")
NOTES = {"D1": "exact when it is stopped at an epoch's end"}


def fit(plan: Plan) -> Fitted:
    net, optimizer, scheduler = begin(plan)
    loss_fn = nn.CrossEntropyLoss()
    exact = plan.shuffle and plan.validation is None  # deterministic=True is its documented way to an exact resume
    trainer = create_supervised_trainer(
        net, optimizer, loss_fn, deterministic=exact, gradient_accumulation_steps=plan.accumulate
    )
    if scheduler:
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: scheduler.step())
    evaluator = create_supervised_evaluator(net, metrics={"loss": Loss(loss_fn)})
    batches, losses = loader(plan), []

    @trainer.on(Events.EPOCH_COMPLETED)
    def evaluate() -> None:
        if plan.validation:
            evaluator.run(loader(plan, plan.validation))
        elif plan.lr == 0.0:
            losses.append(evaluator.run(batches).metrics["loss"])

    parts = {"model": net, "optimizer": optimizer, "trainer": trainer} | ({"scheduler": scheduler} if scheduler else {})
    if plan.save_at:
        saver = Checkpoint(parts, DiskSaver(plan.place, create_dir=True, require_empty=False), filename_pattern="held.pt")
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=plan.save_at), saver)
    if plan.resume:
        Checkpoint.load_objects(parts, checkpoint=torch.load(plan.place / "held.pt", weights_only=False))
    trainer.run(batches, max_epochs=plan.epochs)
    return Fitted(net, losses[-1] if losses else float("nan"), plan.save_at, list(RATES), len(RATES))
