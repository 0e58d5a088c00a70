"""The built-in models: plain modules from (B, *input_shape) to (B, output_size) logits or numbers.

A constructor's `input_shape` (of one sample) and `output_size` come from the data; its other arguments are a recipe's.
"""

from __future__ import annotations

from torch import nn

from engine.models.cnn import CNN
from engine.models.linear import Linear
from engine.models.mlp import MLP
from engine.models.resnet import ResNet
from engine.models.rnn import RNN
from engine.models.transformer import Transformer

MODELS: dict[str, type[nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "resnet": ResNet,
    "rnn": RNN,
    "transformer": Transformer,
}
