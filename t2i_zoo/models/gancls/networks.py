"""GAN-CLS networks: the authors' residual pair, the plain DCGAN pair of the PyTorch port, a light pair of ours.

Authors' code: reedscot/icml2016 (Lua Torch7). Port: aelnouby/Text-to-Image-Synthesis. The card lists how the two
differ. Shapes: B batch, D sentence embedding (``text_dim``), z noise (``noise_dim``), t projected sentence
(``projection_dim``, ``nt`` in the code), S image side (``image_size``, a power of two of at least 16; 64 in the
paper).
"""

from __future__ import annotations

import math
from itertools import pairwise, zip_longest
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.nn import ConditionalDiscriminator, Logits, activated, dcgan_init, encoder, laid_out_as, tile
from t2i_zoo.nn.projected import batch_deviation


def _widths(width: int, image_size: int) -> list[int]:
    """Channels after each halving of an image down to 4 x 4; ``image_size`` is a power of two of at least 16."""
    return [width * min(8, 2**i) for i in range(round(math.log2(image_size)) - 2)]


def _conv(inputs: int, outputs: int, kernel: int, padding: int = 0) -> nn.Conv2d:
    # The authors zero every convolution bias before each closure, so a bias-free layer is what they trained.
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False)


def _projection(text_dim: int, dim: int, norm: bool) -> nn.Sequential:
    """Sentence embeddings (B, D) to (B, t)."""
    norms = [nn.BatchNorm1d(dim)] if norm else []
    return nn.Sequential(nn.Linear(text_dim, dim), *norms, nn.LeakyReLU(0.2, inplace=True))


