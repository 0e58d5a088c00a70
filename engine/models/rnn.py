"""The recurrent network."""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from engine.models.shapes import as_sequence, positive, sequence_shape, text_length


class RNN(nn.Module):
    """A GRU or LSTM over the sample as a sequence, its last state into a linear layer.

    Sequences (steps, features) are taken as they are, images row by row, flat features one number a step. Text is embedded,
    and each place's state goes into the linear layer.

    Args:
        cell: the recurrent unit
        hidden: width of the state
        layers: recurrent layers on top of each other
        dropout: share of each layer's outputs that is zeroed in training
        bidirectional: read the sequence from both ends
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "regression", "text")

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_size: int,
        vocabulary: int | None = None,
        cell: Literal["gru", "lstm"] = "gru",
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        positive(hidden=hidden, layers=layers)
        self.embedding: nn.Embedding | None = None
        if vocabulary is None:
            _, features = sequence_shape("rnn", input_shape)
        else:
            vocabulary, _ = text_length("rnn", input_shape, vocabulary)
            if bidirectional:
                raise ValueError(
                    f"bidirectional = true lets rnn see the token that it is to predict: for text of shape {input_shape} "
                    "set it to false, or choose gpt"
                )
            features = hidden
            self.embedding = nn.Embedding(vocabulary, features)
        self.cell = (nn.LSTM if cell == "lstm" else nn.GRU)(
            features,
            hidden,
            num_layers=layers,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,  # torch's own stands between layers only
            bidirectional=bidirectional,
        )
        self.dropout = nn.Dropout(dropout)
        self.directions = 2 if bidirectional else 1
        self.head = nn.Linear(self.directions * hidden, output_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, F), (B, C, H, W) or (B, F) to (B, output_size); tokens (B, T) to (B, output_size, T)."""
        if self.embedding is not None:
            states, _ = self.cell(self.embedding(inputs))
            return self.head(self.dropout(states)).transpose(1, 2)
        _, state = self.cell(as_sequence(inputs))
        if isinstance(state, tuple):  # an LSTM's state is (h, c)
            state = state[0]
        last = torch.cat(state[-self.directions :].unbind(), dim=1)  # the top layer's, from each direction
        return self.head(self.dropout(last))
