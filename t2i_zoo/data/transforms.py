"""Crop, flip, pyramid and normalisation, on whichever device the pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Crops(NamedTuple):
    """Where each picture of a batch is cut and whether it is mirrored.

    Attributes:
        top: (B,) int64 first row.
        left: (B,) int64 first column.
        flip: (B,) bool.
    """

    top: Tensor
    left: Tensor
    flip: Tensor


def draw_crops(count: int, margin: int, flip: bool, generator: torch.Generator) -> Crops:
    """Random crops with offsets 0 to ``margin`` and a mirror with probability one half.

    The authors of GAN-CLS never use offset 0 (they draw from 1 to 12 of a margin of 12); here every offset is drawn.
    """
    offsets = torch.randint(0, margin + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    return Crops(offsets[0], offsets[1], mirrored)


def centre_crops(count: int, margin: int) -> Crops:
    """The middle of every picture, unmirrored: for evaluation."""
    middle = torch.full((count,), margin // 2, dtype=torch.int64)
    return Crops(middle, middle, torch.zeros(count, dtype=torch.bool))


def gather(pixels: Tensor, rows: Tensor, crops: Crops, size: int) -> Tensor:
    """Cut pictures out of a store without copying them whole: (N, L, L, 3) uint8 to (B, 3, size, size) uint8.

    All tensors lie on one device; a crop is a window into the store, so only the cut pixels are read.
    """
    windows = pixels.unfold(1, size, 1).unfold(2, size, 1)  # (N, L - S + 1, L - S + 1, 3, S, S), a view
    return windows[rows, crops.top, crops.left]


def normalise(pixels: Tensor, flip: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Mirror, map to [-1, 1], make the pyramid: (B, 3, S, S) uint8 to float32 (B, 3, s, s) for each s of ``sizes``."""
    images = torch.where(flip[:, None, None, None], pixels.flip(-1), pixels).float().div_(127.5).sub_(1.0)
    return [images if size == images.shape[-1] else F.interpolate(images, (size, size), mode="area") for size in sizes]
