"""The Trainer of Hugging Face's transformers on a plain module."""

from __future__ import annotations

import os
import tempfile
import warnings
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from tests.peers.common import RATES, Data, Fitted, Plan, begin

warnings.simplefilter("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
os.environ["TQDM_DISABLE"] = "1"


class Records(Dataset):
    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.data[0][index], "labels": self.data[1][index]}


class Model(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.net(x)}


def loss_of(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """As its documentation writes a loss that knows of accumulation."""
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.functional.cross_entropy(outputs["logits"], labels, reduction=reduction)
    return loss if num_items_in_batch is None else loss / num_items_in_batch


class InOrder(Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return SequentialSampler(self.train_dataset)


def fit(plan: Plan) -> Fitted:
    net, optimizer, scheduler = begin(plan)
    with tempfile.TemporaryDirectory() as other:
        arguments = TrainingArguments(
            output_dir=str(plan.place if plan.save_at or plan.resume else other),
            per_device_train_batch_size=plan.batch_size,
            per_device_eval_batch_size=plan.batch_size,
            gradient_accumulation_steps=plan.accumulate,
            num_train_epochs=plan.epochs,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            eval_strategy="epoch" if plan.validation else "no",
            save_strategy="steps" if plan.save_at else "no",
            save_steps=plan.save_at or 500,
            logging_strategy="epoch",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
        )
        trainer = (Trainer if plan.shuffle else InOrder)(
            Model(net),
            arguments,
            train_dataset=Records(plan.data),
            eval_dataset=plan.validation and Records(plan.validation),
            compute_loss_func=loss_of,
            optimizers=(optimizer, scheduler),
        )
        path = str(plan.place / "checkpoint-7") if plan.resume else None
        result = trainer.train(resume_from_checkpoint=path)
    return Fitted(net, result.training_loss, plan.save_at, list(RATES), len(RATES))
