"""How well pictures and captions find each other: recall at one, and R-precision against captions of other classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CANDIDATES = 100  #: of R-precision, the true caption included (Xu et al. 2018, section 4.1)
_ROWS = 1024  # queries at a time


def retrieval(codes: Tensor, sentences: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Retrieval by the cosine of codes (N, D) and sentence vectors (N, D); rows of one number belong together.

    Where others score exactly as high as the true one, it counts as found in one of as many cases; so equal captions
    cost nothing, and an encoder that says the same of everything has the score of chance.

    Args:
        codes: of N pictures.
        sentences: of a caption of each.
        labels: (N,) int64 classes, -1 for none.

    Returns:
        Scalars float32: ``r1_image_to_text`` and ``r1_text_to_image``, the share whose nearest among all N is the true
        one; ``r_precision``, the share of pictures whose caption is nearer than 99 captions of other classes (of other
        pictures, where there are no classes), or than as many as there are; ``r_precision_chance``, what guessing gets.
        The 99 are drawn from a fixed seed.
    """
    codes, sentences = F.normalize(codes.float()), F.normalize(sentences.float())
    rng = torch.Generator().manual_seed(0)
    number = torch.arange(len(codes), device=codes.device)
    sums = dict.fromkeys(("r1_image_to_text", "r1_text_to_image", "r_precision", "r_precision_chance"), 0.0)
    found: dict[str, Tensor] = {key: codes.new_tensor(value) for key, value in sums.items()}
    for rows in torch.split(number, _ROWS):
        scores = codes[rows] @ sentences.T
        others = number != rows[:, None]
        found["r1_image_to_text"] += _hits(scores, rows, others).sum()
        found["r1_text_to_image"] += _hits(sentences[rows] @ codes.T, rows, others).sum()
        strangers = others & ((labels != labels[rows, None]) | (labels < 0))
        drawn = torch.rand(scores.shape, generator=rng).to(scores.device).masked_fill(~strangers, -1.0)
        bound = drawn.topk(min(CANDIDATES - 1, drawn.shape[1]), dim=1).values[:, -1:]
        strangers &= drawn >= bound
        found["r_precision"] += _hits(scores, rows, strangers).sum()
        found["r_precision_chance"] += (1 / (1 + strangers.sum(1))).sum()
    return {key: value / max(len(codes), 1) for key, value in found.items()}


def _hits(scores: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Share (R,) in which the own column of scores (R, N) is the largest among it and ``others`` (R, N)."""
    true = scores.gather(1, own[:, None])
    better, equal = ((test & others).sum(1) for test in (scores > true, scores == true))
    return (better == 0) / (1.0 + equal)
