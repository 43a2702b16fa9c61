"""The networks of char-CNN-RNN (Reed et al. 2016, arXiv 1605.05395): captions, character by character, to embeddings.

Sources: ``HybridCNN`` of reedscot/cvpr2016 (``rnn``, the flowers of GAN-CLS and StackGAN) and ``HybridCNNLong`` of
reedscot/icml2016 (``gru``, COCO and, by the name of its file, the birds). Letters in shapes: B captions, L = 201
characters, S steps of the recurrent layer, C its units, D the dimension of a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.nn.recurrent import run_recurrent

Variant = Literal["rnn", "gru"]

#: the 70 characters, numbered from 1; "-" is listed twice, and the authors' look-up finds the second, 60
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
LENGTH = 201  #: L; what is longer is cut
UNSEEN = 0  #: number of every other character and of padding: no input
WIDTHS: dict[str, int] = {"rnn": 256, "gru": 512}  #: C of the authors' networks
STEPS: dict[str, int] = {"rnn": 8, "gru": 18}  #: S
STRIDES: dict[str, int] = {"rnn": 18, "gru": 9}  #: characters from one step to the next

NUMBERS = {character: number for number, character in enumerate(ALPHABET, 1)}
_BOUND = 0.08  # of the initial weights


def numbers_of(captions: Sequence[str], lowercase: bool = False) -> Tensor:
    """Character numbers of captions, (B, 201) int64 on the CPU.

    Args:
        captions: B texts. Of a longer one the first 201 characters are read.
        lowercase: read capital letters as small ones; the authors ignore capitals.
    """
    table = torch.zeros(len(captions), LENGTH, dtype=torch.int64)
    for row, caption in enumerate(captions):
        text = caption.lower() if lowercase else caption
        found = [NUMBERS.get(character, UNSEEN) for character in text[:LENGTH]]
        table[row, : len(found)] = torch.tensor(found, dtype=torch.int64)
    return table


class FixedRNN(nn.Module):
    """A recurrent layer with ReLU: h_t = relu(i2h(x_t) + h2h(h_{t-1})), without h2h in the first step.

    Args:
        width: C, of what it reads and of its states.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.i2h = nn.Linear(width, width)
        self.h2h = nn.Linear(width, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """States (B, S, C) of inputs (B, S, C)."""
        read = self.i2h(inputs).unbind(1)
        states = [F.relu(read[0])]
        for given in read[1:]:
            states.append(F.relu(given + self.h2h(states[-1])))
        return torch.stack(states, 1)


class FixedGRU(nn.Module):
    """The authors' gated layer, which differs from ``torch.nn.GRU``.

    z, r = sigmoid(i2h(x) + h2h(h)); n = tanh(i2h(x) + h2h(r * h)), the reset gate *before* the matrix; and
    h' = z * n + (1 - z) * h, the update gate on the *candidate*. The first state is tanh(i2h(x)) without gates. Both
    matrices hold the rows of z, r and n, in this order.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.i2h = nn.Linear(width, 3 * width)
        self.h2h = nn.Linear(width, 3 * width)

    def forward(self, inputs: Tensor) -> Tensor:
        """States (B, S, C) of inputs (B, S, C)."""
        parts = [2 * self.width, self.width]  # of both gates, and of the candidate
        gates, candidates = torch.split(self.i2h(inputs), parts, 2)
        weights, biases = (torch.split(tensor, parts) for tensor in (self.h2h.weight, self.h2h.bias))
        states = [torch.tanh(candidates[:, 0])]
        for step in range(1, inputs.shape[1]):
            former = states[-1]
            both = torch.sigmoid(gates[:, step] + F.linear(former, weights[0], biases[0]))
            update, reset = both.chunk(2, 1)
            new = torch.tanh(candidates[:, step] + F.linear(reset * former, weights[1], biases[1]))
            states.append(update * new + (1 - update) * former)
        return torch.stack(states, 1)


class CharCNNRNNNetwork(nn.Module):
    """Three convolutions over characters, a recurrent layer, the mean of its states, a linear layer.

    All weights and biases begin uniform in [-0.08, 0.08].

    Args:
        variant: ``rnn`` pools once more before its layer, and has 8 steps; ``gru`` has 18.
        cnn_dim: C; None is the authors', 256 of ``rnn`` and 512 of ``gru``.
        dim: D.
        first_channels, second_channels: of the first two convolutions.
    """

    def __init__(
        self,
        variant: Variant = "rnn",
        cnn_dim: int | None = None,
        dim: int = 1024,
        first_channels: int = 384,
        second_channels: int = 512,
    ) -> None:
        super().__init__()
        self.variant = variant
        width = cnn_dim or WIDTHS[variant]
        self.conv1 = nn.Conv1d(len(ALPHABET), first_channels, 4)
        self.conv2 = nn.Conv1d(first_channels, second_channels, 4)
        self.conv3 = nn.Conv1d(second_channels, width, 4)
        self.recurrent = FixedRNN(width) if variant == "rnn" else FixedGRU(width)
        self.linear = nn.Linear(width, dim)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -_BOUND, _BOUND)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Read captions.

        Args:
            numbers: (B, 201) int64 from 0 to 70; 0 is no input.

        Returns:
            States (B, S, C) and captions (B, D). Step s sees the characters from ``STRIDES * s`` on: 48 of them of
            ``gru``, 66 of ``rnn``, and through the former states all before.
        """
        symbols = torch.arange(1, len(ALPHABET) + 1, device=numbers.device)
        x = (numbers[:, None] == symbols[:, None]).to(self.conv1.weight.dtype)  # (B, 70, 201)
        x = F.max_pool1d(F.relu(self.conv1(x)), 3, 3)
        x = F.max_pool1d(F.relu(self.conv2(x)), 3, 3)
        x = F.relu(self.conv3(x))
        if self.variant == "rnn":
            x = F.max_pool1d(x, 3, 2)
        states = run_recurrent(self.recurrent, x.mT)
        return states, self.linear(states.mean(1))
