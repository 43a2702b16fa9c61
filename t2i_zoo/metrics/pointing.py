"""The pointing game: whether attention has its maximum where it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

_TIE = 1e-6  # relative to the maximum: positions that differ by less than rounding share it


@runtime_checkable
class WordEncoder(Protocol):
    """What pointing needs: word and region vectors in one space, as DAMSM has them, in eval mode.

    Attributes:
        known: the vocabulary; ``known.number(word)`` is None for unknown words, which are skipped.
        hparams: with ``max_words``, the maximum number of words of a caption, and ``gamma1``, the sharpness of the
            attention.
    """

    known: Any
    hparams: Any

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (B, D, H, W) and codes of images (B, 3, S, S) in [-1, 1]."""

    def read(self, captions: Sequence[str]) -> Any:
        """``words`` (B, T, D) and ``mask`` (B, T) of captions."""


def share_of_maximum(attention: Tensor, mask: Tensor) -> Tensor:
    """Share of the position where attention (H, W) is largest that is on a mask (S, S) of 0 and 1: mostly 0 or 1.

    Attention is enlarged in the same way as by ``t2i-zoo attention``. Positions that share the maximum count equally,
    so uniform attention scores the area of the mask.
    """
    enlarged = F.interpolate(attention[None, None], tuple(mask.shape), mode="bilinear", align_corners=False)[0, 0]
    largest = (enlarged >= enlarged.max() * (1 - _TIE)).to(mask)
    return (largest * mask).sum() / largest.sum()
