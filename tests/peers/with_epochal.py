"""epochal, with one's own objects."""

from __future__ import annotations

from torch import nn

from engine import Trainer
from engine.events import EpochEnded
from engine.parts.schedule import Schedule
from engine.recipe import Checkpoint
from tests.peers.common import RATES, Fitted, Plan, begin, loader


def fit(plan: Plan) -> Fitted:
    net, optimizer, scheduler = begin(plan)
    saving = plan.save_at or plan.resume
    trainer = Trainer(
        model=net,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        train=plan.data if plan.shuffle else loader(plan),
        batch_size=plan.batch_size,
        validation=plan.validation,
        scheduler=scheduler and Schedule(scheduler, "step"),
        epochs=plan.epochs,
        accumulate=plan.accumulate,
        device="cpu",
        run_dir=plan.place / "run" if saving else None,
        checkpoint=Checkpoint(min_seconds=0.0),
    )
    if plan.save_at:
        optimizer.register_step_post_hook(lambda *_: trainer.control.stop() if len(RATES) == plan.save_at else None)
    rows: list[EpochEnded] = []
    trainer.on(EpochEnded, rows.append)
    trainer.fit()
    loss = rows[-1].metrics["train/loss"] if rows else float("nan")
    return Fitted(net, loss, trainer.step, list(RATES), len(RATES))
