"""The loop of PyTorch's own tutorials, with the checkpoint of its "saving and loading a general checkpoint"."""

from __future__ import annotations

import torch
from torch import nn

from tests.peers.common import RATES, Fitted, Plan, begin, loader


def fit(plan: Plan) -> Fitted:
    net, optimizer, scheduler = begin(plan)
    loss_fn, first, saved, taken = nn.CrossEntropyLoss(), 0, 0, 0
    path = plan.place / "checkpoint.pt"
    if plan.resume:
        held = torch.load(path)
        net.load_state_dict(held["model"])
        optimizer.load_state_dict(held["optimizer"])
        if scheduler:
            scheduler.load_state_dict(held["scheduler"])
        first = held["epoch"]
    batches, mean = loader(plan), float("nan")
    for epoch in range(first, plan.epochs):
        net.train()
        total = 0.0
        for number, (inputs, targets) in enumerate(batches, 1):
            loss = loss_fn(net(inputs), targets) / plan.accumulate
            loss.backward()
            total += loss.item() * plan.accumulate
            if number % plan.accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                taken += 1
                if scheduler:
                    scheduler.step()
        mean = total / len(batches)  # as the tutorial's test loop has it
        if plan.validation:
            net.eval()
            with torch.no_grad():
                for inputs, targets in loader(plan, plan.validation):
                    loss_fn(net(inputs), targets)
        if plan.save_at and not saved and taken >= plan.save_at - plan.save_at % len(batches):
            state = {"epoch": epoch + 1, "model": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | ({"scheduler": scheduler.state_dict()} if scheduler else {}), path)
            saved = taken
    return Fitted(net, mean, saved, list(RATES), len(RATES))
