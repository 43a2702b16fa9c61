"""Where images are cut and mirrored; the pyramid and normalisation, on the device of the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Crops(NamedTuple):
    """Where each image of a batch is cut and whether it is mirrored.

    Attributes:
        top: (B,) int64 first row.
        left: (B,) int64 first column.
        flip: (B,) bool.
    """

    top: Tensor
    left: Tensor
    flip: Tensor


def draw_crops(room: Tensor, flip: bool, rng: torch.Generator) -> Crops:
    """Random crops, mirrored with probability one half, as ``place_crops`` places them.

    Args:
        room: (B, 2) int64: rows and columns by which an image exceeds the crop.
        flip: whether images are mirrored.
        rng: source of all draws.
    """
    drawn = torch.rand(room.shape, generator=rng, dtype=torch.float64)
    return place_crops(room, drawn, torch.rand(len(room), generator=rng) if flip else torch.ones(len(room)))


def place_crops(room: Tensor, drawn: Tensor, coins: Tensor) -> Crops:
    """Crops with all offsets within the room equally likely.

    The authors of GAN-CLS never use offset 0 (they draw from 1 to 12 of a margin of 12); here every offset is drawn.

    Args:
        room: (B, 2) int64: rows and columns by which an image exceeds the crop.
        drawn: (B, 2) float64, drawn uniformly from [0, 1).
        coins: (B,); an image is mirrored below one half.
    """
    top, left = torch.minimum((drawn * (room + 1)).long(), room).unbind(1)
    return Crops(top, left, coins < 0.5)


def centre_crops(room: Tensor) -> Crops:
    """The middle of every image, unmirrored: for evaluation; (B, 2) room as in ``draw_crops``."""
    top, left = (room // 2).unbind(1)
    return Crops(top, left, torch.zeros(len(room), dtype=torch.bool))


def normalise(pixels: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Make the pyramid and map it to [-1, 1]: (B, 3, S, S) uint8 to float32 (B, 3, s, s) for each s of ``sizes``.

    The smaller sizes are resized from the same crop with PIL's bilinear filter, which averages when it shrinks. On a
    CPU they equal PIL's, rounded to integers, as in StackGAN++, AttnGAN and MirrorGAN; on other devices they are
    resized in floating point without rounding.
    """
    if pixels.device.type == "cpu":  # several times faster than in floating point
        return [_scaled(_resize(pixels, size)) for size in sizes]
    images = _scaled(pixels)
    return [_resize(images, size) for size in sizes]


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1.0)


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
