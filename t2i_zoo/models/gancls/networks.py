"""GAN-CLS networks: the paper authors' residual pair, and the plain DCGAN pair of the PyTorch port.

Authors' code: reedscot/icml2016 (Lua Torch7). Port: aelnouby/Text-to-Image-Synthesis. What differs between the two is
listed in the card beside this file. Shapes: B batch, D sentence dimension, S picture side, z noise dimension.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from t2i_zoo.nn import ConditionalDiscriminator, Logits, dcgan_init


def _stages(image_size: int) -> int:
    """How many times a 4 x 4 map is doubled to reach ``image_size``, a power of two of at least 16."""
    return round(math.log2(image_size)) - 2


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    # The authors zero every convolution bias before each closure, so a bias-free layer is what they trained.
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)


class ResidualBottleneck(nn.Module):
    """Add to the map a 1x1-3x3-3x3 bottleneck of itself: (B, C, H, W) to the same; no activation after the sum."""

    def __init__(self, channels: int, hidden: int, slope: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(_conv(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.LeakyReLU(slope, inplace=True)),
            *(_conv(hidden, hidden, 3, 1, 1), nn.BatchNorm2d(hidden), nn.LeakyReLU(slope, inplace=True)),
            *(_conv(hidden, channels, 3, 1, 1), nn.BatchNorm2d(channels)),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` plus the bottleneck's output."""
        total: Tensor = features + self.layers(features)
        return total


class Generator(nn.Module):
    """The authors' generator: noise (B, z) and sentence (B, D) to images (B, 3, S, S) in [-1, 1].

    Args:
        text_dim: D, the length of a sentence embedding.
        noise_dim: z.
        projection_dim: what the sentence is projected to (``nt`` in the authors' code).
        width: channels before the last layer (``ngf``).
        image_size: S, a power of two from 16; the paper has 64.
        large: a second residual block at 4 x 4 and at 8 x 8 (``large=1``).
    """

    def __init__(
        self,
        text_dim: int,
        noise_dim: int,
        projection_dim: int,
        width: int,
        image_size: int,
        large: bool = False,
    ) -> None:
        super().__init__()
        n = _stages(image_size)
        widths = [width * min(8, 2 ** (n - 1 - i)) for i in range(n)]
        self.project = nn.Sequential(nn.Linear(text_dim, projection_dim), nn.LeakyReLU(0.2, inplace=True))
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(noise_dim + projection_dim, widths[0], 4, 1, 0, bias=False),
            nn.BatchNorm2d(widths[0]),
        ]
        for i in range(n):
            if i < 2:  # residual blocks at 4 x 4 and at 8 x 8; the ReLU comes after the sum
                layers += [ResidualBottleneck(widths[i], widths[i] // 4, 0.0) for _ in range(1 + large)]
            layers.append(nn.ReLU(inplace=True))
            if i + 1 < n:
                layers += [_up(widths[i], widths[i + 1]), nn.BatchNorm2d(widths[i + 1])]
        layers += [_up(widths[-1], 3), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(dcgan_init)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Draw images from noise and sentence embeddings."""
        code = torch.cat([noise, self.project(sentence)], dim=1)
        images: Tensor = self.layers(code[:, :, None, None])
        return images


class MatchingDiscriminator(ConditionalDiscriminator):
    """What both discriminators do: judge image features together with a projected sentence."""

    image: nn.Module
    project: nn.Module
    joint: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Image features before the text joins: (B, C, 4, 4)."""
        features: Tensor = self.image(images)
        return features

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,) of features with sentence embeddings (B, D)."""
        text = self.project(condition)[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return Logits(self.joint(torch.cat([features, text], dim=1)).flatten())


class Discriminator(MatchingDiscriminator):
    """The authors' discriminator: images (B, 3, S, S) in [-1, 1] and sentences (B, D) to logits (B,).

    Args:
        text_dim: D.
        projection_dim: what the sentence is projected to before it is replicated over the 4 x 4 map.
        width: channels after the first layer (``ndf``).
        image_size: S, a power of two from 16.
        third_activation: activate after the third convolution, as ``main_cls.lua`` does; ``main_cls_int.lua`` does not.
        text_norm: batch norm on the projected sentence, as ``main_cls_int.lua`` has; ``main_cls.lua`` does not.
    """

    def __init__(
        self,
        text_dim: int,
        projection_dim: int,
        width: int,
        image_size: int,
        third_activation: bool = True,
        text_norm: bool = False,
    ) -> None:
        super().__init__()
        self.condition_dim = text_dim
        n = _stages(image_size)
        widths = [width * min(8, 2**i) for i in range(n)]
        layers: list[nn.Module] = [_conv(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for i in range(1, n):
            layers += [_conv(widths[i - 1], widths[i], 4, 2, 1), nn.BatchNorm2d(widths[i])]
            if i + 1 < n and (i != 2 or third_activation):  # the last is activated after the residual sum
                layers.append(nn.LeakyReLU(0.2, inplace=True))
        top = widths[-1]
        layers += [ResidualBottleneck(top, top // 4, 0.2), nn.LeakyReLU(0.2, inplace=True)]
        self.image = nn.Sequential(*layers)
        norm: list[nn.Module] = [nn.BatchNorm1d(projection_dim)] if text_norm else []
        self.project = nn.Sequential(nn.Linear(text_dim, projection_dim), *norm, nn.LeakyReLU(0.2, inplace=True))
        self.joint = nn.Sequential(
            *(_conv(top + projection_dim, top, 1), nn.BatchNorm2d(top), nn.LeakyReLU(0.2, inplace=True)),
            _conv(top, 1, 4),
        )
        self.apply(dcgan_init)


class DCGANGenerator(nn.Module):
    """The port's generator: no residual blocks, batch norm on the text, and the text before the noise."""

    def __init__(self, text_dim: int, noise_dim: int, projection_dim: int, width: int, image_size: int) -> None:
        super().__init__()
        n = _stages(image_size)
        widths = [width * min(8, 2 ** (n - 1 - i)) for i in range(n)]
        self.project = nn.Sequential(
            nn.Linear(text_dim, projection_dim),
            nn.BatchNorm1d(projection_dim),
            nn.LeakyReLU(0.2, inplace=True),
        )
        first = nn.ConvTranspose2d(projection_dim + noise_dim, widths[0], 4, 1, 0, bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for inputs, outputs in pairwise(widths):
            layers += [_up(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, _up(widths[-1], 3), nn.Tanh())
        self.apply(dcgan_init)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Draw images (B, 3, S, S) in [-1, 1] from noise (B, z) and sentences (B, D)."""
        code = torch.cat([self.project(sentence), noise], dim=1)
        images: Tensor = self.layers(code[:, :, None, None])
        return images


class DCGANDiscriminator(MatchingDiscriminator):
    """The port's discriminator: no residual block, no joint 1 x 1 convolution, batch norm on the text."""

    def __init__(self, text_dim: int, projection_dim: int, width: int, image_size: int) -> None:
        super().__init__()
        self.condition_dim = text_dim
        n = _stages(image_size)
        widths = [width * min(8, 2**i) for i in range(n)]
        layers: list[nn.Module] = [_conv(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for inputs, outputs in pairwise(widths):
            layers += [
                _conv(inputs, outputs, 4, 2, 1),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.image = nn.Sequential(*layers)
        self.project = nn.Sequential(
            nn.Linear(text_dim, projection_dim),
            nn.BatchNorm1d(projection_dim),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.joint = _conv(widths[-1] + projection_dim, 1, 4)
        self.apply(dcgan_init)
