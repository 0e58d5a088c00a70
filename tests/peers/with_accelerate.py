"""Accelerate: the loop of its documentation; `accumulate`, `save_state`, `load_state`, `skip_first_batches`."""

from __future__ import annotations

from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DataLoaderConfiguration
from torch import nn

from tests.peers.common import RATES, Fitted, Missing, Plan, begin, loader


def fit(plan: Plan) -> Fitted:
    if plan.lr == 0.0:
        raise Missing("the epoch's loss is summed by the user's own loop")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    net, optimizer, scheduler = begin(plan)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=plan.accumulate,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
        step_scheduler_with_optimizer=True,
    )
    model, optimizer, batches = accelerator.prepare(net, optimizer, loader(plan))
    if scheduler:
        scheduler = accelerator.prepare(scheduler)
    held = accelerator.prepare(loader(plan, plan.validation)) if plan.validation else None
    loss_fn, first, done = nn.CrossEntropyLoss(), 0, 0
    if plan.resume:
        accelerator.load_state(str(plan.place))
        first, done = divmod(7, len(batches))
    taken = 0
    for epoch in range(first, plan.epochs):
        model.train()
        batches.set_epoch(epoch)
        for inputs, targets in skip_first_batches(batches, done) if done else batches:
            with accelerator.accumulate(model):
                accelerator.backward(loss_fn(model(inputs), targets))
                optimizer.step()
                if scheduler:
                    scheduler.step()
                optimizer.zero_grad()
            taken += 1
            if taken == plan.save_at:
                accelerator.save_state(str(plan.place))
        done = 0
        if held is not None:
            model.eval()
            for inputs, targets in held:
                loss_fn(model(inputs), targets)
    return Fitted(net, saved=plan.save_at, rates=list(RATES), steps=len(RATES))