class ResidualBottleneck(nn.Module):
    """Add to a map a 1x1-3x3-3x3 bottleneck of it: (B, C, H, W) to the same; no activation after the sum."""

    def __init__(self, channels: int, hidden: int, slope: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(_conv(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.LeakyReLU(slope, inplace=True)),
            *(_conv(hidden, hidden, 3, 1), nn.BatchNorm2d(hidden), nn.LeakyReLU(slope, inplace=True)),
            *(_conv(hidden, channels, 3, 1), nn.BatchNorm2d(channels)),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return ``features`` plus the bottleneck's output."""
        total: Tensor = features + self.layers(features)
        return total


class Generator(nn.Module):
    """The authors' generator: noise (B, z) and sentence embeddings (B, D) to images (B, 3, S, S) in [-1, 1].

    Args:
        width: channels before the last layer (``ngf``).
        large: a second residual block at 4 x 4 and at 8 x 8 (``large=1``).
    """

    blocks, text_norm = 1, False  # residual blocks at each of these sizes; batch norm on the projected sentence

    def __init__(
        self, text_dim: int, noise_dim: int, projection_dim: int, width: int, image_size: int, large: bool = False
    ) -> None:
        super().__init__()
        widths = _widths(width, image_size)[::-1]
        self.project = _projection(text_dim, projection_dim, self.text_norm)
        layers: list[nn.Module] = [nn.ConvTranspose2d(noise_dim + projection_dim, widths[0], 4, bias=False)]
        for i, inputs in enumerate(widths):
            layers.append(nn.BatchNorm2d(inputs))
            if i < 2:  # residual blocks at 4 x 4 and at 8 x 8; the ReLU comes after the sum
                layers += [ResidualBottleneck(inputs, inputs // 4, 0.0) for _ in range(self.blocks * (1 + large))]
            outputs = widths[i + 1] if i + 1 < len(widths) else 3
            layers += [nn.ReLU(inplace=True), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(dcgan_init)

    def code(self, noise: Tensor, text: Tensor) -> Tensor:
        """What the images are made of: noise (B, z) before the projected sentence (B, t)."""
        return torch.cat([noise, text], dim=1)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Generate images from noise and sentence embeddings."""
        images: Tensor = self.layers(self.code(noise, self.project(sentence))[:, :, None, None])
        return images


class DCGANGenerator(Generator):
    """The port's generator: no residual blocks, batch norm on the text, and the text before the noise."""

    blocks, text_norm = 0, True

    def code(self, noise: Tensor, text: Tensor) -> Tensor:
        """What the images are made of: the projected sentence (B, t) before noise (B, z)."""
        return torch.cat([text, noise], dim=1)


class ConditionalNorm(nn.Module):
    """Batch norm whose gain and bias are linear in a code (B, K): (B, C, H, W) to the same (de Vries et al. 2017)."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.modulate = nn.Linear(code_dim, 2 * channels)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Normalised features, times 1 + gain, plus bias."""
        gain, bias = self.modulate(code)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(bias, self.norm(features), 1 + gain)


class LightResidual(nn.Module):
    """A convolution, conditional batch norm and leaky ReLU, times a gain per channel that starts at zero (ReZero)."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = ConditionalNorm(channels, code_dim)
        self.gain = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """What is added to features (B, C, H, W), of the same shape."""
        return self.gain * F.leaky_relu(self.norm(self.conv(features), code), 0.2)


class LightGenerator(nn.Module):
    """A small generator of ours, of no paper: noise and text at every size, nearest upsampling, no transposed layers.

    It has no checkerboard, and with a projected discriminator it learns fastest on a CPU. As in DF-GAN the first map
    is made of noise alone, and text changes only the gain and bias of channels, so that a layout cannot come from the
    text and samples of one caption differ. Arguments and shapes are those of ``Generator``; ``large`` adds a residual
    block at every size, which starts at zero, so that weights without it can be trained on with it. Sizes above 64 px
    have only such blocks, so that training from weights of half the size begins with enlarged images.
    """

    def __init__(
        self, text_dim: int, noise_dim: int, projection_dim: int, width: int, image_size: int, large: bool = False
    ) -> None:
        super().__init__()
        widths = _widths(width, min(image_size, 64))[::-1]
        self.project = _projection(text_dim, projection_dim, False)
        self.start = nn.Linear(noise_dim, widths[0] * 16)
        code_dim = noise_dim + projection_dim
        pairs = list(zip([widths[0], *widths], widths, strict=False))
        self.convs = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1, bias=False) for pair in pairs)
        self.norms = nn.ModuleList(ConditionalNorm(outputs, code_dim) for _, outputs in pairs)
        self.residuals = nn.ModuleList(LightResidual(outputs, code_dim) for outputs in widths if large)
        self.growths = nn.ModuleList(
            nn.ModuleList(LightResidual(width, code_dim) for _ in range(1 + large))
            for _ in range(round(math.log2(image_size)) - 6)
        )
        self.to_image = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Generate images from noise and sentence embeddings."""
        code = torch.cat([noise, self.project(sentence)], dim=1)
        features = laid_out_as(self.to_image.weight, self.start(noise).unflatten(1, (-1, 4, 4)))
        for conv, norm, residual in zip_longest(self.convs, self.norms, self.residuals):
            features = F.leaky_relu(norm(conv(F.interpolate(features, scale_factor=2.0)), code), 0.2)
            if residual is not None:
                features = features + residual(features, code)
        for blocks in self.growths:
            features = F.interpolate(features, scale_factor=2.0, mode="bilinear")
            for block in cast(nn.ModuleList, blocks):
                features = features + block(features, code)
        return torch.tanh(self.to_image(features))


class MatchingDiscriminator(ConditionalDiscriminator):
    """What both discriminators do: judge image features together with a projected sentence."""

    image: nn.Module
    project: nn.Module
    joint: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Image features before the text joins: (B, 3, S, S) to (B, C, 4, 4)."""
        features: Tensor = self.image(images)
        return features

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,) of features with sentence embeddings (B, D)."""
        text = tile(self.project(condition), features)
        return Logits(self.joint(torch.cat([features, text], dim=1)).flatten())


class Discriminator(MatchingDiscriminator):
    """The authors' discriminator: images (B, 3, S, S) in [-1, 1] and sentence embeddings (B, D) to logits (B,).

    Args:
        width: channels after the first layer (``ndf``).
        third_activation: activate after the third convolution, as ``main_cls.lua`` does; ``main_cls_int.lua`` does not.
        text_norm: batch norm on the projected sentence, as in ``main_cls_int.lua`` and not in ``main_cls.lua``.
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
        self.condition_dim, widths = text_dim, _widths(width, image_size)
        top = widths[-1]
        layers = [*encoder(widths)][:-1]  # the last convolution is activated after the residual sum
        if not third_activation:
            del layers[7:8]  # there is none where the third convolution is the last
        self.image = nn.Sequential(*layers, ResidualBottleneck(top, top // 4, 0.2), nn.LeakyReLU(0.2, inplace=True))
        self.project = _projection(text_dim, projection_dim, text_norm)
        self.joint = nn.Sequential(*activated(_conv(top + projection_dim, top, 1)), _conv(top, 1, 4))
        self.apply(dcgan_init)


class DCGANDiscriminator(MatchingDiscriminator):
    """The port's discriminator: no residual block, no joint 1 x 1 convolution, batch norm on the text."""

    def __init__(self, text_dim: int, projection_dim: int, width: int, image_size: int) -> None:
        super().__init__()
        self.condition_dim, widths = text_dim, _widths(width, image_size)
        self.image = encoder(widths)
        self.project = _projection(text_dim, projection_dim, norm=True)
        self.joint = _conv(widths[-1] + projection_dim, 1, 4)
        self.apply(dcgan_init)


class LightDown(nn.Module):
    """Halve the side of a map: a 4 x 4 convolution with stride 2, and a 1 x 1 convolution of the averages beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 4, 2, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) before its activation to (B, outputs, H / 2, W / 2) before the next."""
        total: Tensor = self.conv(F.leaky_relu(features, 0.2)) + self.shortcut(F.avg_pool2d(features, 2))
        return total * math.sqrt(0.5)  # the sum of two would double the variance in each block


class LightDiscriminator(ConditionalDiscriminator):
    """A small discriminator of ours, of no paper, for training with ``r1``: residual, without norm, text by projection.

    Two logits are computed from one vector of an image (B, t): that it is real, which is linear, and that it belongs to
    its text, the product with the projected sentence (Miyato and Koyama 2018). Images are seen beside three others of
    their batch (``batch_deviation``), so that a generator that ignores its noise is found out. Arguments are those of
    ``Discriminator``, but the first layer has twice ``width`` channels.
    """

    def __init__(self, text_dim: int, projection_dim: int, width: int, image_size: int) -> None:
        super().__init__()
        self.condition_dim, widths = text_dim, [2 * channels for channels in _widths(width, image_size)]
        self.image = nn.Sequential(nn.Conv2d(3, widths[0], 4, 2, 1), *(LightDown(*pair) for pair in pairwise(widths)))
        self.last = nn.Conv2d(widths[-1] + 1, projection_dim, 4)
        self.project = nn.Linear(text_dim, projection_dim)
        self.realism = nn.Linear(projection_dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # without norm the variance has to be kept from the beginning
                nn.init.kaiming_normal_(module.weight, 0.2)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] to vectors (B, t)."""
        maps = F.leaky_relu(self.image(images), 0.2)
        return F.leaky_relu(self.last(laid_out_as(maps, batch_deviation(maps))), 0.2).flatten(1)

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,) of vectors with sentence embeddings (B, D)."""
        return Logits((features * self.project(condition)).sum(1) / math.sqrt(features.shape[1]))

    def judge_alone(self, features: Tensor) -> Tensor:
        """Unconditional logits (B,)."""
        logits: Tensor = self.realism(features).flatten()
        return logits
