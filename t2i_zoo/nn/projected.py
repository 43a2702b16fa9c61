"""Discriminators on the features of a frozen network: random mixing, one small head per resolution, text by projection.

Sauer et al. 2021, Projected GANs Converge Faster (arXiv 2111.01007); autonomousvision/projected-gan. Text enters each
head as StyleGAN-T has it (Sauer et al. 2023, arXiv 2301.09515): a dot product of the features with a linear map of the
sentence embedding. The frozen network is not part of these modules; they read its feature maps at four strides, the
taps, whose sizes decide the number of logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from t2i_zoo.nn.discriminator import ConditionalDiscriminator, Logits

_WIDTHS = (64, 128, 256, 512)  #: channels after each block of the first head; each further head has one block fewer


class FrozenConv1x1(nn.Module):
    """A random 1 x 1 convolution that is never trained: buffers, so that it is saved and no optimizer sees it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, 1)  # for its initial values
        for name, parameter in conv.named_parameters():
            self.register_buffer(name, parameter.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        return F.conv2d(x, self.weight, self.bias)


class FeatureMixer(nn.Module):
    """Mix taps at random across channels (CCM) and, from the coarsest to the finest, across scales (CSM).

    Without mixing, a discriminator attends to a small part of the features. The mixer is frozen and part of the
    checkpoint, because the same seed gives other numbers in other versions of PyTorch.

    Args:
        tap_channels: of the taps, the finest first.
        channels: of the two finest resulting maps; each coarser one has twice as many.

    Attributes:
        out_channels: of the resulting maps, 64, 64, 128 and 256 by default.
    """

    def __init__(self, tap_channels: Sequence[int], channels: int = 64) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(len(tap_channels))]
        self.out_channels = (channels, *widths[:-1])
        self.across_channels = nn.ModuleList(map(FrozenConv1x1, tap_channels, widths))
        self.across_scales = nn.ModuleList(map(FrozenConv1x1, widths, self.out_channels))

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Return one map per tap; each has the size of the next finer tap, the first twice that of its own."""
        height, width = taps[0].shape[2:]
        sizes = [(2 * height, 2 * width), *(tap.shape[2:] for tap in taps[:-1])]
        mixed: list[Tensor] = []
        for level in reversed(range(len(taps))):
            x = self.across_channels[level](taps[level])
            if mixed:
                x = x + mixed[0]
            # The paper enlarges first. The two commute, and this order takes a quarter of the work.
            x = self.across_scales[level](x)
            mixed.insert(0, F.interpolate(x, sizes[level], mode="bilinear", align_corners=True))
        return mixed


def down_block(inputs: int, outputs: int, separable: bool = False) -> nn.Sequential:
    """Halve the side: convolution with spectral norm, batch norm, leaky ReLU.

    Args:
        inputs: channels of the map (B, inputs, H, W).
        outputs: channels of the result (B, outputs, H / 2, W / 2).
        separable: one 3 x 3 filter per channel, a 1 x 1 convolution and average pooling instead of a 4 x 4 convolution
            with stride 2, as the authors use it with StyleGAN2.
    """
    rest = [nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
    if not separable:
        return nn.Sequential(spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1)), *rest)
    depthwise = spectral_norm(nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs))
    return nn.Sequential(depthwise, spectral_norm(nn.Conv2d(inputs, outputs, 1)), *rest, nn.AvgPool2d(2))


def batch_deviation(features: Tensor, group: int = 4) -> Tensor:
    """Append a channel with how far the images of a group differ at each place, averaged over channels.

    Karras et al. 2018 (arXiv 1710.10196), section 3, which averages over places too; a map shows besides where samples
    are alike. It lets a discriminator notice samples that all have one layout.

    Args:
        features: (B, C, H, W). Image i is in group i modulo B / ``group``; where ``group`` does not divide B, the whole
            batch is one.
        group: images per group.

    Returns:
        (B, C + 1, H, W).
    """
    count = len(features)
    groups = features.float().reshape(group if count % group == 0 else count, -1, *features.shape[1:])
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean(1, keepdim=True).to(features.dtype)
    return torch.cat([features, deviation.repeat(len(groups), 1, 1, 1)], 1)


class ProjectedHead(nn.Module):
    """The discriminator of one map: blocks that halve its side, then logits at every place.

    Args:
        inputs: channels of the map.
        side: of the map. Blocks that would reduce it below 1 x 1 are left out, and the last kernel is 4 x 4 or, if the
            blocks leave less, of that size.
        widths: channels after each block.
        condition_dim: D of the sentence embedding; 0 for no text.
        text_channels: dimension of the vectors whose dot product judges a pair.
        separable: as in ``down_block``.
        batch_std: append ``batch_deviation`` to the features.

    Attributes:
        out_channels: of the features.
    """

    def __init__(
        self,
        inputs: int,
        side: int,
        widths: Sequence[int],
        condition_dim: int = 0,
        text_channels: int = 64,
        separable: bool = False,
        batch_std: bool = False,
    ) -> None:
        super().__init__()
        self.batch_std = batch_std
        self.trunk = nn.Sequential()
        for width in widths:
            if side > 1:
                self.trunk.append(down_block(inputs, width, separable))
                inputs, side = width, side // 2
        self.out_channels, kernel = (inputs := inputs + batch_std), min(4, side)
        self.unconditional = spectral_norm(nn.Conv2d(inputs, 1, kernel, bias=False))
        if condition_dim:
            self.conditional = spectral_norm(nn.Conv2d(inputs, text_channels, kernel, bias=False))
            self.text = nn.Linear(condition_dim, text_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Features that all logits are computed from: (B, inputs, side, side) to (B, out_channels, h, w)."""
        features: Tensor = self.trunk(x)
        return batch_deviation(features) if self.batch_std else features

    def matched(self, features: Tensor, condition: Tensor) -> Tensor:
        """Logits (B, n) of features with sentence embeddings (B, D), one per place."""
        image, text = self.conditional(features), self.text(condition)
        logits: Tensor = (image * text[:, :, None, None]).sum(1).flatten(1) / math.sqrt(text.shape[1])
        return logits


