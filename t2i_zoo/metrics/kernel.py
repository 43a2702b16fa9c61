"""Kernel distance between two clouds of features (Binkowski et al. 2018, KID)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, ZooMetric
from t2i_zoo.metrics.networks import INCEPTION


class KernelDistance(ZooMetric):
    """Squared maximum mean discrepancy with the kernel ``(x.y / D + 1)^3``, averaged over random subsets.

    Lower is better. It is unbiased, so it may be slightly negative. Features of all images are kept (N x D float32).
    The subsets are those that torch-fidelity draws with its seed.

    Args:
        job: what is evaluated.
        subsets: number of subsets.
        subset_size: images of each kind in a subset; with fewer images all are used, and the score says so.
        subset_seed: seed of the subsets; 2020 is torch-fidelity's.
    """

    needs_network = True

    def __init__(self, job: Job, subsets: int = 100, subset_size: int = 1000, subset_seed: int = 2020) -> None:
        super().__init__(job)
        if subsets < 1 or subset_size < 2:
            raise T2IError(
                f"found {subsets} subsets of {subset_size} for kernel_distance, expected at least 1 of 2: correct the "
                "protocol"
            )
        self.subsets, self.subset_size, self.subset_seed = subsets, subset_size, subset_seed
        self.reference = job.features("reference")
        self.network = job.required_network.label
        self._collect()

    def update(self, features: Tensor, index: Tensor) -> None:
        """Add features (B, D) of the images at positions ``index`` (B,)."""
        self._keep(index, features.float())

    def compute(self) -> list[Score]:
        """One score."""
        _, fakes = self._kept()
        reals = self.reference.to(fakes.device)
        size = min(self.subset_size, len(fakes), len(reals))
        if size < 2:
            raise T2IError("found one image, expected at least 2 for a kernel distance: raise --images")
        rng = np.random.RandomState(self.subset_seed)
        values = torch.zeros(self.subsets, dtype=torch.float64)
        for i in range(self.subsets):
            some, others = (
                x[torch.from_numpy(rng.choice(len(x), size, replace=False)).to(x.device)].double()
                for x in (fakes, reals)
            )
            values[i] = unbiased_mmd(some, others)
        value, error = float(values.mean()), float(values.std(correction=0))
        label = "KID" if self.network == INCEPTION else f"{self.network} kernel distance"
        note = f"subsets of {size} instead of {self.subset_size}" if size < self.subset_size else ""
        kind = f"standard deviation of {self.subsets} subsets"
        return [Score("kernel_distance", label, value, error, kind, note=note)]


def unbiased_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate of the squared discrepancy between (m, D) and (m, D)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    m = len(x)
    own = sum(k.sum() - k.diagonal().sum() for k in (kernel(x, x), kernel(y, y)))
    return torch.as_tensor(own / (m * (m - 1)) - 2 * kernel(x, y).mean())
