"""StackGAN's networks: two generators, and one discriminator whose depth follows from the size of its images.

Authors' PyTorch code: hanzhanggit/StackGAN-Pytorch. Shapes: B batch, D sentence embedding (``text_dim``), z noise
(``noise_dim``), C condition (``condition_dim``), S image side (``image_size``, a power of two), GF and DF the authors'
widths of generators and discriminators. Convolutions have no bias except those of the logits.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from t2i_zoo.nn import (
    CAActivation,
    ConditionalDiscriminator,
    ConditioningAugmentation,
    Logits,
    conv3x3,
    image_trunk,
    laid_out_as,
    norm_init,
    same_block,
    tile,
    to_image,
)


def _init(module: nn.Module) -> None:
    """The authors' initial weights; the logits' biases keep PyTorch's default."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    norm_init(module)


def _activated(layer: nn.Conv2d) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(inplace=True)]


def _ups(channels: int, count: int, least: int) -> tuple[nn.Sequential, int]:
    """``count`` doublings of the side, each of which halves the channels down to ``least``, and the last channels."""
    widths = [channels] + [max(least, channels // 2**i) for i in range(1, count + 1)]
    steps = (nn.Sequential(nn.Upsample(scale_factor=2), *_activated(conv3x3(*pair))) for pair in pairwise(widths))
    return nn.Sequential(*steps), widths[-1]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input, activated after the sum: (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (_activated(conv3x3(channels, channels)) for _ in range(2))
        self.layers = nn.Sequential(*first, *second[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """Return the activated sum."""
        total: Tensor = torch.relu(features + self.layers(features))
        return total


class Stage1Generator(nn.Module):
    """Noise (B, z) and sentence embeddings (B, D) to small images (B, 3, S, S) in [-1, 1].

    Args:
        width: GF; the 4 x 4 map has 8 GF channels, and each doubling of the side halves them.
        image_size: S, at least 8; the paper has 64.
        ca_activation: of the conditioning augmentation.
        least_channels: of any map.
    """

    def __init__(
        self,
        text_dim: int,
        noise_dim: int,
        condition_dim: int,
        width: int,
        image_size: int = 64,
        ca_activation: CAActivation = "relu",
        least_channels: int = 4,
    ) -> None:
        super().__init__()
        n = 8 * width
        self.ca = ConditioningAugmentation(text_dim, condition_dim, ca_activation)
        self.fc = nn.Sequential(
            nn.Linear(noise_dim + condition_dim, 16 * n, bias=False), nn.BatchNorm1d(16 * n), nn.ReLU(inplace=True)
        )
        self.ups, last = _ups(n, round(math.log2(image_size)) - 2, least_channels)
        self.image = to_image(last)
        self.apply(_init)

    def forward(self, noise: Tensor, sentence: Tensor, condition_noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, ``mu`` and ``logvar`` (B, C) from (B, z), (B, D) and conditioning noise (B, C)."""
        condition, mu, logvar = self.ca(sentence, condition_noise)
        features = self.fc(torch.cat([noise, condition], dim=1)).unflatten(1, (-1, 4, 4))
        return self.image(self.ups(laid_out_as(next(self.image.parameters()), features))), mu, logvar


class Stage2Generator(nn.Module):
    """A frozen Stage I, and a network that redraws its images with four times the side: (B, 3, S, S) in [-1, 1].

    Args:
        width: GF, of both stages, as is C.
        image_size: S, at least 32; Stage I has S / 4. The paper has 256 and 64.
        residual_blocks: at a quarter of Stage I's side.
        ca_activation: of both conditioning augmentations.
        stage1_training: let Stage I's batch norms use and track batch statistics in training, as the authors' do; False
            keeps it in eval mode.
        least_channels: of any map of both stages.
    """

    def __init__(
        self,
        text_dim: int,
        noise_dim: int,
        condition_dim: int,
        width: int,
        image_size: int = 256,
        residual_blocks: int = 4,
        ca_activation: CAActivation = "relu",
        stage1_training: bool = True,
        least_channels: int = 4,
    ) -> None:
        super().__init__()
        g, self.stage1_training = width, stage1_training
        first = (text_dim, noise_dim, condition_dim, g, image_size // 4, ca_activation, least_channels)
        self.stage1 = Stage1Generator(*first)
        self.ca = ConditioningAugmentation(text_dim, condition_dim, ca_activation)
        layers: list[nn.Module] = [conv3x3(3, g), nn.ReLU(inplace=True)]
        for inputs in (g, 2 * g):
            layers += _activated(nn.Conv2d(inputs, 2 * inputs, 4, 2, 1, bias=False))
        self.encoder = nn.Sequential(*layers)
        self.joint = nn.Sequential(*_activated(conv3x3(4 * g + condition_dim, 4 * g)))
        self.residual = nn.Sequential(*(ResidualBlock(4 * g) for _ in range(residual_blocks)))
        self.ups, last = _ups(4 * g, 4, least_channels)
        self.image = to_image(last)
        self.apply(_init)
        self.stage1.requires_grad_(False).train(stage1_training)

    def train(self, mode: bool = True) -> Stage2Generator:
        """Set the mode; Stage I follows into training only with ``stage1_training``."""
        super().train(mode)
        self.stage1.train(mode and self.stage1_training)
        return self

    def forward(
        self, noise: Tensor, sentence: Tensor, stage1_condition_noise: Tensor, condition_noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return Stage I's images (B, 3, S / 4, S / 4), these, and this stage's ``mu`` and ``logvar`` (B, C).

        Args:
            noise: (B, z).
            sentence: (B, D).
            stage1_condition_noise: (B, C), the noise of Stage I's conditioning augmentation.
            condition_noise: (B, C), the noise of this stage's own conditioning augmentation.
        """
        with torch.no_grad():
            small = self.stage1(noise, sentence, stage1_condition_noise)[0]
        condition, mu, logvar = self.ca(sentence, condition_noise)
        features = self.encoder(small)
        features = self.joint(torch.cat([features, tile(condition, features)], dim=1))
        return small, self.image(self.ups(self.residual(features))), mu, logvar


class Discriminator(ConditionalDiscriminator):
    """Images (B, 3, S, S) in [-1, 1] and conditions (B, C) to logits (B,).

    Args:
        width: DF.
        image_size: S, at least 8.
        stage: 1 or 2; Stage II's also judges images without their sentence.
    """

    def __init__(self, condition_dim: int, width: int, image_size: int, stage: int) -> None:
        super().__init__()
        self.condition_dim, top = condition_dim, 8 * width
        blocks = image_trunk(width, image_size)  # flattened, as the authors number its layers
        self.encode = nn.Sequential(*(layer for block in blocks.children() for layer in block.children()))
        self.joint = nn.Sequential(*same_block(top + condition_dim, top), nn.Conv2d(top, 1, 4))
        self.alone = nn.Sequential(nn.Conv2d(top, 1, 4)) if stage == 2 else None
        self.apply(_init)

    def features(self, images: Tensor) -> Tensor:
        """Features of images before the condition joins: (B, 8 DF, 4, 4)."""
        features: Tensor = self.encode(images)
        return features

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,)."""
        return Logits(self.joint(torch.cat([features, tile(condition, features)], dim=1)).flatten())

    def judge_alone(self, features: Tensor) -> Tensor | None:
        """Unconditional logits (B,); None in Stage I."""
        return None if self.alone is None else self.alone(features).flatten()
