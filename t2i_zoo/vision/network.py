"""What all image networks have in common."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.errors import T2IError


class Seen(NamedTuple):
    """What a network gives for images.

    Attributes:
        features: (B, D), pooled over the image.
        regions: (B, C, H, W), one vector for each region of the image, or None if the network has none.
        logits: (B, K), scores of the classes that the network was trained on, or None.
    """

    features: Tensor
    regions: Tensor | None
    logits: Tensor | None


class VisionNetwork(nn.Module):
    """Base of the image networks: a subclass implements ``look`` and sets the three dimensions.

    Attributes:
        name: as given to ``build_vision``.
        feature_dim: D of the features.
        region_dim: C of the regions; 0 if there are none.
        num_logits: K of the logits; 0 if there are none.
        tap_channels: channels of the four maps of ``taps``; empty if there are none.
    """

    feature_dim: int
    region_dim: int
    num_logits: int
    tap_channels: tuple[int, ...] = ()

    def __init__(self, name: str, input_size: int, align_corners: bool, antialias: bool) -> None:
        super().__init__()
        self.name = name
        self.input_size = input_size
        self.align_corners = align_corners
        self.antialias = antialias

    def forward(self, images: Tensor) -> Seen:
        """Look at images (B, 3, H, W) in [-1, 1] of any size; gradients reach them."""
        return self.look(self._resized(images))

    def taps(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C, H, W) at the strides 4, 8, 16 and 32, for images as ``forward`` takes them.

        They are what a projected discriminator reads; channels as in ``tap_channels``.

        Raises:
            T2IError: for a network without such maps.
        """
        if not self.tap_channels:
            raise T2IError(
                f"{self.name} has no feature maps at the strides 4, 8, 16 and 32: name efficientnet_lite0, or a "
                "convolutional network such as torchvision:mobilenet_v2"
            )
        return self.tap(self._resized(images))

    def _resized(self, images: Tensor) -> Tensor:
        size = (self.input_size, self.input_size)
        if not self.input_size or images.shape[-2:] == size:
            return images
        corners = {"align_corners": self.align_corners, "antialias": self.antialias}
        return F.interpolate(images, size, mode="bilinear", **corners)

    def look(self, images: Tensor) -> Seen:
        """The result for images (B, 3, S, S) in [-1, 1] of the network's own input size."""
        raise NotImplementedError

    def tap(self, images: Tensor) -> list[Tensor]:
        """The maps of ``taps`` for images as ``look`` takes them; for networks with ``tap_channels``."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Hash of all weights and of how images are resized: everything that a cached feature depends on."""
        return weights_hash(self, f"{self.name} {self.input_size} {self.align_corners} {self.antialias}")


def weights_hash(module: Any, about: str = "") -> str:
    """Hash of all weights of an ``nn.Module``, and of what is said about it, in 16 hexadecimal digits.

    Stored results hold it, and checkpoints hold the other one of ``models.state.digest``: neither may change.
    """
    found = hashlib.sha256(about.encode())
    for key, value in sorted(module.state_dict().items()):
        found.update(key.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
