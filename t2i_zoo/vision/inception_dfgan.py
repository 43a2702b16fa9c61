"""The Fréchet network of the authors of DM-GAN and DF-GAN, with their mistake in how images reach it.

The published distances of DM-GAN, DF-GAN and GALIP come from one file of code that their repositories share, and so
does one of the two that DM-GAN's README gives for AttnGAN. Use it for comparisons with these numbers alone.
"""

from __future__ import annotations

import torch

from t2i_zoo.vision.backbones import TorchvisionNetwork

NAME = "inception_v3_dfgan"


class InceptionV3DFGAN(TorchvisionNetwork):
    """torchvision's Inception-v3, 2,048 features after the last pooling, on inputs outside the range that it expects.

    Images in [0, 1] are resized to 299 px without antialiasing. They then go through the affine map that takes an image
    normalised by ImageNet's mean m and deviation s per channel to [-1, 1], ``x * s / 0.5 + (m - 0.5) / 0.5``, although
    nothing normalised them: the first channel ends up in -0.03 to 0.43.

    Args:
        weights: path of a state dict, or ``random``; by default torchvision's are downloaded once.
    """

    def __init__(self, weights: str | None) -> None:
        super().__init__(
            "inception_v3",
            weights,
            layer=None,
            normalize=True,
            logits=False,
            input_size=299,
            align_corners=False,
            antialias=False,
        )
        self.name = NAME
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        # As a subtraction and a division, which is how the base class maps images in [0, 1].
        self.mean.copy_(((0.5 - mean) / std).view(3, 1, 1))
        self.std.copy_((0.5 / std).view(3, 1, 1))
