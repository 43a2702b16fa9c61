"""Which captions pictures are drawn from: decided ahead, so that neither batches nor processes change it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.photographs import Photographs


@dataclass(frozen=True)
class Draws:
    """The pictures to draw, N of them.

    Attributes:
        rows: (N,) int64 photograph that each caption belongs to.
        captions: (N,) int64 number of each caption; means nothing where the data have no captions.
        labels: (N,) int64 class, -1 where there is none.
        pool: (M,) int64 all photographs of the split, from which mismatches are taken.
        repeats: pictures of each caption, one after the other.
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
    """Captions for ``images`` pictures: pass after pass over the photographs, one random caption of each.

    AttnGAN's protocol has 11 such passes over CUB's 2,933 test pictures. Each pass has an order of its own, so that
    any stretch of the pictures mixes the classes.

    Args:
        photographs: with their captions.
        rows: (M,) photographs whose captions are read.
        images: N.
        seed: of orders and captions.
        repeats: pictures of each caption; N must be a multiple of it.
        pool: all photographs of the split, where ``rows`` are some of them.

    Raises:
        T2IError: where that cannot be.
    """
    if images < 1 or images % repeats:
        raise T2IError(f"found --images {images}, expected a multiple of the protocol's {repeats} pictures a caption")
    rng, count = np.random.default_rng([seed, 1]), images // repeats
    passes = [rng.permutation(len(rows)) for _ in range(-(-count // len(rows)))]
    chosen = rows.numpy()[np.concatenate(passes)[:count]]
    offsets = photographs.offsets
    amount = offsets[chosen + 1] - offsets[chosen]
    captions = offsets[chosen] + (rng.random(count) * amount).astype(np.int64)
    drawn, numbers, labels = (
        torch.from_numpy(np.repeat(part, repeats)) for part in (chosen, captions, photographs.labels[chosen])
    )
    return Draws(drawn, numbers, labels, rows if pool is None else pool, repeats)
