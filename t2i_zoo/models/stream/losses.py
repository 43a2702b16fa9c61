"""STREAM's loss: how likely the words of a caption are to it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn import class_loss

__all__ = ["caption_loss", "class_loss"]


def caption_loss(scores: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy, a mean over all words of the batch: scores (N, V) and words (N,) to a float32 scalar.

    The paper (equation 12) sums over a caption's words; the code takes this mean, and its weight belongs to it.
    """
    return F.cross_entropy(scores.float(), words)
