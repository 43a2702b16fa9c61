"""Generator blocks with gated linear units, as StackGAN++, AttnGAN and MirrorGAN have them; no convolution has a bias.

A gated linear unit multiplies the first half of the channels by the sigmoid of the second (Dauphin et al. 2017, arXiv
1612.08083), so the convolution before it has twice the channels that come out. Sources: hanzhanggit/StackGAN-v2 and
taoxugit/AttnGAN.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps the side."""
    return nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)


def glu_block(inputs: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm, gate: (B, inputs, H, W) to (B, outputs, H, W)."""
    return nn.Sequential(conv3x3(inputs, 2 * outputs), nn.BatchNorm2d(2 * outputs), nn.GLU(1))


def glu_up(inputs: int, outputs: int) -> nn.Sequential:
    """Double the side by repeating pixels, then a ``glu_block``: (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
    return nn.Sequential(nn.Upsample(scale_factor=2), *glu_block(inputs, outputs))


def to_image(channels: int) -> nn.Sequential:
    """Features to a picture: (B, channels, S, S) to (B, 3, S, S) in [-1, 1]."""
    return nn.Sequential(conv3x3(channels, 3), nn.Tanh())


def tile(code: Tensor, features: Tensor) -> Tensor:
    """Repeat a code at every place of a map: (B, C) to (B, C, H, W) with H and W of ``features``."""
    return code[:, :, None, None].expand(-1, -1, *features.shape[2:])


class GLUResidual(nn.Module):
    """Add to the map two convolutions of itself, a gate between them and no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *glu_block(channels, channels), conv3x3(channels, channels), nn.BatchNorm2d(channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` plus the block's output."""
        total: Tensor = features + self.block(features)
        return total


class FirstStage(nn.Module):
    """From a code to the first map: (B, inputs) to (B, width, size, size).

    A gated linear layer makes a 4 x 4 map, which is doubled up to ``size`` while its channels are halved.

    Args:
        inputs: length of the code.
        width: channels that come out.
        size: side, a power of two of at least 8. The papers have 64 and begin with ``16 * width`` channels, which are
            the most here for larger sizes too.
    """

    def __init__(self, inputs: int, width: int, size: int) -> None:
        super().__init__()
        doublings = round(math.log2(size)) - 2
        widths = [width * min(16, 2 ** (doublings - i)) for i in range(doublings + 1)]
        self.fc = nn.Sequential(
            nn.Linear(inputs, 32 * widths[0], bias=False), nn.BatchNorm1d(32 * widths[0]), nn.GLU(1)
        )
        self.up = nn.Sequential(*(glu_up(*pair) for pair in pairwise(widths)))

    def forward(self, code: Tensor) -> Tensor:
        """Return the features that the first picture is made of."""
        features: Tensor = self.up(self.fc(code).unflatten(1, (-1, 4, 4)))
        return features


def orthogonal_init(module: nn.Module) -> None:
    """Initialise one layer as StackGAN++ and its heirs do; use with ``network.apply(orthogonal_init)``.

    Weights of convolutions and linear layers are orthogonal with gain 1 (Saxe et al. 2014, arXiv 1312.6120), batch
    norms N(1, 0.02); biases are 0 but for those of convolutions, which keep PyTorch's default.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.orthogonal_(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
