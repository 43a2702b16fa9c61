"""How well images and captions retrieve each other: recall at 1, and R-precision against captions of other classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CANDIDATES = 100  #: captions per image in R-precision, the true one included (Xu et al. 2018, section 4.1)
_ROWS = 1024  # queries at a time


def outranked(scores: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """How many of ``scores`` (R, C) are higher than the true one's (R, 1), and how many equal it: (R,) and (R,)."""
    return (scores > true).sum(1), (scores == true).sum(1)


def retrieval(codes: Tensor, sentences: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Retrieval by the cosine of image codes (N, D) and sentence embeddings (N, D); row i of both belong together.

    A true match that ties with n others counts as 1 / (n + 1) of a hit. So repeated captions cost nothing, and an
    encoder that returns the same code for everything scores exactly at chance.

    Args:
        codes: codes of N images.
        sentences: embedding of one caption of each image.
        labels: (N,) int64 classes, -1 for none.

    Returns:
        float32 scalars: ``r1_image_to_text`` and ``r1_text_to_image``, the share whose nearest neighbour among all N
        is the true one; ``r_precision``, the share of images whose caption is nearer than 99 captions of other classes
        (of other images where there are no classes; all of them if there are fewer); ``r_precision_chance``, the share
        that guessing would reach. The 99 are drawn with a fixed seed.
    """
    codes, sentences = F.normalize(codes.float()), F.normalize(sentences.float())
    rng = torch.Generator().manual_seed(0)
    number = torch.arange(len(codes), device=codes.device)
    keys = ("r1_image_to_text", "r1_text_to_image", "r_precision", "r_precision_chance")
    found = {key: codes.new_zeros(()) for key in keys}
    for rows in torch.split(number, _ROWS):
        scores, reverse = codes[rows] @ sentences.T, sentences[rows] @ codes.T
        true = scores.gather(1, rows[:, None])
        found["r1_image_to_text"] += _hits(scores, true, 1)
        found["r1_text_to_image"] += _hits(reverse, reverse.gather(1, rows[:, None]), 1)
        others = (number != rows[:, None]) & ((labels != labels[rows, None]) | (labels < 0))
        drawn = torch.rand(scores.shape, generator=rng).to(scores.device).masked_fill(~others, -1.0)
        order, candidates = drawn.topk(min(CANDIDATES - 1, len(codes)), dim=1)
        scores = scores.gather(1, candidates).masked_fill(order < 0, -torch.inf)  # fewer others than candidates
        found["r_precision"] += _hits(scores, true)
        found["r_precision_chance"] += (1 / (1 + (order >= 0).sum(1))).sum()
    return {key: value / max(len(codes), 1) for key, value in found.items()}


def _hits(scores: Tensor, true: Tensor, own: int = 0) -> Tensor:
    """Sum of hits over rows of scores (R, C), ``own`` of which are the true one itself; ties count in part."""
    higher, equal = outranked(scores, true)
    return ((higher == 0) / (1.0 + equal - own).clamp(min=1)).sum()
