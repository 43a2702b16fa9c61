"""StackGAN's networks: two generators, and one discriminator whose length follows from the size of its pictures.

Authors' PyTorch code: hanzhanggit/StackGAN-Pytorch. Shapes: B batch, D sentence dimension, S picture side, z noise
dimension, C length of the condition, GF and DF the authors' widths. Convolutions have no bias but for the logits'.
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
    picture_trunk,
    tile,
    to_image,
)


def _init(module: nn.Module) -> None:
    """The authors' initial weights; the logits' biases keep PyTorch's default."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(module, (nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _up(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2), conv3x3(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _ups(channels: int, count: int) -> tuple[nn.Sequential, int]:
    """``count`` doublings of the side, each halving the channels down to 4 at least, and the channels at their end."""
    widths = [channels] + [max(4, channels // 2**i) for i in range(1, count + 1)]
    return nn.Sequential(*(_up(*pair) for pair in pairwise(widths))), widths[-1]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input, activated after the sum: (B, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(conv3x3(channels, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)),
            *(conv3x3(channels, channels), nn.BatchNorm2d(channels)),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the activated sum."""
        total: Tensor = torch.relu(features + self.layers(features))
        return total


class Stage1Generator(nn.Module):
    """Noise (B, z) and sentences (B, D) to small pictures (B, 3, S, S) in [-1, 1].

    Args:
        text_dim: D.
        noise_dim: z.
        condition_dim: C.
        width: GF; the 4 x 4 map has 8 GF channels, and each doubling of the side halves them.
        image_size: S, a power of two from 8; the paper has 64.
        ca_activation: of the conditioning augmentation.
    """

    def __init__(
        self,
        text_dim: int,
        noise_dim: int,
        condition_dim: int,
        width: int,
        image_size: int = 64,
        ca_activation: CAActivation = "relu",
    ) -> None:
        super().__init__()
        n = 8 * width
        self.ca = ConditioningAugmentation(text_dim, condition_dim, ca_activation)
        self.fc = nn.Sequential(
            nn.Linear(noise_dim + condition_dim, 16 * n, bias=False), nn.BatchNorm1d(16 * n), nn.ReLU(inplace=True)
        )
        self.ups, last = _ups(n, round(math.log2(image_size)) - 2)
        self.image = to_image(last)
        self.apply(_init)

    def forward(self, noise: Tensor, sentence: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw pictures; returns them, ``mu`` and ``logvar`` (B, C).

        Args:
            noise: (B, z).
            sentence: (B, D).
            spread: (B, C), the noise of the conditioning augmentation.
        """
        condition, mu, logvar = self.ca(sentence, spread)
        features = self.fc(torch.cat([noise, condition], dim=1)).unflatten(1, (-1, 4, 4))
        return self.image(self.ups(features)), mu, logvar


class Stage2Generator(nn.Module):
    """A frozen Stage I, and a network that draws its pictures anew, four times as large: (B, 3, S, S) in [-1, 1].

    Args:
        text_dim: D.
        noise_dim: z.
        condition_dim: C, of both stages.
        width: GF, of both stages.
        image_size: S; Stage I draws S / 4. The paper has 256 and 64.
        residual_blocks: at a quarter of Stage I's side.
        ca_activation: of both conditioning augmentations.
        stage1_training: let Stage I's batch norm use, and follow, batch statistics in training, as the authors' does;
            False keeps it in eval mode.
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
    ) -> None:
        super().__init__()
        g, self.stage1_training = width, stage1_training
        self.stage1 = Stage1Generator(text_dim, noise_dim, condition_dim, g, image_size // 4, ca_activation)
        self.ca = ConditioningAugmentation(text_dim, condition_dim, ca_activation)
        layers: list[nn.Module] = [conv3x3(3, g), nn.ReLU(inplace=True)]
        for inputs in (g, 2 * g):
            layers += [nn.Conv2d(inputs, 2 * inputs, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * inputs)]
            layers += [nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*layers)
        self.joint = nn.Sequential(conv3x3(4 * g + condition_dim, 4 * g), nn.BatchNorm2d(4 * g), nn.ReLU(inplace=True))
        self.residual = nn.Sequential(*(ResidualBlock(4 * g) for _ in range(residual_blocks)))
        self.ups, last = _ups(4 * g, 4)
        self.image = to_image(last)
        self.apply(_init)
        self.stage1.requires_grad_(False).train(stage1_training)

    def train(self, mode: bool = True) -> Stage2Generator:
        """Set the mode; Stage I follows into training only where it was asked to."""
        super().train(mode)
        self.stage1.train(mode and self.stage1_training)
        return self

    def forward(
        self, noise: Tensor, sentence: Tensor, stage1_spread: Tensor, spread: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw pictures; returns Stage I's (B, 3, S / 4, S / 4), these, and Stage II's ``mu`` and ``logvar`` (B, C).

        Args:
            noise: (B, z).
            sentence: (B, D).
            stage1_spread: (B, C), the noise of Stage I's conditioning augmentation.
            spread: (B, C), that of Stage II's own.
        """
        with torch.no_grad():
            small = self.stage1(noise, sentence, stage1_spread)[0]
        condition, mu, logvar = self.ca(sentence, spread)
        features = self.encoder(small)
        features = self.joint(torch.cat([features, tile(condition, features)], dim=1))
        return small, self.image(self.ups(self.residual(features))), mu, logvar


class Discriminator(ConditionalDiscriminator):
    """Images (B, 3, S, S) in [-1, 1] and conditions (B, C) to logits (B,); the sigmoid belongs to the loss.

    Args:
        condition_dim: C.
        width: DF.
        image_size: S, a power of two from 8.
        stage: 1 or 2; Stage II's also judges pictures without their sentence.
    """

    def __init__(self, condition_dim: int, width: int, image_size: int, stage: int) -> None:
        super().__init__()
        self.condition_dim, top = condition_dim, 8 * width
        blocks = picture_trunk(width, image_size)  # laid end to end, as the authors number its layers
        self.encode = nn.Sequential(*(layer for block in blocks.children() for layer in block.children()))
        self.joint = nn.Sequential(
            *(conv3x3(top + condition_dim, top), nn.BatchNorm2d(top), nn.LeakyReLU(0.2, inplace=True)),
            nn.Conv2d(top, 1, 4),
        )
        self.alone = nn.Sequential(nn.Conv2d(top, 1, 4)) if stage == 2 else None
        self.apply(_init)

    def features(self, images: Tensor) -> Tensor:
        """Features of pictures before the condition joins: (B, F, 4, 4)."""
        features: Tensor = self.encode(images)
        return features

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,)."""
        return Logits(self.joint(torch.cat([features, tile(condition, features)], dim=1)).flatten())

    def judge_alone(self, features: Tensor) -> Tensor | None:
        """Unconditional logits (B,); None in Stage I."""
        return None if self.alone is None else self.alone(features).flatten()
