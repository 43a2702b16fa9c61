"""Conditioning augmentation (Zhang et al. 2017, StackGAN, section 3.2), as StackGAN, StackGAN++ and AttnGAN have it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

CAActivation = Literal["relu", "lrelu", "glu"]


class ConditioningAugmentation(nn.Module):
    """A sentence to a normal distribution, and a draw from it: (B, D) and noise (B, C) to three times (B, C).

    Args:
        text_dim: D.
        dim: C, the length of the condition.
        activation: after the linear layer: ``relu`` in the PyTorch code of StackGAN, so that mean and log-variance are
            at least 0; ``lrelu`` (0.2) in its TensorFlow code; ``glu`` in StackGAN++, AttnGAN and MirrorGAN.
    """

    def __init__(self, text_dim: int, dim: int, activation: CAActivation) -> None:
        super().__init__()
        self.fc = nn.Linear(text_dim, (4 if activation == "glu" else 2) * dim)
        layers = {"relu": nn.ReLU(), "lrelu": nn.LeakyReLU(0.2), "glu": nn.GLU(1)}
        self.activation = layers[activation]

    def forward(self, sentence: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the condition ``mu + exp(logvar / 2) * noise``, ``mu`` and ``logvar``."""
        mu, logvar = self.activation(self.fc(sentence)).chunk(2, dim=1)
        return mu + torch.exp(0.5 * logvar) * noise, mu, logvar