class ProjectedDiscriminator(ConditionalDiscriminator):
    """Feature mixing and one head per tap; each image gets one logit per place of every head.

    Its batch norms mix the images of a batch, so it does not go with gradient penalties.

    Args:
        tap_channels: of the frozen network's maps, the finest first.
        tap_sizes: their sides, 56, 28, 14 and 7 for 224 px images. From 64 px images on (16, 8, 4 and 2) all blocks of
            the paper fit.
        condition_dim: D of the sentence embedding; 0 for no text.
        num_classes: K of the class logits, which are linear in the mean features of all heads; 0 for none.
        channels: of the mixed features, see ``FeatureMixer``.
        width: most channels of a head. The paper has 512; 64 gives small heads for training on a CPU.
        text_channels: dimension of the vectors whose dot product judges a pair.
        text_scale: factor of the matched logits. Below 1 it weakens the text, which can otherwise make all samples of
            one caption the same.
        separable: cheaper blocks; see ``down_block``.
        batch_std: let the heads see how far the images of a batch differ; see ``batch_deviation``.
    """

    heads: Any  # a ModuleList of ProjectedHead

    def __init__(
        self,
        tap_channels: Sequence[int],
        tap_sizes: Sequence[int],
        condition_dim: int = 0,
        num_classes: int = 0,
        *,
        channels: int = 64,
        width: int = 512,
        text_channels: int = 64,
        text_scale: float = 1.0,
        separable: bool = False,
        batch_std: bool = False,
    ) -> None:
        super().__init__()
        self.condition_dim, self.num_classes, self.text_scale = condition_dim, num_classes, text_scale
        self.mixer = FeatureMixer(tap_channels, channels)
        widths = [min(width, paper) for paper in _WIDTHS]
        sides = (2 * tap_sizes[0], *tap_sizes[:-1])
        self.heads = nn.ModuleList(
            ProjectedHead(inputs, side, widths[level:], condition_dim, text_channels, separable, batch_std)
            for level, (inputs, side) in enumerate(zip(self.mixer.out_channels, sides, strict=True))
        )
        total = sum(head.out_channels for head in self.heads)
        self.classify = nn.Linear(total, num_classes) if num_classes else None

    def features(self, taps: Sequence[Tensor]) -> list[Tensor]:  # type: ignore[override]
        """Features of each head from the taps (B, C, h, w) of images, the finest first."""
        mixed = self.mixer(taps)
        return [head(x) for head, x in zip(self.heads, mixed, strict=True)]

    def judge(self, features: Sequence[Tensor], condition: Tensor | None) -> Logits:
        """Matched logits (B, N) with sentence embeddings (B, D), and class logits (B, K); None without such heads."""
        matched = classes = None
        if condition is not None and self.condition_dim:
            logits = [head.matched(x, condition) for head, x in zip(self.heads, features, strict=True)]
            matched = torch.cat(logits, 1) * self.text_scale
        if self.classify is not None:
            classes = self.classify(torch.cat([x.mean((2, 3)) for x in features], 1))
        return Logits(matched=matched, classes=classes)

    def judge_alone(self, features: Sequence[Tensor]) -> Tensor:
        """Logits (B, N) of images alone."""
        logits = [head.unconditional(x).flatten(1) for head, x in zip(self.heads, features, strict=True)]
        return torch.cat(logits, 1)
