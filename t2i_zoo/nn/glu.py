"""Generator blocks with gated linear units, and the generator of StackGAN++ and the AttnGAN family.

A gated linear unit multiplies the first half of the channels by the sigmoid of the second (Dauphin et al. 2017, arXiv
1612.08083), so the convolution before it has twice as many channels as the result. No convolution has a bias. Sources:
hanzhanggit/StackGAN-v2 and taoxugit/AttnGAN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.nn.checkpointing import checkpointed
from t2i_zoo.nn.conditioning import ConditioningAugmentation
from t2i_zoo.nn.init import orthogonal_init
from t2i_zoo.nn.layout import laid_out_as


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
    """Features to an image: (B, channels, S, S) to (B, 3, S, S) in [-1, 1]."""
    return nn.Sequential(conv3x3(channels, 3), nn.Tanh())


def tile(code: Tensor, features: Tensor) -> Tensor:
    """Repeat a code at every place of a map: (B, C) to (B, C, H, W) with H and W and the layout of ``features``."""
    return laid_out_as(features, code[:, :, None, None].expand(-1, -1, *features.shape[2:]))


class GLUResidual(nn.Module):
    """Add to a map (B, C, H, W) two convolutions of it with a gate between them; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *glu_block(channels, channels), conv3x3(channels, channels), nn.BatchNorm2d(channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` plus the block's output."""
        total: Tensor = features + self.block(features)
        return total


def glu_residuals(channels: int, count: int) -> nn.Sequential:
    """``count`` residual blocks in a row, (B, channels, H, W) to the same (``R_NUM`` in the papers' configs)."""
    return nn.Sequential(*(GLUResidual(channels) for _ in range(count)))


class FirstStage(nn.Module):
    """From a code to the first map: (B, inputs) to (B, width, size, size).

    A gated linear layer makes a 4 x 4 map, which is doubled up to ``size`` while its channels are halved.

    Args:
        inputs: dimension of the code.
        width: channels of the result.
        size: side, a power of two of at least 8. The papers have 64 and begin with ``16 * width`` channels, which is
            the maximum here for larger sizes too.
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
        """Return the features that the first image is made of."""
        first = self.fc(code).unflatten(1, (-1, 4, 4))
        features: Tensor = self.up(laid_out_as(next(self.up.parameters()), first))
        return features


class PyramidGenerator(nn.Module):
    """Noise, sentence embeddings and words to a pyramid of images in [-1, 1], smallest first.

    Args:
        text_dim: D of the sentence embedding; with 0 there is no conditioning augmentation, and the noise itself is the
            condition of the further stages.
        noise_dim: z.
        condition_dim: C of the augmented condition.
        widths: channels of the features at each size.
        size: side of the first stage's map.
        stages: the further stages, each of which doubles the side: from features, condition (B, C) and, for a model
            that reads words, words (B, T, W) and mask (B, T), to the next features and the attention (B, T, H, H) over
            the map it began with, or None.
        last_only: only the last stage has an image, as in AttnGAN's DCGAN variant.
        checkpointing: keep only what passes between the stages, and compute the rest again in the backward pass.
    """

    def __init__(
        self,
        text_dim: int,
        noise_dim: int,
        condition_dim: int,
        widths: Sequence[int],
        size: int,
        stages: Sequence[nn.Module],
        *,
        last_only: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.last_only, self.checkpointing = last_only, checkpointing
        self.augment = ConditioningAugmentation(text_dim, condition_dim, "glu") if text_dim else None
        self.first = FirstStage(noise_dim + condition_dim if text_dim else noise_dim, widths[0], size)
        self.stages = nn.ModuleList(stages)
        self.pictures = nn.ModuleList(to_image(width) for width in (widths[-1:] if last_only else widths))
        self.apply(orthogonal_init)

    def forward(
        self, noise: Tensor, sentence: Tensor, augmentation: Tensor, *words: Tensor | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Generate images.

        Args:
            noise: (B, z).
            sentence: (B, D).
            augmentation: (B, C) normal noise of conditioning augmentation; 0 makes the condition its mean.
            words: word features (B, T, W) and their mask (B, T) bool, true at words, where the stages read them.

        Returns:
            The images; and, as far as there are any, ``mu`` and ``logvar`` (B, C) of the condition and the attention of
            each further stage as ``attention_0`` and so on.
        """
        extras: dict[str, Tensor] = {}
        condition, code = noise, noise
        if self.augment is not None:
            condition, mu, logvar = self.augment(sentence, augmentation)
            # The condition comes before the noise, unlike in StackGAN: converted weights depend on it.
            code, extras = torch.cat([condition, noise], dim=1), {"mu": mu, "logvar": logvar}
        features = self._run(self.first, code)
        maps = [features]
        for i, stage in enumerate(self.stages):
            features, attention = self._run(stage, features, condition, *words)
            maps.append(features)
            if attention is not None:
                extras[f"attention_{i}"] = attention
        shown = maps[-1:] if self.last_only else maps
        return [to_rgb(features) for to_rgb, features in zip(self.pictures, shown, strict=True)], extras

    def _run(self, part: nn.Module, *inputs: Tensor | None) -> Any:
        return checkpointed(part, *inputs) if self.checkpointing else part(*inputs)
