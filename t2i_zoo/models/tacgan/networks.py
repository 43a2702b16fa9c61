"""TAC-GAN networks after dashayushman/TAC-GAN (TensorFlow 1), with TensorFlow's padding and batch norm.

The generator's images are in [0, 1] here, and the module maps them to [-1, 1]. Shapes: B batch, D sentence embedding
(``text_dim``), z noise (``noise_dim``), t projected sentence (``projection_dim``), C classes, S image side
(``image_size``, a multiple of 16), s = S / 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.nn import ConditionalDiscriminator, Logits, tile

#: multiples of the width in the discriminator's four convolutions and in its joint one
DISCRIMINATOR_WIDTHS = {"head": (1, 2, 4, 8, 8), "paper_era": (1, 8, 6, 6, 4)}


class SameConv(nn.Conv2d):
    """5 x 5 convolution of stride 2, padded as TensorFlow's ``SAME`` pads an even side: one before, two after."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, 2n, 2n) to (B, outputs, n, n)."""
        return super().forward(F.pad(x, (1, 2, 1, 2)))


class SameConvTranspose(nn.ConvTranspose2d):
    """Transpose of ``SameConv``; ``padding=2, output_padding=1`` would give the same shape, shifted by one pixel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 5, 2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, inputs, n, n) to (B, outputs, 2n, 2n)."""
        return super().forward(x)[..., :-1, :-1]


class BatchNorm(nn.Module):
    """Batch norm of ``tf.contrib.slim``: a bias and no scale, epsilon 1e-3, biased variance.

    Args:
        channels: of the maps (B, channels, H, W).
        tracked: keep running averages (decay 0.999, from 0 and 1 on) and normalise with them in eval mode. The
            authors never update theirs, and so always use batch statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, tracked: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.tracked = tracked
        if tracked:
            self.register_buffer("running_mean", torch.zeros(channels))
            self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, reference: int = 0) -> Tensor:
        """Normalise ``x`` with its own statistics, or with those of its first ``reference`` rows alone."""
        mean = var = None
        if self.tracked and self.training:
            with torch.no_grad():
                now_var, now_mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
                self.running_mean.lerp_(now_mean, 1e-3)
                self.running_var.lerp_(now_var, 1e-3)
        elif self.tracked:
            mean, var = self.running_mean, self.running_var
        elif reference:
            var, mean = torch.var_mean(x[:reference].float(), (0, 2, 3), correction=0)
        scale = torch.ones_like(self.bias)  # without one, the backward on a GPU has no shape for the bias' gradient
        # Not F.batch_norm, which refuses a single image of one pixel.
        return torch.batch_norm(x, scale, self.bias, mean, var, mean is None, 0.0, 1e-3, True)


class Layers(nn.Sequential):
    """Layers one after the other; batch norms are told how many rows their statistics come from."""

    def forward(self, x: Tensor, reference: int = 0) -> Tensor:
        """Run all layers."""
        for layer in self:
            x = layer(x, reference) if isinstance(layer, BatchNorm) else layer(x)
        return x


def xavier_init(module: nn.Module) -> None:
    """Uniform Xavier weights, whose fans count the kernel's area, and zero biases, for every layer with weights."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """Noise (B, z) and sentence embeddings (B, D) to images (B, 3, S, S) in [0, 1].

    Args:
        width: channels before the last layer (``gf_dim``); the first map has eight times as many.
        tracked: as in ``BatchNorm``.
    """

    def __init__(
        self, text_dim: int, noise_dim: int, projection_dim: int, width: int, image_size: int, tracked: bool = False
    ) -> None:
        super().__init__()
        self.side = image_size // 16
        widths = [8 * width, 4 * width, 2 * width, width]
        self.project = nn.Sequential(nn.Linear(text_dim, projection_dim), nn.LeakyReLU(0.2, inplace=True))
        self.first = nn.Linear(noise_dim + projection_dim, widths[0] * self.side**2)
        layers: list[nn.Module] = [BatchNorm(widths[0], tracked), nn.ReLU(inplace=True)]
        for inputs, outputs in pairwise(widths):
            layers += [SameConvTranspose(inputs, outputs), BatchNorm(outputs, tracked), nn.ReLU(inplace=True)]
        self.layers = Layers(*layers, SameConvTranspose(width, 3))
        self.apply(xavier_init)

    def forward(self, noise: Tensor, sentence: Tensor, reference: int = 0) -> Tensor:
        """Generate images; with ``reference`` above 0 the batch statistics are those of that many first rows."""
        code = self.first(torch.cat([noise, self.project(sentence)], dim=1))
        first = code.view(code.shape[0], self.side, self.side, -1).permute(0, 3, 1, 2)  # TensorFlow has channels last
        images: Tensor = self.layers(first, reference).float()  # half precision has too few steps in [0, 1]
        return images.tanh() / 2 + 0.5


class Discriminator(ConditionalDiscriminator):
    """Images (B, 3, S, S) in [-1, 1] and sentence embeddings (B, D) to logits (B,) of a match and (B, C) of the class.

    Args:
        width: unit of the channels (``df_dim``).
        multiples: channels of the four convolutions and of the joint one in that unit, as in ``DISCRIMINATOR_WIDTHS``.
        tracked: as in ``BatchNorm``.
    """

    def __init__(
        self,
        text_dim: int,
        projection_dim: int,
        width: int,
        multiples: Sequence[int],
        classes: int,
        image_size: int,
        tracked: bool = False,
    ) -> None:
        super().__init__()
        self.condition_dim, self.num_classes = text_dim, classes
        *widths, top = [width * multiple for multiple in multiples]
        layers: list[nn.Module] = [SameConv(3, widths[0]), nn.LeakyReLU(0.2, inplace=True)]
        for inputs, outputs in pairwise(widths):
            layers += [SameConv(inputs, outputs), BatchNorm(outputs, tracked), nn.LeakyReLU(0.2, inplace=True)]
        self.image = Layers(*layers)
        self.project = nn.Sequential(nn.Linear(text_dim, projection_dim), nn.LeakyReLU(0.2, inplace=True))
        joint = nn.Conv2d(widths[-1] + projection_dim, top, 1)
        self.joint = Layers(joint, BatchNorm(top, tracked), nn.LeakyReLU(0.2, inplace=True))
        numbers = top * (image_size // 16) ** 2
        self.matching = nn.Linear(numbers, 1)
        self.classes = nn.Linear(numbers, classes)
        self.apply(xavier_init)

    def features(self, images: Tensor) -> Tensor:
        """Image features (B, F, s, s) before the text joins; the convolutions read [0, 1], as the authors' do."""
        features: Tensor = self.image((images + 1) / 2)
        return features

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,) and class logits (B, C)."""
        text = tile(self.project(condition), features)
        joint = self.joint(torch.cat([features, text], dim=1)).permute(0, 2, 3, 1).flatten(1)  # channels last again
        return Logits(self.matching(joint).flatten(), classes=self.classes(joint))
