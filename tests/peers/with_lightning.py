"""Lightning: a LightningModule and a Trainer."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from tests.peers.common import RATES, Fitted, Plan, begin, loader

warnings.simplefilter("ignore")
for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
        super().__init__()
        self.net, self._made = net, (optimizer, scheduler)

    def training_step(self, batch: Any, number: int) -> Any:
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self.net(inputs), targets)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, number: int) -> None:
        inputs, targets = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(inputs), targets))

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = self._made
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(plan: Plan) -> Fitted:
    net, optimizer, scheduler = begin(plan)
    module = Module(net, optimizer, scheduler)
    saver = ModelCheckpoint(plan.place, filename="{step}", every_n_train_steps=plan.save_at, save_top_k=-1)
    trainer = lightning.Trainer(
        max_epochs=plan.epochs,
        accelerator="cpu",
        accumulate_grad_batches=plan.accumulate,
        callbacks=[saver] if plan.save_at else [],
        enable_checkpointing=bool(plan.save_at),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    path = plan.place / "step=7.ckpt" if plan.resume else None
    trainer.fit(module, loader(plan), plan.validation and loader(plan, plan.validation), ckpt_path=path)
    loss = float(trainer.callback_metrics.get("train_loss", float("nan")))
    return Fitted(net, loss, plan.save_at, list(RATES), len(RATES))
