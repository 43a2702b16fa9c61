"""What is DF-GAN's own in its losses: which images and sentences of a batch make mismatched pairs.

The terms and their weights are ``t2i_zoo.nn.discriminator_loss`` and ``generator_loss`` with the hinge loss, the
gradient penalty is ``t2i_zoo.nn.matching_aware_penalty`` (Tao et al. 2022, equations 1 and 2).
"""

from __future__ import annotations

import torch
from torch import Tensor


def mismatched_pairs(count: int, *, wraps: bool, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Positions (P,) of the images and of the sentences that are paired, in a batch of ``count``.

    Args:
        count: B.
        wraps: image i + 1 with sentence i, and the first image with the last sentence, P = B (the CVPR code); or image
            i with sentence i + 1, P = B - 1 (the preprint's).
        device: of the result.
    """
    order = torch.arange(count, device=device)
    if wraps and count > 1:  # a single image has no neighbour but itself
        return order.roll(-1), order
    return order[:-1], order[1:]
