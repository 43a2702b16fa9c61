"""TAC-GAN networks after dashayushman/TAC-GAN (TensorFlow 1), with TensorFlow's padding and batch norm.

The generator's images are in [0, 1] here, and the module maps them to [-1, 1]. Shapes: B batch, D sentence dimension,
S image side, s = S / 16, z noise dimension, t projected sentence, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.nn import ConditionalDiscriminator, Logits

#: multiples of the width in the discriminator's four convolutions and in its joint one
DISCRIMINATOR_WIDTHS = {"head": (1, 2, 4, 8, 8), "paper_era": (1, 8, 6, 6, 4)}


class SameConv(nn.Conv2d):
    """5 x 5 convolution of stride 2, padded as TensorFlow's ``SAME`` pads an even side: one before, two behind."""

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
            authors never update theirs, and so use batch statistics always.
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
        # not that of torch.nn.functional, which refuses a single picture of one pixel
        return torch.batch_norm(x, scale, self.bias, mean, var, mean is None, 0.0, 1e-3, True)


class Layers(nn.Sequential):
    """Layers one after the other; batch norms hear how many rows their statistics come from."""

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
    """Noise (B, z) and sentences (B, D) to pictures (B, 3, S, S) in [0, 1].

    Args:
        text_dim: D.
        noise_dim: z.
        projection_dim: t.
        width: channels before the last layer (``gf_dim``); the first map has eight times as many.
        image_size: S, a multiple of 16.
        tracked: see ``BatchNorm``.
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
        """Draw; with ``reference`` only the first so many rows decide the batch statistics."""
        code = self.first(torch.cat([noise, self.project(sentence)], dim=1))
        first = code.view(len(code), self.side, self.side, -1).permute(0, 3, 1, 2)  # TensorFlow's order of a map
        images: Tensor = self.layers(first, reference).float()  # half precision has too few steps in [0, 1]
        return images.tanh() / 2 + 0.5


class Discriminator(ConditionalDiscriminator):
    """Images (B, 3, S, S) in [-1, 1] and sentences (B, D) to logits (B,) of a real pair and (B, C) of the class.

    Args:
        text_dim: D.
        projection_dim: t.
        width: ``df_dim``, which ``multiples`` multiply.
        multiples: of the four convolutions and of the joint one, as in ``DISCRIMINATOR_WIDTHS``.
        classes: C.
        image_size: S, a multiple of 16.
        tracked: see ``BatchNorm``.
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
        """Image features (B, F, s, s) before the text joins; the convolutions see [0, 1], as the authors'."""
        features: Tensor = self.image((images + 1) / 2)
        return features

    def judge(self, features: Tensor, condition: Tensor) -> Logits:
        """Matched logits (B,) and class logits (B, C)."""
        text = self.project(condition)[:, :, None, None].expand(-1, -1, *features.shape[2:])
        joint = self.joint(torch.cat([features, text], dim=1)).permute(0, 2, 3, 1).flatten(1)  # TensorFlow's order
        return Logits(self.matching(joint).flatten(), classes=self.classes(joint))
