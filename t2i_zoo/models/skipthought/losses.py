"""The loss of skip-thought vectors (Kiros et al. 2015, equation 10) as a function of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def neighbour_loss(before: Tensor, before_words: Tensor, after: Tensor, after_words: Tensor) -> Tensor:
    """Mean cross-entropy of a word, over all words of the sentences before and after: a float32 scalar.

    The paper has the sum of the log-probabilities, so that long batches weigh
    more.

    Args:
        before: logits (N, V) of the words of the sentences before.
        before_words: (N,) int64, what they are.
        after, after_words: the same of the sentences after, (M, V) and (M,).
    """
    logits, words = torch.cat([before, after]).float(), torch.cat([before_words, after_words])
    return F.cross_entropy(logits, words)
