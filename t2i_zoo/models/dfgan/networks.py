"""DF-GAN networks: one generator that fuses the text in every block, and a discriminator with a one-way output.

Authors' code: tobran/DF-GAN. Its rewrite of 2022 belongs to the CVPR paper and the published weights, its code of 2020
to the preprint; the card lists all differences. Shapes: B batch, Z noise dimension, D sentence dimension, Y dimension
of the generator's condition, S image side.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.nn import ConditionalDiscriminator, Logits, laid_out_as, tile

Variant = Literal["cvpr", "preprint"]
CAPS: dict[Variant, int] = {"cvpr": 8, "preprint": 16}  #: most channels of the discriminator, in widths
PREPRINT_HIDDEN = 256  #: hidden units of the preprint's MLPs; in the CVPR code as many as the channels


def widths(width: int, image_size: int, cap: int = 8) -> list[int]:
    """Channels at each size from S down to 4 px: doubled with each halving up to ``cap * width``."""
    return [width * min(2**i, cap) for i in range(round(math.log2(image_size)) - 1)]


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)  # of fresh tensors alone: half the memory


class Affine(nn.Module):
    """Scale and shift each channel of (B, C, H, W) by two MLPs of the condition (B, Y); the identity at first."""

    def __init__(self, channels: int, condition_dim: int, hidden: int) -> None:
        super().__init__()

        def mlp(bias: float) -> nn.Sequential:
            last = nn.Linear(hidden, channels)
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, bias)
            return nn.Sequential(nn.Linear(condition_dim, hidden), nn.ReLU(), last)

        self.scale, self.shift = mlp(1.0), mlp(0.0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        scale, shift = self.scale(condition), self.shift(condition)
        return torch.addcmul(shift[:, :, None, None], scale[:, :, None, None], x)


class Fusion(nn.Module):
    """The paper's DFBlock: an affine transformation by the text and a leaky ReLU, twice."""

    def __init__(self, channels: int, condition_dim: int, hidden: int) -> None:
        super().__init__()
        self.affines = nn.ModuleList(Affine(channels, condition_dim, hidden) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        for affine in self.affines:
            x = _activate(affine(x, condition))
        return x


class UpBlock(nn.Module):
    """The paper's UPBlock: (B, C, H, W) doubled by nearest neighbours, plus a residual of two fusions.

    Args:
        inputs: channels before.
        outputs: channels after.
        condition_dim: Y.
        up: whether it doubles the side; the preprint's first block does not.
        hidden: hidden units of the affine MLPs; by default as many as their channels.
        scaled: multiply the residual by a parameter that starts at 0, as the preprint does.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition_dim: int,
        *,
        up: bool = True,
        hidden: int | None = None,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        self.up = up
        self.first = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.fusions = nn.ModuleList(Fusion(c, condition_dim, hidden or c) for c in (inputs, outputs))
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.gamma = nn.Parameter(torch.zeros(1)) if scaled else None

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, 2H, 2W); no activation after the sum."""
        # The authors upsample first. What works on each place by itself costs a quarter before that.
        residual = self.first(self._grown(self.fusions[0](x, condition)))
        residual = self.second(self.fusions[1](residual, condition))
        shortcut = self._grown(self.shortcut(x))
        return shortcut + residual if self.gamma is None else torch.addcmul(shortcut, self.gamma, residual)

    def _grown(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0) if self.up else x


class Generator(nn.Module):
    """Noise (B, Z) and sentence embeddings (B, D) to images (B, 3, S, S) in [-1, 1], without any normalization layer.

    The first map is of the noise alone. Each block is conditioned on the noise and the sentence, in the preprint on the
    sentence.

    Args:
        text_dim: D.
        noise_dim: Z.
        width: channels at S px (``nf``).
        image_size: S, a power of two of at least 16.
        variant: ``cvpr`` or ``preprint``.
    """

    def __init__(self, text_dim: int, noise_dim: int, width: int, image_size: int, variant: Variant = "cvpr") -> None:
        super().__init__()
        channels = widths(width, image_size)[::-1]
        self.variant, self.channels = variant, channels[0]
        self.project = nn.Linear(noise_dim, channels[0] * 16)
        if variant == "cvpr":
            blocks = [UpBlock(*pair, noise_dim + text_dim) for pair in pairwise(channels)]
        else:
            pairs = [(channels[0], channels[0]), *pairwise(channels)]
            blocks = [
                UpBlock(*pair, text_dim, up=i > 0, hidden=PREPRINT_HIDDEN, scaled=True) for i, pair in enumerate(pairs)
            ]
        self.blocks = nn.ModuleList(blocks)
        self.to_image = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1]."""
        x = self.project(noise).unflatten(1, (self.channels, 4, 4))
        x = laid_out_as(self.to_image.weight, x)
        condition = torch.cat([noise, sentence], 1) if self.variant == "cvpr" else sentence
        for block in self.blocks:
            x = block(x, condition)
        return torch.tanh(self.to_image(_activate(x)))


class DownBlock(nn.Module):
    """(B, inputs, H, W) to (B, outputs, H/2, W/2): its mean, plus a residual times a parameter that starts at 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        # The authors create the 1 x 1 convolution in every block and use it only in these.
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """One halving."""
        residual = _activate(self.second(_activate(self.first(x))))
        # The authors convolve first; of a mean it is the same, and costs a quarter.
        return torch.addcmul(self.shortcut(F.avg_pool2d(x, 2)), self.gamma, residual)


class Trunk(nn.Module):
    """Images (B, 3, S, S) to features (B, C, 4, 4), the authors' ``NetD``."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 3, 1, 1)
        self.blocks = nn.ModuleList(DownBlock(*pair) for pair in pairwise(channels))

    def forward(self, images: Tensor) -> Tensor:
        """Features, without an activation after the last sum."""
        x: Tensor = self.stem(images)
        for block in self.blocks:
            x = block(x)
        return x


class Discriminator(ConditionalDiscriminator):
    """Images (B, 3, S, S) in [-1, 1] and sentence embeddings (B, D) to one logit each, of the pair alone.

    The paper calls this a one-way output: there is no judgement of the image by itself.

    Args:
        text_dim: D.
        width: channels at S px (``nf``).
        image_size: S, a power of two of at least 16.
        variant: ``cvpr``, or ``preprint`` with up to twice the channels.
    """

    def __init__(self, text_dim: int, width: int, image_size: int, variant: Variant = "cvpr") -> None:
        super().__init__()
        self.condition_dim = text_dim
        channels = widths(width, image_size, CAPS[variant])
        self.trunk = Trunk(channels)
        self.joint = nn.Sequential(
            nn.Conv2d(channels[-1] + text_dim, 2 * width, 3, 1, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 4, bias=False),
        )

    def features(self, images: Tensor) -> Tensor:
        """Features (B, C, 4, 4), C = 8 or (preprint) 16 widths from 64 or 128 px on."""
        found: Tensor = self.trunk(images)
        return found

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,)."""
        return Logits(self.joint(torch.cat([features, tile(condition, features)], 1)).flatten())
