"""Preloaded by the fork server: whatever torch and the engine load on first use is loaded before the first life is forked."""

from __future__ import annotations

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # with a device, autograd starts threads that a fork does not bring along

import torch

from engine import Trainer
from engine.run import environment
from tests.torture.life import recipe

torch.set_num_threads(1)  # no pool of threads either
environment()
Trainer.from_recipe(recipe(**{"training.epochs": 1}), runs=None).fit()
