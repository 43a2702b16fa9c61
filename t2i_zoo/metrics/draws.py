"""Which captions images are generated from: decided beforehand, so that neither batches nor processes change it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.photographs import Photographs


@dataclass(frozen=True)
class Draws:
    """The N images to generate.

    Attributes:
        rows: (N,) int64 photograph that each caption belongs to.
        captions: (N,) int64 number of each caption; meaningless for data without captions.
        labels: (N,) int64 class, -1 for none.
        pool: (M,) int64 all photographs of the split, from which mismatched captions are taken.
        repeats: consecutive images of each caption.
    """

    rows: Tensor
    captions: Tensor
    labels: Tensor
    pool: Tensor
    repeats: int = 1

    def __len__(self) -> int:
        return len(self.rows)


def draw_captions(
    photographs: Photographs, rows: Tensor, images: int, seed: int, repeats: int = 1, pool: Tensor | None = None
) -> Draws:
    """Choose captions for ``images`` images: pass after pass over the photographs, one random caption of each.

    AttnGAN's protocol makes 11 such passes over the 2,933 test images of CUB. Each pass has an order of its own, so
    that any stretch of the images mixes the classes.

    Args:
        photographs: the photographs with their captions.
        rows: (M,) photographs whose captions are used.
        images: N.
        seed: seed of orders and captions.
        repeats: images of each caption; N must be a multiple of it.
        pool: all photographs of the split; by default ``rows``.

    Raises:
        T2IError: if N is not a positive multiple of ``repeats``.
    """
    check_images(images, repeats)
    rng, count = np.random.default_rng([seed, 1]), images // repeats
    passes = [rng.permutation(len(rows)) for _ in range(-(-count // len(rows)))]
    chosen = rows.numpy()[np.concatenate(passes)[:count]]
    captions = random_captions(photographs.offsets, chosen, rng)
    drawn, numbers, labels = (
        torch.from_numpy(np.repeat(part, repeats)) for part in (chosen, captions, photographs.labels[chosen])
    )
    return Draws(drawn, numbers, labels, rows if pool is None else pool, repeats)


def check_images(images: int, repeats: int) -> None:
    """Raise for a number of images that is no positive multiple of those of each caption."""
    if images < 1 or images % repeats:
        raise T2IError(f"found --images {images}, expected a multiple of the protocol's {repeats} images per caption")


def random_captions(offsets: NDArray[np.int64], rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of a random caption of each photograph in ``rows``, given the ``offsets`` of their captions."""
    amount = offsets[rows + 1] - offsets[rows]
    chosen: NDArray[np.int64] = offsets[rows] + (rng.random(len(rows)) * amount).astype(np.int64)
    return chosen
