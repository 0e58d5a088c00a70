"""The built-in models: plain modules from (B, *input_shape) to what their task needs.

A constructor's `input_shape` (of one sample), `output_size` and, for text, `vocabulary` come from the data; its other
arguments are a recipe's. `tasks` says what kinds of data a model is for: "classification" and "regression", to
(B, output_size) logits or numbers; "text", from tokens (B, T) to logits (B, output_size, T) of the next token at each place;
"reconstruction", to the inputs' own shape.
"""

from __future__ import annotations

from torch import nn

from engine.models.autoencoder import Autoencoder, ConvAutoencoder
from engine.models.cnn import CNN
from engine.models.gpt import GPT
from engine.models.libraries import Timm, Torchvision
from engine.models.linear import Linear
from engine.models.mlp import MLP
from engine.models.resnet import ResNet, ResNet18
from engine.models.rnn import RNN
from engine.models.transformer import Transformer
from engine.models.vit import ViT

MODELS: dict[str, type[nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "resnet": ResNet,
    "resnet18": ResNet18,
    "rnn": RNN,
    "transformer": Transformer,
    "vit": ViT,
    "gpt": GPT,
    "autoencoder": Autoencoder,
    "conv_autoencoder": ConvAutoencoder,
    "torchvision": Torchvision,
    "timm": Timm,
}
