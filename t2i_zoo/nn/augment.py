"""Differentiable augmentation of everything a discriminator sees.

Zhao et al. 2020, Differentiable Augmentation for Data-Efficient GAN Training (arXiv 2006.10738);
mit-han-lab/data-efficient-gans. Real and generated images are augmented in both steps, each image with its own random
numbers, and gradients pass through to the generator. Images (B, C, H, W) are in [-1, 1] and may leave that range, since
nothing is clamped afterwards.

Brightness, saturation and contrast contradict what a caption says about colours; for matching-aware discriminators
begin with translation and cutout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Augmentation = Literal["color", "translation", "cutout"]


def brightness(images: Tensor, u: Tensor) -> Tensor:
    """Add ``u - 0.5`` to each image; u: (B,) in [0, 1]."""
    return images + (_per_image(u, images) - 0.5)


def saturation(images: Tensor, u: Tensor) -> Tensor:
    """Scale each pixel's distance from its grey value by ``2 u``; u: (B,) in [0, 1], where 0 gives a grey image."""
    grey = images.mean(1, keepdim=True)
    return (images - grey) * (2 * _per_image(u, images)) + grey


def contrast(images: Tensor, u: Tensor) -> Tensor:
    """Scale each value's distance from the image's mean by ``u + 0.5``; u: (B,) in [0, 1]."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (_per_image(u, images) + 0.5) + mean


def translation(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Read the pixel at ``(i + down, j + right)`` for ``(i, j)``, 0 (mid-grey) outside; both (B,) integers."""
    for dim, shift in ((2, down), (3, right)):
        size = images.shape[dim]
        source = torch.arange(size, device=images.device) + shift[:, None]  # (B, size)
        shape = (-1, 1, size, 1) if dim == 2 else (-1, 1, 1, size)
        index = source.clamp(0, size - 1).view(shape).expand_as(images)
        outside = ((source < 0) | (source >= size)).view(shape)
        images = images.gather(dim, index).masked_fill(outside, 0)
    return images


def cutout(images: Tensor, row: Tensor, column: Tensor, size: tuple[int, int]) -> Tensor:
    """Fill with 0 the rectangle of ``size`` whose centre is ``(row, column)``; both (B,) integers.

    A rectangle that crosses the border is cut off there.
    """
    inside = []
    for length, centre, side in zip(images.shape[2:], (row, column), size, strict=True):
        offset = torch.arange(length, device=images.device) - centre[:, None] + side // 2
        inside.append((offset >= 0) & (offset < side))
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)


def augment(
    images: Tensor,
    policy: Sequence[Augmentation],
    rng: torch.Generator | None = None,
    *,
    probability: float | Tensor | None = None,
    cutout_ratio: float = 0.5,
) -> Tensor:
    """Augment each image at random: colour, then translation, then cutout, whatever the order of ``policy``.

    Args:
        images: (B, C, H, W) in [-1, 1], of any size.
        policy: ``color`` (brightness, saturation and contrast), ``translation`` by up to an eighth of each side,
            ``cutout`` of one rectangle; empty returns the images themselves.
        rng: source of random numbers, on the device of the images; the global one by default.
        probability: of each operation for each image, as adaptive augmentation sets it; a tensor is never read on the
            host. By default all operations are applied.
        cutout_ratio: sides of the cutout relative to the image's: 0.5 in DiffAugment, 0.2 in Projected GAN and
            StyleGAN-T.

    Returns:
        Images of the same shape and dtype.
    """
    device = images.device

    def uniform() -> Tensor:
        return torch.rand(len(images), device=device, generator=rng)

    def integer(low: int, high: int) -> Tensor:  # both inclusive
        return torch.randint(low, high + 1, (len(images),), device=device, generator=rng)

    operations: dict[Augmentation, list[Callable[[Tensor], Tensor]]] = {
        "color": [
            lambda x: brightness(x, uniform()),
            lambda x: saturation(x, uniform()),
            lambda x: contrast(x, uniform()),
        ],
        "translation": [lambda x: _shift(x, integer)],
        "cutout": [lambda x: _cut(x, integer, cutout_ratio)],
    }
    for operation in (operation for name in operations if name in policy for operation in operations[name]):
        changed = operation(images)
        if probability is not None:
            changed = torch.where((uniform() < probability).view(-1, 1, 1, 1), changed, images)
        images = changed
    return images


def _shift(images: Tensor, integer: Callable[[int, int], Tensor]) -> Tensor:
    """Translate by up to an eighth of each side."""
    most = [int(side / 8 + 0.5) for side in images.shape[2:]]
    return translation(images, *(integer(-reach, reach) for reach in most))


def _cut(images: Tensor, integer: Callable[[int, int], Tensor], ratio: float) -> Tensor:
    """Cut out a rectangle whose sides are ``ratio`` of the image's."""
    height, width = images.shape[2:]
    size = (int(height * ratio + 0.5), int(width * ratio + 0.5))
    # The centre of an even rectangle is between two pixels, so it has one more place.
    return cutout(images, integer(0, height - size[0] % 2), integer(0, width - size[1] % 2), size)


def _per_image(u: Tensor, images: Tensor) -> Tensor:
    return u.to(images.dtype).view(-1, 1, 1, 1)
