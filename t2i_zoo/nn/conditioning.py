"""Conditioning augmentation (Zhang et al. 2017, StackGAN, section 3.2), as StackGAN, StackGAN++ and AttnGAN have it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

CAActivation = Literal["relu", "lrelu", "glu"]


class ConditioningAugmentation(nn.Module):
    """A sentence embedding to a normal distribution, and a draw from it.

    Args:
        text_dim: D of the sentence embedding.
        dim: C of the condition.
        activation: after the linear layer: ``relu`` in the PyTorch code of StackGAN, so that mean and log-variance are
            at least 0; ``lrelu`` (0.2) in its TensorFlow code; ``glu`` in StackGAN++ and the AttnGAN family.
    """

    def __init__(self, text_dim: int, dim: int, activation: CAActivation) -> None:
        super().__init__()
        self.fc = nn.Linear(text_dim, (4 if activation == "glu" else 2) * dim)
        layers = {"relu": nn.ReLU(), "lrelu": nn.LeakyReLU(0.2), "glu": nn.GLU(1)}
        self.activation = layers[activation]

    def forward(self, sentence: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From (B, D) and noise (B, C), return ``mu + exp(logvar / 2) * noise``, ``mu`` and ``logvar``, (B, C) each."""
        mu, logvar = self.activation(self.fc(sentence)).chunk(2, dim=1)
        return mu + torch.exp(0.5 * logvar) * noise, mu, logvar


def split_noise(noise: Tensor, lengths: list[int], *, augment: bool) -> tuple[Tensor, ...]:
    """The noise vector z, and the noise of each conditioning augmentation after it.

    Args:
        noise: (B, Z), all random numbers of B images.
        lengths: dimensions of the parts, Z in sum.
        augment: whether conditioning augmentation draws; without it the condition is its mean, for noise of 0.
    """
    z, *draws = torch.split(noise, lengths, dim=1)
    return z, *(draws if augment else map(torch.zeros_like, draws))
