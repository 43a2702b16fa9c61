"""The order of maps in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def laid_out_as(other: Tensor, maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) with the channels of a place together if those of ``other`` (of 4 dimensions) are so.

    What is made of vectors is laid out otherwise, and ``torch.cat`` of two layouts has that of neither convolution.
    """
    if other.is_contiguous() or not other.is_contiguous(memory_format=torch.channels_last):
        return maps
    return maps.contiguous(memory_format=torch.channels_last)
