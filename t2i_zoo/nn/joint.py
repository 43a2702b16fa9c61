"""Discriminators that judge an image both alone and with its text, as StackGAN++ and the AttnGAN family have them.

Sources: hanzhanggit/StackGAN-v2, taoxugit/AttnGAN and MinfengZhu/DM-GAN, whose convolutions have spectral norm in place
of batch norm; StackGAN's second stage has the trunk too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from t2i_zoo.nn.checkpointing import checkpointed
from t2i_zoo.nn.discriminator import ConditionalDiscriminator, Logits
from t2i_zoo.nn.glu import tile
from t2i_zoo.nn.init import orthogonal_init
from t2i_zoo.nn.spectral import spectral_norm

#: of the convolutions: batch norm after them, or spectral norm of their weights, which then have a bias
Norm = Literal["batch", "spectral"]


def activated(conv: nn.Conv2d, norm: Norm = "batch") -> nn.Sequential:
    """A convolution with batch norm, unless the norm is spectral, and leaky ReLU."""
    between = [nn.BatchNorm2d(conv.out_channels)] if norm == "batch" else []
    return nn.Sequential(conv, *between, nn.LeakyReLU(0.2, inplace=True))


def down_block(inputs: int, outputs: int, norm: Norm = "batch") -> nn.Sequential:
    """Halve the side: 4 x 4 convolution with stride 2, norm, leaky ReLU."""
    return activated(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=norm == "spectral"), norm)


def same_block(inputs: int, outputs: int, norm: Norm = "batch") -> nn.Sequential:
    """Keep the side: 3 x 3 convolution, norm, leaky ReLU."""
    return activated(nn.Conv2d(inputs, outputs, 3, 1, 1, bias=norm == "spectral"), norm)


def encoder(widths: Sequence[int], norm: Norm = "batch") -> nn.Sequential:
    """Images (B, 3, S, S) to features, one halving of the side per width; the first has no batch norm, as in DCGAN."""
    first = nn.Conv2d(3, widths[0], 4, 2, 1, bias=norm == "spectral")
    layers = [layer for pair in pairwise(widths) for layer in down_block(*pair, norm)]
    return nn.Sequential(first, nn.LeakyReLU(0.2, inplace=True), *layers)


def image_trunk(width: int, image_size: int, norm: Norm = "batch") -> nn.Sequential:
    """What all heads share: images (B, 3, S, S) to features (B, 8 * width, 4, 4).

    An encoder reduces the side to a 16th. Above 64 px further halvings lead to 4 x 4 and double the channels, and as
    many 3 x 3 blocks halve the channels again. Below 64 px the encoder lacks its first layers.

    Args:
        width: channels after the first layer at 64 px and above.
        image_size: S, a power of two of at least 8.
        norm: of all convolutions; the caller applies spectral norm once the weights are initialised.
    """
    halvings = round(math.log2(image_size)) - 2
    first = min(halvings, 4)
    widths = [8 * width * 2**i for i in range(halvings - first + 1)]
    return nn.Sequential(
        encoder([8 * width >> i for i in reversed(range(first))], norm),
        *(down_block(*pair, norm) for pair in pairwise(widths)),
        *(same_block(*pair, norm) for pair in pairwise(reversed(widths))),
    )


class JointHeads(nn.Module):
    """Two judgements of the features of an image: alone, and joined with a condition that is repeated over the map.

    Args:
        channels: of the features, (B, channels, 4, 4).
        condition_dim: C of the condition (B, C); 0 leaves only the unconditional head.
        condition_first: its channels come before the features (StackGAN++) or after them (StackGAN, AttnGAN).
        unconditional: whether there is the unconditional head; AttnGAN's DCGAN variant has only the other.
        norm: of the convolution that joins, as in ``image_trunk``; those of the logits have none.
    """

    def __init__(
        self,
        channels: int,
        condition_dim: int,
        *,
        condition_first: bool,
        unconditional: bool = True,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        self.condition_first = condition_first
        self.unconditional = nn.Conv2d(channels, 1, 4) if unconditional else None
        if condition_dim > 0:
            self.joint = same_block(condition_dim + channels, channels, norm)
            self.conditional = nn.Conv2d(channels, 1, 4)

    def match(self, features: Tensor, condition: Tensor) -> Tensor:
        """Logits (B,) that the images are real and belong to the condition."""
        parts = (tile(condition, features), features)
        logits: Tensor = self.conditional(self.joint(torch.cat(parts if self.condition_first else parts[::-1], 1)))
        return logits.flatten()

    def alone(self, features: Tensor) -> Tensor | None:
        """Logits (B,) that the images are real; None without that head."""
        return self.unconditional(features).flatten() if self.unconditional is not None else None


class JointDiscriminator(ConditionalDiscriminator):
    """Images (B, 3, S, S) in [-1, 1] and conditions (B, C) to two logits each.

    Args:
        condition_dim: C; 0 without text.
        width: channels after the first layer (``DF_DIM``).
        image_size: S.
        checkpointing: keep only the images, and compute all that follows again in the backward pass; without an effect
            on spectral norm, whose second forward would have other weights than the first.
        norm: ``spectral`` is DM-GAN's, of all convolutions but those of the logits.
        heads: ``condition_first`` and ``unconditional`` of ``JointHeads``.
    """

    def __init__(
        self,
        condition_dim: int,
        width: int,
        image_size: int,
        *,
        checkpointing: bool = False,
        norm: Norm = "batch",
        **heads: bool,
    ) -> None:
        super().__init__()
        self.condition_dim, self.checkpointing = condition_dim, checkpointing and norm == "batch"
        self.trunk = image_trunk(width, image_size, norm)
        self.heads = JointHeads(8 * width, condition_dim, norm=norm, **heads)
        self.apply(orthogonal_init)
        if norm == "spectral":
            for module in (*self.trunk.modules(), *self.heads.joint.modules()):
                if isinstance(module, nn.Conv2d):
                    spectral_norm(module)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, 8 * width, 4, 4) for both heads."""
        found: Tensor = checkpointed(self.trunk, images) if self.checkpointing else self.trunk(images)
        return found

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,)."""
        return Logits(self.heads.match(features, condition))

    def judge_alone(self, features: Tensor) -> Tensor | None:
        """Unconditional logits (B,); None in AttnGAN's DCGAN variant."""
        return self.heads.alone(features)
