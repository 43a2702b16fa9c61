"""Which image each image is mismatched with."""

from __future__ import annotations

import torch
from torch import Tensor


class MismatchSampler:
    """Draw, for each image, an image of another class, uniformly among all of those.

    Without labels, or with a single class, it draws any other image.

    Args:
        labels: (N,) int64 class of each image; -1 where there is none.
    """

    def __init__(self, labels: Tensor) -> None:
        self.by_image = bool(labels.numel() == 0 or (labels == labels[0]).all())
        groups = torch.arange(len(labels)) if self.by_image else labels
        # in order of class, the images to avoid are one run: [start, start + size)
        self.order = torch.argsort(groups, stable=True)
        _, self.group, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
        self.sizes = sizes
        self.starts = torch.cumsum(sizes, 0) - sizes

    def draw(self, index: Tensor, rng: torch.Generator) -> Tensor:
        """(B,) positions of the images to (B,) positions of mismatched ones."""
        return self.pick(index, torch.rand(len(index), generator=rng, dtype=torch.float64))

    def pick(self, index: Tensor, drawn: Tensor) -> Tensor:
        """The same for (B,) float64 numbers that were drawn uniformly from [0, 1)."""
        size, start = self.sizes[self.group[index]], self.starts[self.group[index]]
        others = len(self.order) - size
        place = torch.minimum((drawn * others).long(), others - 1)
        return self.order[torch.where(place >= start, place + size, place)]
