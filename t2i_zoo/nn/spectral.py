"""Spectral normalisation (Miyato et al. 2018, arXiv 1802.05957) as the code of DM-GAN has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class SpectralNorm(nn.Module):
    """Divide a weight by an estimate of its largest singular value, which each forward in training refines.

    As ``torch.nn.utils.parametrizations.spectral_norm``, except that a step of the power iteration updates v and then
    u, as in the authors' code; torch's order would give other values for their weights. Neither gets a gradient.

    Args:
        weight: (outputs, ...), seen as a matrix with a row for each output.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        for name, length in zip("uv", matrix.shape, strict=True):
            self.register_buffer(name, F.normalize(matrix.new_empty(length).normal_(), dim=0))
        self._iterate(matrix)  # two random vectors alone would estimate nearly 0

    def forward(self, weight: Tensor) -> Tensor:
        """The weight over its estimated norm."""
        matrix = weight.flatten(1)
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self._iterate(matrix.detach())
            # Copies: the next forward changes the buffers before this one's backward.
            norm = torch.dot(self.u.clone(), torch.mv(matrix, self.v.clone()))
            return weight / norm

    def _iterate(self, matrix: Tensor) -> None:
        self.v.copy_(F.normalize(torch.mv(matrix.T, self.u), dim=0))
        self.u.copy_(F.normalize(torch.mv(matrix, self.v), dim=0))


def spectral_norm(conv: nn.Conv2d) -> nn.Conv2d:
    """Normalise the weight of a convolution whose weight is already initialised."""
    # Unsafe only leaves out a trial forward, which takes a step and is impossible without memory for the weights.
    parametrize.register_parametrization(conv, "weight", SpectralNorm(conv.weight), unsafe=True)
    return conv
